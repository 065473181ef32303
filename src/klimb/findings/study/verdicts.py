"""What a study says, in sentences: who is ahead, who cannot be told apart, and what it would take.

Numbers and findings of a study as people read them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from klimb.findings.finding import Finding, Status
from klimb.findings.statistics import Interval
from klimb.findings.statistics.pairing import level_of_look
from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.comparing import Comparison, Family, Question
from klimb.findings.study.scores import StudyScores
from klimb.findings.study.thresholds import THRESHOLDS

UNKNOWN = "–"


MINUS = "−"


SMALLEST_P = 1e-4


@dataclass(frozen=True)
class Units:
    """How scores are written: accuracies as percent with one decimal, other rewards with three."""

    is_percent: bool

    @property
    def name(self) -> str:
        """`%`, or `reward`."""
        return "%" if self.is_percent else "reward"

    @property
    def of_differences(self) -> str:
        """` points` for percentages, empty for rewards."""
        return " points" if self.is_percent else ""

    def score(self, value: float) -> str:
        """`51.2` or `0.512`."""
        return self._number(value, sign="")

    def difference(self, value: float) -> str:
        """`+1.2` or `−0.012`."""
        return self._number(value, sign="+")

    def scores(self, interval: Interval) -> str:
        """`51.2 [48.0, 54.1]`; without the brackets where the interval is not known."""
        ends = f" [{self.score(interval.low)}, {self.score(interval.high)}]" if interval.is_known else ""
        return f"{self.score(interval.value)}{ends}"

    def differences(self, interval: Interval) -> str:
        """`+1.2 [−0.3, +2.7]`."""
        ends = f" [{self.difference(interval.low)}, {self.difference(interval.high)}]" if interval.is_known else ""
        return f"{self.difference(interval.value)}{ends}"

    def _number(self, value: float, *, sign: str) -> str:
        if not math.isfinite(value):
            return UNKNOWN
        shown = f"{100 * value:{sign}.1f}" if self.is_percent else f"{value:{sign}.3f}"
        # Rounded to zero, a sign would say more than is known.
        return shown.lstrip("+-") if float(shown) == 0 else shown.replace("-", MINUS)


def units_of(scores: StudyScores) -> Units:
    """Percent if every scored run's last evaluation is an accuracy."""
    return Units(scores.is_accuracy)


def against_text(question: Question) -> str:
    """Name what differs from the arm: the other method under the same setting, or the other setting of the method."""
    arm, against = question.arm, question.against
    if arm.setting == against.setting:
        return against.method
    return against.setting if arm.method == against.method else against.name


def share_text(interval: Interval) -> str:
    """Return a probability: `0.84 [0.60, 1.00]`."""
    if not math.isfinite(interval.value):
        return UNKNOWN
    return f"{interval.value:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval.is_known else "")


def p_text(p: float, *, name: str = "p") -> str:
    """`p = 0.031` or `p < 0.0001`; a dash where there was no test."""
    if not math.isfinite(p):
        return UNKNOWN
    return f"{name} < {SMALLEST_P:.4f}" if p < SMALLEST_P else f"{name} = {p:.2g}" if p < 0.1 else f"{name} = {p:.2f}"


def p_number(p: float) -> str:
    """Return the same without its name: `0.031` or `<0.0001`."""
    return p_text(p).removeprefix("p = ").replace("p < ", "<")


def decision_text(comparison: Comparison, *, more_is_better: bool = True) -> str:
    """`ahead`, `behind`, `not distinguishable` or `not tested`."""
    if comparison.decision == "open":
        return "not distinguishable"
    if comparison.decision == "untested":
        return "not tested"
    return "ahead" if (comparison.decision == "higher") == more_is_better else "behind"


def needed_text(comparison: Comparison, units: Units) -> str:
    """Return how many more seeds would tell, and of what size of the difference; empty if the question is not open."""
    if comparison.decision != "open":
        return ""
    needed = comparison.needed
    if needed.more is not None:
        least = f"{units.score(needed.at_least)}{units.of_differences}"
        seeds = "seed" if needed.more == 1 else "seeds"
        return f"about {needed.more} more {seeds} would tell, if the true difference is {least} or more (80 % sure)"
    if needed.for_problems:
        return "more seeds would not tell, more held-out problems are needed"
    if needed.at_least > 0:
        least = f"{units.score(needed.at_least)}{units.of_differences}"
        return (
            f"{THRESHOLDS.most_seeds} more seeds are too few to promise that they tell, since the true difference may "
            f"be {least}"
        )
    return MAY_BE_CHANCE


MAY_BE_CHANCE = "the difference may be chance, so that no number of seeds can be promised to tell"


def needed_short(comparison: Comparison) -> str:
    """Return it in a cell: `about 9 more seeds`, `100 may not do`, `more problems` or `may be chance`."""
    if comparison.decision != "open":
        return ""
    if comparison.needed.more is not None:
        return f"about {counted(comparison.needed.more, 'more seed')}"
    if comparison.needed.for_problems:
        return "more problems"
    return f"{THRESHOLDS.most_seeds} may not do" if comparison.needed.at_least > 0 else "may be chance"


def look_text(scores: StudyScores) -> str:
    """Return what earlier looks at the growing study cost; empty at the first."""
    if not scores.earlier_looks:
        return ""
    before = ", ".join(map(str, dict.fromkeys(scores.earlier_looks)))
    cost = THRESHOLDS.alpha / level_of_look(scores.look, alpha=THRESHOLDS.alpha)
    return (
        f"Look {scores.look} at this study, at {counted(len(scores.seeds), 'seed')} after {before}: all looks "
        f"share the 5 %, so every p is multiplied by {cost:,.3g}"
    )


def budget_text(scores: StudyScores) -> str:
    """`40,000 generated tokens` or `600 seconds of training`."""
    unit = "generated tokens" if scores.budget_kind == "tokens" else "seconds of training"
    return f"{scores.budget:,.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """`1 run` or `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


MOST_LISTED = 12
"""Names that one sentence lists."""


def verdicts(statistics: StudyStatistics) -> tuple[Finding, ...]:
    """Return the findings, the most important first."""
    found = [
        _lost_runs(statistics),
        _look(statistics),
        _leader(statistics),
        _against_baseline(statistics),
        _between_settings(statistics),
        _stability(statistics),
    ]
    return tuple(verdict for verdict in found if verdict is not None)


def comparison_sentence(comparison: Comparison, units: Units) -> str:
    """`rpg-rkl is ahead of grpo: +5.1 [+2.0, +8.2] points, p = 0.004 (corrected).`, or that they are too close."""
    arm, against = comparison.question.arm.name, comparison.question.against.name
    size = f"{units.differences(comparison.difference)}{units.of_differences}"
    if comparison.decision == "untested":
        return f"{arm} against {against}: {size}; not tested: {comparison.difference.reason}."
    p = p_text(comparison.p_adjusted)
    if comparison.decision == "open":
        return (
            f"{arm} and {against} are not distinguishable: {size}, {p} (corrected); {needed_text(comparison, units)}."
        )
    decided = "ahead of" if comparison.decision == "higher" else "behind"
    return f"{arm} is {decided} {against}: {size}, {p} (corrected)."


def _lost_runs(statistics: StudyStatistics) -> Finding | None:
    lost = statistics.failed
    if not lost:
        return None
    arms = {arm.name: sum(run.arm == arm for run in lost) for arm in statistics.scores.arms}
    listed = _listed(f"{name} ({number})" for name, number in arms.items() if number)
    are = "is" if len(lost) == 1 else "are"
    unranked = [summary for summary in statistics.arms if "" in summary.not_ranked]
    names = _listed(f"{summary.arm.name} ({summary.not_ranked['']})" for summary in unranked)
    ranks = [f"Not ranked, because others finished the same task and seed: {names}."] if unranked else []
    if len(unranked) == len(statistics.arms):
        ranks.append("Every method lost runs: there is no ranking and no leader.")
    return Finding(
        name="lost-runs",
        status="warning",
        title=f"{counted(len(lost), 'run')} of {len(statistics.scores.runs)} did not finish and {are} in no number",
        evidence="\n".join(
            [
                f"By method: {listed}.",
                *ranks,
                "A method that loses the runs that go badly looks better than it is: only its survivors count.",
            ]
        ),
    )


def _look(statistics: StudyStatistics) -> Finding | None:
    text = look_text(statistics.scores)
    if not text:
        return None
    why = "Whoever adds seeds until something tells would find something where nothing is."
    return Finding(name="look", status="note", title=text, evidence=why)


def _leader(statistics: StudyStatistics) -> Finding | None:
    family = statistics.leader
    if family is None or not family.comparisons:
        return None
    first = family.comparisons[0].question.arm
    units = units_of(statistics.scores)
    ahead = [one for one in family.comparisons if one.decision == "higher"]
    near = [one for one in family.comparisons if one.decision in ("open", "lower")]
    untested = [one for one in family.comparisons if one.decision == "untested"]
    summary = next(summary for summary in statistics.arms if summary.arm == first)
    score = f"{units.scores(summary.scores[MAIN])}{' %' if units.is_percent else ''}"
    sentences = [f"Its interquartile mean when the budget is spent is {score}."]
    if near:
        names = _listed(one.question.against.name for one in near)
        sentences.append(f"Not distinguishable from it: {names}.")
    for reason in dict.fromkeys(one.difference.reason for one in untested):
        names = _listed(one.question.against.name for one in untested if one.difference.reason == reason)
        sentences.append(f"Not tested against it, {reason}: {names}.")
    unranked = [one.arm.name for one in statistics.arms if "" in one.not_ranked]
    title = (
        f"{first.name} has the highest mean and is ahead of every other{' that is ranked' if unranked else ''}"
        if not near and not untested
        else f"{first.name} has the highest mean; it is ahead of {len(ahead)} of the {len(family.comparisons)} others"
    )
    if unranked:
        sentences.append(f"Not among them, because they lack runs that others finished: {_listed(unranked)}.")
    corrected = (
        f"The data chose it, so it is corrected over all {counted(family.num_corrected, 'pair')}. "
        if family.num_corrected
        else ""
    )
    sentences.append(f"{corrected}The highest of many is partly lucky; expect a little less of it next time.")
    return Finding(name="leader", status="good" if ahead else "note", title=title, evidence="\n".join(sentences))


def _against_baseline(statistics: StudyStatistics) -> Finding | None:
    baseline = statistics.scores.baseline
    found = [one for one in statistics.main.comparisons if one.question.against.method != one.question.arm.method]
    if not found and len(statistics.scores.methods) > 1:
        why = "No seed has a finished run of the baseline and of another method on every task."
        return Finding(
            name="against-baseline", status="unknown", title=f"Nothing is compared with {baseline}", evidence=why
        )
    return _summed_up(found, name="against-baseline", title=f"Against the baseline {baseline}", statistics=statistics)


def _between_settings(statistics: StudyStatistics) -> Finding | None:
    found = [one for one in statistics.main.comparisons if one.question.against.method == one.question.arm.method]
    if not found:
        return None
    settings = _listed(dict.fromkeys(one.question.arm.setting for one in found))
    title = f"{settings} against {found[0].question.against.setting}"
    return _summed_up(found, name="between-settings", title=title, statistics=statistics)


def _summed_up(found: Sequence[Comparison], *, name: str, title: str, statistics: StudyStatistics) -> Finding | None:
    """Return counts in the title, a sentence for each decided comparison, one for all open ones."""
    if not found:
        return None
    units = units_of(statistics.scores)
    decided = [one for one in found if one.decision in ("higher", "lower")]
    undecided = [one for one in found if one.decision == "open"]
    untested = [one for one in found if one.decision == "untested"]
    if len(found) == 1:
        only = comparison_sentence(found[0], units).rstrip(".")
        return Finding(name=name, status=_status(found), title=only, evidence="\n".join(_left_out_sentences(found)))
    ordered = sorted(decided, key=lambda one: -one.difference.value)
    sentences = [comparison_sentence(one, units) for one in ordered]
    sentences += _open_sentences(undecided, statistics)
    for reason in dict.fromkeys(one.difference.reason for one in untested):
        names = _listed(one.question.arm.name for one in untested if one.difference.reason == reason)
        sentences.append(f"Not tested, {reason}: {names}.")
    sentences += _left_out_sentences(found)
    title = f"{title}: {_counts(found)}"
    return Finding(name=name, status=_status(found), title=title, evidence="\n".join(sentences))


def _left_out_sentences(found: Sequence[Comparison]) -> list[str]:
    texts = left_out_texts(found)
    return [f"Not in these differences: {_listed(texts)}."] if texts else []


def left_out_texts(found: Sequence[Comparison]) -> list[str]:
    """Return what the differences do not hold, each once, with the comparison where it is not the same for all."""
    everywhere = set.intersection(*(set(one.left_out) for one in found)) if found else set()
    own = [
        f"{one.question.arm.name} against {against_text(one.question)}: {text}"
        for one in found
        for text in one.left_out
        if text not in everywhere
    ]
    return [*sorted(everywhere), *own]


def _open_sentences(undecided: Sequence[Comparison], statistics: StudyStatistics) -> list[str]:
    """Who is not distinguishable, by what would tell: some more seeds, very many, or only more problems."""
    start = f"Not distinguishable at {_seeds(statistics)}"
    some = sorted((one for one in undecided if one.needed.more is not None), key=lambda one: one.needed.more or 0)
    rest = [one for one in undecided if one.needed.more is None]
    none = [one for one in rest if one.needed.for_problems]
    many = [one for one in rest if not one.needed.for_problems and one.needed.at_least > 0]
    chance = [one for one in rest if not one.needed.for_problems and one.needed.at_least == 0]
    units = units_of(statistics.scores)
    parts = (
        (
            "about so many more would tell, if the true difference is as large as said (80 % sure)",
            [
                f"{one.question.arm.name} {one.needed.more} ({units.score(one.needed.at_least)}{units.of_differences})"
                for one in some
            ],
        ),
        (
            f"{THRESHOLDS.most_seeds} more are too few to promise that they tell, since the true difference may be so "
            "small",
            [f"{one.question.arm.name} ({units.score(one.needed.at_least)}{units.of_differences})" for one in many],
        ),
        (MAY_BE_CHANCE, [one.question.arm.name for one in chance]),
        ("only more held-out problems would tell", [one.question.arm.name for one in none]),
    )
    return [f"{start}; {what}: {_listed(names)}." for what, names in parts if names]


def _counts(found: Sequence[Comparison]) -> str:
    words = [decision_text(one) for one in found]
    order = ("ahead", "behind", "not distinguishable", "not tested")
    return ", ".join(f"{words.count(word)} {word}" for word in order if word in words)


def _status(found: Sequence[Comparison]) -> Status:
    return "good" if any(one.decision == "higher" for one in found) else "note"


def _stability(statistics: StudyStatistics) -> Finding | None:
    """Who lost more than the baseline between its best score on the way and its last, or less."""
    family: Family | None = statistics.others.get("drop")
    if family is None or not family.comparisons:
        return None
    units = units_of(statistics.scores)
    found = [one for one in family.comparisons if one.question.against.method == statistics.scores.baseline]
    found = [one for one in found if one.question.arm.method != statistics.scores.baseline]
    steadier = [one.question.arm.name for one in found if one.decision == "lower"]
    shakier = [one.question.arm.name for one in found if one.decision == "higher"]
    known = [summary for summary in statistics.arms if math.isfinite(summary.largest_drop)]
    worst = max(known, key=lambda summary: summary.largest_drop)
    sentences = [
        f"Largest loss of a single run between its best score on the way and its last: "
        f"{units.score(worst.largest_drop)}{units.of_differences} ({worst.arm.name})."
    ]
    if steadier:
        sentences.append(f"They lost less than {statistics.scores.baseline}: {_listed(steadier)}.")
    if shakier:
        sentences.append(f"They lost more than {statistics.scores.baseline}: {_listed(shakier)}.")
    said = f"{len(steadier)} steadier than {statistics.scores.baseline}, {len(shakier)} less steady"
    is_tested = any(one.decision != "untested" for one in found)
    same = "no method differs from the baseline by more than the noise" if is_tested else "not tested"
    title = f"Stability: {said if steadier or shakier else same}"
    return Finding(name="stability", status="note", title=title, evidence="\n".join(sentences))


def _seeds(statistics: StudyStatistics) -> str:
    return counted(len(statistics.scores.seeds), "seed")


def _listed(names: Iterable[str]) -> str:
    """Return the names, and how many more there are beyond the twelfth."""
    whole = list(names)
    more = [f"and {len(whole) - MOST_LISTED} more"] if len(whole) > MOST_LISTED else []
    return ", ".join([*whole[:MOST_LISTED], *more])
