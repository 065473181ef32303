"""What the rules measure on a run: curves, their ends and trends, and changes between two evaluations.

How a run came out: its accuracy or reward, whether the task is solved, whether something was lost.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from klimb.findings.evaluations import EvaluationRecord, change_between
from klimb.findings.finding import Steps
from klimb.findings.run.record import RunRecord
from klimb.findings.run.thresholds import Thresholds
from klimb.findings.statistics.interval import Interval
from klimb.findings.statistics.trends import trend_of


@dataclass(frozen=True)
class Window:
    """The mean of a metric over some steps, and which they are."""

    mean: float
    steps: Steps


@dataclass(frozen=True)
class Curve:
    """A metric over the steps that have it: at least one."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    window: int

    @property
    def first(self) -> Window:
        """The run's beginning."""
        return self.around(0)

    @property
    def last(self) -> Window:
        """The run's end."""
        return self.around(len(self.values))

    @property
    def middle(self) -> Window:
        """Half way."""
        return self.around((len(self.values) - self.window) // 2)

    def around(self, start: int) -> Window:
        """Return the window from this position on, moved back if it would pass the end."""
        start = max(0, min(start, len(self.values) - self.window))
        kept = slice(start, start + self.window)
        return Window(statistics.fmean(self.values[kept]), (self.steps[kept][0], self.steps[kept][-1]))

    def windows(self) -> list[Window]:
        """Every window of neighbouring steps."""
        return [self.around(start) for start in range(len(self.values) - self.window + 1)]

    @property
    def median(self) -> float:
        """Over all steps: one wild step does not move it."""
        return statistics.median(self.values)

    @property
    def mean(self) -> float:
        """Over all steps."""
        return statistics.fmean(self.values)

    @property
    def span(self) -> Steps:
        """All of its steps."""
        return self.steps[0], self.steps[-1]


def curve_of(record: RunRecord, metric: str, thresholds: Thresholds) -> Curve | None:
    """Return the metric's curve; None if fewer than `min_steps` steps have it as a finite number."""
    steps, values = record.curve(metric)
    if len(values) < max(1, thresholds.min_steps):
        return None
    window = max(round(thresholds.window_share * len(values)), int(thresholds.min_window_steps))
    return Curve(tuple(int(step) for step in steps), tuple(values), min(window, len(values)))


def counts_of(record: RunRecord, metric: str) -> dict[int, float]:
    """Return the metric by step, where it is a finite number: for counts that are added up, however few the steps."""
    steps, values = record.curve(metric)
    return {int(step): value for step, value in zip(steps, values, strict=True)}


def is_rising(values: Sequence[float], thresholds: Thresholds) -> bool:
    """Whether the values grow over the steps by more than chance would have them."""
    trend = trend_of(values)
    return trend.tau > 0 and trend.p < thresholds.trend_p


def may_be_rising(values: Sequence[float], thresholds: Thresholds) -> bool:
    """Whether the values grow so that one should not say they don't."""
    trend = trend_of(values)
    return trend.tau > 0 and trend.p < thresholds.no_trend_p


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of them does not vary."""
    if len(first) < 2 or len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return statistics.correlation(first, second)


@dataclass(frozen=True)
class LengthEffect:
    """What length has to do with value.

    Attributes:
        correlation: of characters and value over the earlier evaluation's answers.
        share: of the gain in value that the growth in length alone predicts; 1 is all of it.
    """

    correlation: float
    share: float


def length_effect(earlier: EvaluationRecord, later: EvaluationRecord) -> LengthEffect | None:
    """How much of the gain longer answers alone would have brought; None where that cannot be told.

    value ≈ a + b·characters is fitted to the earlier answers alone (over both, any gain beside any growth would look
    like one); what it predicts is b·(mean length later − mean length earlier).
    """
    old, new = _lengths_and_values(earlier), _lengths_and_values(later)
    if not old or not new:
        return None
    gain = statistics.fmean(value for _, value in new) - statistics.fmean(value for _, value in old)
    lengths, values = zip(*old, strict=True)
    if gain <= 0 or len(set(lengths)) < 2:
        return None
    slope = statistics.linear_regression(lengths, values).slope
    longer = statistics.fmean(length for length, _ in new) - statistics.fmean(lengths)
    return LengthEffect(correlation(lengths, values), slope * longer / gain)


def _lengths_and_values(evaluation: EvaluationRecord) -> list[tuple[float, float]]:
    """Of the problems whose answers were all scored: elsewhere it is not known which value is of which answer."""
    return [
        (float(len(answer)), value)
        for problem in evaluation.problems
        if len(problem.values) == len(problem.answers)
        for answer, value in zip(problem.answers, problem.values, strict=True)
    ]


def runs_of_steps(steps: Sequence[int]) -> str:
    """Return steps in words: `steps 3 to 5, 8`; of many runs the first three and how many more there are."""
    if not steps:
        return "no step"
    edges = [index + 1 for index, (left, right) in enumerate(pairwise(steps)) if right != left + 1]
    parts = [steps[low:high] for low, high in pairwise([0, *edges, len(steps)])]
    shown = [in_words((part[0], part[-1])) for part in parts[:3]]
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(shown)}{more}"


def in_words(steps: Steps) -> str:
    """`3 to 5`, or `3`."""
    return f"{steps[0]} to {steps[1]}" if steps[1] > steps[0] else f"{steps[0]}"


def at(window: Window) -> str:
    """Return `steps 1 to 3`."""
    return f"step{'s' if window.steps[1] > window.steps[0] else ''} {in_words(window.steps)}"


def outcome_curve(record: RunRecord, limits: Thresholds) -> tuple[str, Curve | None]:
    """Return the training accuracy where the task tells right from wrong, else the mean reward, with its name."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is not None:
        return "Accuracy in training", accuracy
    return "Mean reward in training", curve_of(record, "reward_mean", limits)


def held_out_change(record: RunRecord) -> Interval | None:
    """From the untrained policy to the newest evaluation; None if one is missing or has another scale.

    With too few problems it has no interval, and says why.
    """
    before, last = record.before, record.last
    return None if before is None or last is None else change_between(before, last)


def is_cloning(record: RunRecord) -> bool:
    """Whether the run imitates its data: advantages are 0 by design, and the divergence from the data teaches."""
    return record.setting("advantages.kind", "") == "zero"


def is_solved(record: RunRecord, limits: Thresholds) -> bool:
    """Whether nearly all answers are right at the end; without verdicts: rewards that rose until all were equal."""
    accuracy = curve_of(record, "accuracy", limits)
    if accuracy is not None:
        return accuracy.last.mean >= limits.solved
    return are_rewards_even(record, limits)


def are_rewards_even(record: RunRecord, limits: Thresholds) -> bool:
    """Whether rewards rose and then stopped differing: their spread is a small share of what it has been."""
    reward, spread = curve_of(record, "reward_mean", limits), curve_of(record, "reward_std", limits)
    if reward is None or spread is None or not is_rising(reward.values, limits):
        return False
    return spread.last.mean < limits.same_rewards * max(window.mean for window in spread.windows())


def has_lost_reward(record: RunRecord, limits: Thresholds) -> bool:
    """Whether held-out results fell by more than chance; without evaluations, those in training."""
    change = held_out_change(record)
    if change is not None and change.is_known:
        return change.is_negative
    _, curve = outcome_curve(record, limits)
    if curve is None:
        return False
    trend = trend_of(curve.values)
    return trend.tau < 0 and trend.p < limits.trend_p
