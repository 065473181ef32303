"""Numbers and findings of a study as people read them."""

import math
from dataclasses import dataclass

from klimb.workbench.study.comparing import Comparison, Question
from klimb.workbench.study.pairing import MOST_SEEDS
from klimb.workbench.study.resampling import Interval
from klimb.workbench.study.scores import StudyScores

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
    return Units(all(run.evaluations[-1].is_accuracy for run in scores.runs if run.is_scored))


def against_text(question: Question) -> str:
    """What differs from the arm: the other method under the same setting, the other setting of the same method."""
    arm, against = question.arm, question.against
    if arm.setting == against.setting:
        return against.method
    return against.setting if arm.method == against.method else against.name


def share_text(interval: Interval) -> str:
    """A probability: `0.84 [0.60, 1.00]`."""
    if not math.isfinite(interval.value):
        return UNKNOWN
    return f"{interval.value:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval.is_known else "")


def p_text(p: float, *, name: str = "p") -> str:
    """`p = 0.031` or `p < 0.0001`; a dash where there was no test."""
    if not math.isfinite(p):
        return UNKNOWN
    return f"{name} < {SMALLEST_P:.4f}" if p < SMALLEST_P else f"{name} = {p:.2g}" if p < 0.1 else f"{name} = {p:.2f}"


def p_number(p: float) -> str:
    """The same without its name: `0.031` or `<0.0001`."""
    return p_text(p).removeprefix("p = ").replace("p < ", "<")


def decision_text(comparison: Comparison, *, more_is_better: bool = True) -> str:
    """`ahead`, `behind`, `not distinguishable` or `not tested`."""
    if comparison.decision == "open":
        return "not distinguishable"
    if comparison.decision == "untested":
        return "not tested"
    return "ahead" if (comparison.decision == "higher") == more_is_better else "behind"


def needed_text(comparison: Comparison) -> str:
    """How many more seeds would tell, if the difference seen is the true one; empty if the question is not open."""
    if comparison.decision != "open":
        return ""
    needed = comparison.needed
    if needed.more is not None:
        return f"about {needed.more} more {'seed' if needed.more == 1 else 'seeds'} would tell"
    if needed.for_problems:
        return "more seeds would not tell, more held-out problems are needed"
    return f"more than {MOST_SEEDS} more seeds would be needed to tell"


def needed_short(comparison: Comparison) -> str:
    """The same in a cell: `about 9 more seeds`, `over 100 more seeds` or `more problems`."""
    if comparison.decision != "open":
        return ""
    if comparison.needed.more is not None:
        return f"about {counted(comparison.needed.more, 'more seed')}"
    return "more problems" if comparison.needed.for_problems else f"over {MOST_SEEDS} more seeds"


def budget_text(scores: StudyScores) -> str:
    """`40,000 generated tokens` or `600 seconds of training`."""
    unit = "generated tokens" if scores.budget_kind == "tokens" else "seconds of training"
    return f"{scores.budget:,.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """`1 run` or `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
