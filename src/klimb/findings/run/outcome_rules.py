"""Rules about what came of the run: learned or not, lost again, forgotten, by heart, too few data, ratios in order.

What the guard's metrics say was lost between before training and its end.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, change_between, means_that_changed
from klimb.findings.finding import Finding
from klimb.findings.guard.events import events_of, in_one_sentence
from klimb.findings.metrics.of_losses import CLIP_FRACTIONS
from klimb.findings.run.ending import finding_of
from klimb.findings.run.evidence import (
    at,
    counts_of,
    curve_of,
    has_lost_reward,
    held_out_change,
    in_words,
    is_cloning,
    is_rising,
    may_be_rising,
    outcome_curve,
)
from klimb.findings.run.record import RunRecord, is_number
from klimb.findings.run.thresholds import Thresholds
from klimb.findings.statistics.interval import Interval
from klimb.findings.statistics.means import LEAST_UNBOUNDED, WELCH
from klimb.findings.statistics.trends import trend_of

RATES: Mapping[str, str] = {
    "refusal_fraction": "refusals of general problems",
    "empty_fraction": "empty answers to general problems",
    "repetition_fraction": "answers to general problems that end in a loop",
    "rollout_refusal_fraction": "refusals in the rollouts",
    "rollout_empty_fraction": "empty rollouts",
    "rollout_repetition_fraction": "rollouts that end in a loop",
}
"""Guarded shares of responses that should not grow, in words."""


MOST_EVENTS = 3


@dataclass(frozen=True)
class Loss:
    """One loss in words with its numbers, and whether it is a heavy one."""

    words: str
    is_bad: bool = False


def guarded_losses(record: RunRecord, limits: Thresholds) -> list[Loss]:
    """Return what the guard measured worse at the end than before, beyond the limits, and what it did about it.

    What is drawn counts only if the guard's own test at the end says that it is more than chance.
    """
    before, after = _named(record.guard.get("before")), _named(record.guard.get("after")) or _newest(record)
    tests = _tests(record.guard)
    losses = [_perplexity(before, after, limits), _general(before, after, tests, limits)]
    losses += [_format(before, after, tests, limits), *(_rate(name, before, after, tests, limits) for name in RATES)]
    measured = [loss for loss in losses if loss is not None]
    return measured + _events(record, are_warnings_told=not measured)


@dataclass(frozen=True)
class _Test:
    """What the guard's test of one number says."""

    num_units: int
    unit: str
    p: float
    level: float

    @property
    def is_worse(self) -> bool:
        """True if it is worse by more than chance."""
        return self.p <= self.level

    def __str__(self) -> str:
        return f"{self.num_units} {self.unit}{'' if self.num_units == 1 else 's'}, p = {self.p:.2g}"


def _tests(guard: Mapping[str, Any]) -> dict[str, _Test]:
    """Return the tests in the content of guard.json by the name of their number, without `guard/`."""
    rows = guard.get("tests")
    return {
        str(row["name"]).removeprefix("guard/"): _Test(
            row["num_units"], _unit_of(row), float(row["p"]), float(row["level"])
        )
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping)
        and "name" in row
        and isinstance(row.get("num_units"), int)
        and all(is_number(row.get(name)) for name in ("p", "level"))
    }


def _unit_of(row: Mapping[str, Any]) -> str:
    """Return the noun for a unit that a row names."""
    return "prompt" if row.get("unit") == "prompt" else "problem"


def _tested(words: str, limit: str, test: _Test | None, *, is_bad: bool = False) -> Loss | None:
    """Return the loss, if it is more than chance; one that was never tested is told as such and never a heavy one."""
    if test is None:
        return Loss(f"{words} (limit {limit}; not tested, so it may be chance)")
    return Loss(f"{words} (limit {limit}; {test})", is_bad=is_bad) if test.is_worse else None


def _perplexity(before: Mapping[str, float], after: Mapping[str, float], limits: Thresholds) -> Loss | None:
    """Compare the numbers themselves: nothing in a perplexity is drawn."""
    pair = _pair("perplexity", before, after)
    if pair is None or pair[0] <= 0 or pair[1] / pair[0] <= limits.perplexity_ratio:
        return None
    ratio = pair[1] / pair[0]
    rise = f"{pair[0]:.3g} → {pair[1]:.3g} ({ratio:.2f} times, limit {limits.perplexity_ratio:g})"
    return Loss(f"perplexity of the held-out text {rise}", is_bad=ratio > limits.perplexity_ratio_bad)


def _general(
    before: Mapping[str, float], after: Mapping[str, float], tests: Mapping[str, _Test], limits: Thresholds
) -> Loss | None:
    pair = _pair("general_mean", before, after)
    if pair is None or pair[0] - pair[1] <= limits.general_drop:
        return None
    words, limit = f"general tasks {pair[0]:.1%} → {pair[1]:.1%}", f"−{limits.general_drop:.0%}"
    return _tested(words, limit, tests.get("general_mean"), is_bad=True)


def _format(
    before: Mapping[str, float], after: Mapping[str, float], tests: Mapping[str, _Test], limits: Thresholds
) -> Loss | None:
    pair = _pair("format_valid_fraction", before, after)
    if pair is None or pair[0] - pair[1] <= limits.rate_change:
        return None
    words, limit = f"answers in the right format {pair[0]:.1%} → {pair[1]:.1%}", f"−{limits.rate_change:.0%}"
    return _tested(words, limit, tests.get("format_valid_fraction"))


def _rate(
    name: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    tests: Mapping[str, _Test],
    limits: Thresholds,
) -> Loss | None:
    pair = _pair(name, before, after)
    if pair is None or pair[1] - pair[0] <= limits.rate_change:
        return None
    words, limit = f"{RATES[name]} {pair[0]:.1%} → {pair[1]:.1%}", f"+{limits.rate_change:.0%}"
    return _tested(words, limit, tests.get(name))


def _events(record: RunRecord, *, are_warnings_told: bool) -> list[Loss]:
    """Return what the guard did: the newest few. Its warnings say again what was measured.

    A stop is a heavy loss where the guard has tested it, or where nothing is drawn.
    """
    events, is_tested = events_of(record.guard), isinstance(record.guard.get("tests"), list)
    told = [event for event in events if are_warnings_told or event.action != "warn"]
    return [
        Loss(
            f"the guard's action at step {event.step} was {event.action}: {in_one_sentence(event.finding)}",
            is_bad=event.action == "stop" and (is_tested or event.finding.name == "guard/perplexity"),
        )
        for event in told[-MOST_EVENTS:]
    ]


def _pair(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float] | None:
    return (before[name], after[name]) if name in before and name in after else None


def _newest(record: RunRecord) -> Mapping[str, float]:
    """Of a run that has not been measured at its end: the newest row that the guard wrote into."""
    guarded = (row for row in reversed(record.rows) if any(name.startswith("guard/") for name in row))
    return _named(next(guarded, {}))


def _named(measured: Any) -> dict[str, float]:
    """Return the finite numbers by name, without `guard/`."""
    if not isinstance(measured, Mapping):
        return {}
    return {str(name).removeprefix("guard/"): float(value) for name, value in measured.items() if is_number(value)}


def forgetting(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the model is worse than before: at the task, or in what the guard measures."""
    losses = guarded_losses(record, limits)
    change = held_out_change(record)
    lost_task = change is not None and change.is_negative
    if not losses and not lost_task:
        return None
    words = [loss.words for loss in losses]
    if change is not None and lost_task:
        words.insert(0, f"held-out problems {_change_in_words(record, change)}")
    return Finding(
        status="bad" if lost_task or any(loss.is_bad for loss in losses) else "warning",
        title="The model has got worse than it was before training",
        evidence=f"{'; '.join(words)}.",
        advice=(
            "Lower optimizer.learning_rate or take fewer steps, raise objective.beta with a fixed reference "
            '(reference.kind = "fixed"), train an adapter ([model.lora]), and let [guard] stop or roll back.'
        ),
    )


def unstable(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find that the last policy is worse than one on the way.

    The best of many evaluations was chosen by its luck: each that could have been it is a test, and shares the level.
    """
    trained = [made for made in record.evaluations if made.when != "before" and math.isfinite(made.mean)]
    if len(trained) < 2:
        return None
    best, last = max(trained, key=lambda made: made.mean), trained[-1]
    num_others = len(trained) - 1
    change = change_between(best, last, alpha=limits.alarm_p / num_others)
    if best is last or change is None or not change.is_negative or -change.value <= limits.max_drop:
        return None
    first, second = means_that_changed(best, last)
    return Finding(
        status="warning",
        title="The best policy is not the last one",
        evidence=(
            f"Held-out {_value(first, best)} at step {best.step}, {_value(second, last)} at step {last.step}: "
            f"{_difference(change_between(best, last) or change, last)} (limit {_value(limits.max_drop, last)}). "
            f"More than chance also for the best of {num_others} (p < {limits.alarm_p / num_others:.2g})."
        ),
        advice="Stop near the best step (training.num_steps), or lower optimizer.learning_rate in the second half.",
        steps=(best.step, last.step),
    )


def too_little_data(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Few training problems, learned by heart, or too few held-out ones to see a difference."""
    trained_on = [words for words in (_by_heart(record, limits), _few(record, limits)) if words]
    found = [*trained_on, *(words for words in (_wide(record, limits),) if words)]
    if not found:
        return None
    return Finding(
        status="warning" if trained_on else "note",
        title="Too little data",
        evidence=" ".join(words for words, _ in found),
        advice=" ".join(dict.fromkeys(advice for _, advice in found)),
    )


def _by_heart(record: RunRecord, limits: Thresholds) -> tuple[str, str] | None:
    accuracy, last = curve_of(record, "accuracy", limits), record.last
    if accuracy is None or last is None or not last.is_accuracy:
        return None
    if record.setting("sampling.temperature", 1.0) != last.temperature:
        return None
    gap, sure = accuracy.last.mean - last.mean, last.interval_at(limits.alarm_p)
    if gap <= limits.memory_gap or not sure.is_known or accuracy.last.mean <= sure.high:
        return None
    words = (
        f"{accuracy.last.mean:.1%} right in training ({at(accuracy.last)}), {last.mean:.1%} on held-out problems "
        f"({last.interval.low:.1%} to {last.interval.high:.1%}): learned by heart (limit {limits.memory_gap:.0%} "
        f"apart, p < {limits.alarm_p / 2:g})."
    )
    return words, "More or more varied training problems, or fewer training.num_steps."


def _few(record: RunRecord, limits: Thresholds) -> tuple[str, str] | None:
    passes = curve_of(record, "epoch", limits)
    drawn = sum(counts_of(record, "num_groups").values())
    if passes is None or passes.values[-1] < limits.many_passes:
        return None
    problems = drawn / (passes.values[-1] + 0.5)
    if problems >= limits.few_problems:
        return None
    words = f"About {problems:.0f} training problems were gone through {passes.values[-1]:.0f} times."
    return words, "More training problems: a few are soon known, and say little about others."


def _wide(record: RunRecord, limits: Thresholds) -> tuple[str, str] | None:
    change, last = held_out_change(record), record.last
    advice = "More held-out problems (evaluation.num_problems, task.held_out_fraction), not more samples of each."
    if change is None or last is None:
        return None
    if not change.is_known:
        # Enough problems without an interval have another reason, which more of them would not mend.
        is_small = change.num_units < LEAST_UNBOUNDED
        return (f"What changed on held-out problems cannot be told: {change.reason}.", advice) if is_small else None
    if not last.is_accuracy or not change.low <= 0 <= change.high or change.half_width <= limits.hoped_gain:
        return None
    words = (
        f"With {change.counted_units} the change of {_difference(change, last)} cannot be told from none "
        f"(half width above {limits.hoped_gain:.0%})."
    )
    return words, advice


def not_learning(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Neither the reward nor the held-out result moves."""
    name, curve = outcome_curve(record, limits)
    change = held_out_change(record)
    if is_cloning(record):
        return None
    if curve is None or len(curve.values) < limits.steps_to_learn or may_be_rising(curve.values, limits):
        return None
    if change is not None and (change.is_positive or change.is_negative):
        return None
    trend = trend_of(curve.values)
    evaluated = "" if change is None else f" Held-out problems {_change_in_words(record, change)}."
    return Finding(
        status="warning",
        title="Nothing was learned that can be seen",
        evidence=(
            f"{name} {curve.first.mean:.3g} ({at(curve.first)}) → {curve.last.mean:.3g} ({at(curve.last)}), no trend "
            f"(Kendall's τ = {trend.tau:.2f}, p = {trend.p:.2g}).{evaluated}"
        ),
        advice=(
            "Check grad_norm and the rollouts; then 3 to 10 times optimizer.learning_rate (now "
            f"{record.setting('optimizer.learning_rate', 'not known')}), more training.num_steps, larger groups."
        ),
        steps=curve.span,
    )


def did_not_finish(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find that an error or a signal ended the run before it was finished."""
    return None if record.ending is None else finding_of(record.ending, folder=shlex.quote(str(record.folder)))


def damaged_files(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find that lines or files of the run cannot be read, so that all other findings are of the rest."""
    if not record.damage:
        return None
    return Finding(
        status="warning",
        title="Files of the run are damaged, and what follows is of the rest",
        evidence="\n".join(f"{note}." for note in record.damage),
        advice="Put back a copy of the file if there is one; a resume mends what can be mended and keeps the rest.",
    )


def prompts_differ(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find prompts of the warm-up or of the evaluations that training never asks."""
    if not record.prompt_differences:
        return None
    return Finding(
        status="warning",
        title="What is trained on is asked otherwise elsewhere in the run",
        evidence="\n".join(f"{difference}." for difference in record.prompt_differences),
        advice=(
            "Ask alike: cloning.template and cloning.system_prompt for the warm-up, task.template (task.wording) and "
            "task.system_prompt for what is drawn and evaluated; a log is best evaluated on prompts as its own."
        ),
    )


def problems_left_out(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Find problems, and pairs of the warm-up, that the model cannot be asked."""
    if not record.left_out:
        return None
    return Finding(
        status="note",
        title="Some problems could not be asked and were left out",
        evidence="\n".join(f"{sentence}." for sentence in record.left_out),
        advice=(
            "Results are of the others alone. Shorten those, lower sampling.max_new_tokens, or take a model or "
            "model.chat_template that takes them; task.max_unusable_fraction says how many may be left out."
        ),
    )


def cloning(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Whether the data that is imitated became more likely: learnt, not moved, or unlearnt."""
    curve = curve_of(record, "log_pi_mean", limits)
    if curve is None or not is_cloning(record):
        return None
    trend = trend_of(curve.values)
    evidence = (
        f"Mean log π of the data {curve.first.mean:.3g} ({at(curve.first)}) → {curve.last.mean:.3g} nats per token "
        f"({at(curve.last)}; Kendall's τ = {trend.tau:.2f}, p = {trend.p:.2g})."
    )
    if trend.tau > 0 and trend.p < limits.trend_p:
        return Finding(
            status="good",
            title="The data was learnt: it became more likely",
            evidence=f"{evidence} Whether the answers are better, held-out problems say.",
            steps=curve.span,
        )
    rate = record.setting("optimizer.learning_rate", "not known")
    if trend.tau < 0 and trend.p < limits.trend_p:
        return Finding(
            status="bad",
            title="The data is being unlearnt: it became less likely",
            evidence=evidence,
            advice=(
                f"Lower optimizer.learning_rate (now {rate}) by 3 to 10 times. If that does not help, check that "
                'objective.divergence is "fkl" and reference.kind "behaviour".'
            ),
            steps=curve.span,
        )
    if len(curve.values) < limits.steps_to_learn or may_be_rising(curve.values, limits):
        return None
    return Finding(
        status="warning",
        title="Cloning changed nothing: the data is as likely as before",
        evidence=evidence,
        advice=(
            f"3 to 10 times optimizer.learning_rate (now {rate}), or more training.num_steps. If grad_norm is 0, "
            "nothing acts; if it is not, the data may be learnt already."
        ),
        steps=curve.span,
    )


def learned(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Held-out problems are solved better than before; without evaluations, the reward in training rose."""
    change = held_out_change(record)
    if change is not None and change.is_known:
        if not change.is_positive:
            return None
        return Finding(
            status="good",
            title="It learned, on problems it was not trained on",
            evidence=f"Held-out problems {_change_in_words(record, change)}.",
        )
    name, curve = outcome_curve(record, limits)
    if curve is None or not is_rising(curve.values, limits) or has_lost_reward(record, limits):
        return None
    return Finding(
        status="good",
        title="The reward in training rose",
        evidence=(
            f"{name} {curve.first.mean:.3g} ({at(curve.first)}) → {curve.last.mean:.3g} ({at(curve.last)}). "
            f"{_held_out_untold(change)}"
        ),
        steps=curve.span,
    )


def ratios_in_order(record: RunRecord, limits: Thresholds) -> Finding | None:
    """Return the weights moved, and stayed where ratios and clips mean something."""
    ess, drift, w_max = (curve_of(record, name, limits) for name in ("ess_token", "kl_mu_pi", "w_max"))
    if ess is None or drift is None or w_max is None or max(w_max.values) <= 1 + limits.inert_weight:
        return None
    if ess.median < limits.ess_token or drift.median > limits.kl:
        return None
    clipped = sum(curve.median for name in CLIP_FRACTIONS if (curve := curve_of(record, name, limits)) is not None)
    return Finding(
        status="good",
        title="The data stayed close enough to the policy",
        evidence=(
            f"Medians over steps {in_words(ess.span)}: effective share of the tokens {ess.median:.2f}, KL(μ‖π) "
            f"{drift.median:.2g} nats per token, {clipped:.1%} of the units at a clip's bound."
        ),
        steps=ess.span,
    )


def _held_out_untold(change: Interval | None) -> str:
    if change is None:
        return "Held-out problems were not asked before and after."
    return f"What changed on held-out problems cannot be told: {change.reason}."


def _change_in_words(record: RunRecord, change: Interval) -> str:
    """`22.6% → 81.0% (+58.3%, 95 % interval +45.2% to +70.2% over 21 problems)`."""
    before, last = record.before, record.last
    assert before is not None and last is not None
    first, second = means_that_changed(before, last)
    return f"{_value(first, last)} → {_value(second, last)} ({_difference(change, last)})"


def _difference(change: Interval, evaluation: EvaluationRecord) -> str:
    mean = _value(change.value, evaluation, sign="+")
    if not change.is_known:
        return f"{mean}, no interval: {change.reason}"
    low, high = (_value(end, evaluation, sign="+") for end in (change.low, change.high))
    paired = ", not paired" if change.method == WELCH else ""
    return f"{mean}, 95 % interval {low} to {high} over {change.counted_units}{paired}"


def _value(value: float, evaluation: EvaluationRecord, *, sign: str = "") -> str:
    return f"{value:{sign}.1%}" if evaluation.is_accuracy else f"{value:{sign}.3f}"
