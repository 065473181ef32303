"""Aggregate scores over the runs of a study: interquartile mean, probability of improvement, performance profile.

A `strata` argument holds, for each task, the scores of its runs. Every task counts alike, however many of its runs
finished. Tasks are fixed, runs are what was drawn; the held-out problems are given.

The statistics are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv 2108.13264). Its bootstrap intervals are not used: with 2 to 5 runs of a task they hold the truth in 50 to 90 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import ROUNDING
from klimb.findings.statistics.proportions import share_ends

Array = NDArray[np.float64]


Strata = Sequence[Array]


CUT = 0.25
"""Share of the runs' weight that the interquartile mean cuts off at either end."""


LEAST_FREEDOM = 2
"""Runs beyond the first of each task, together, below which a mean has no interval: with one, t reaches to 12.7."""


CLAMPED_FROM = 8
"""Runs of a task from which the variance of clamped scores is trusted by itself."""


LEAST_RUNS_COMPARED = 3
"""Runs of a task in each of two methods below which P(improvement) has no interval."""


LARGEST = 1e150
"""Scores beyond it have no squares."""


@dataclass(frozen=True)
class Profile:
    """A performance profile: for each threshold the share of runs that score above it, with a pointwise band."""

    thresholds: Array
    share: Array
    low: Array
    high: Array
    reason: str = ""


@dataclass(frozen=True)
class _Pool:
    """All runs in ascending order, each with its task and the share of the whole that it has."""

    values: Array
    weights: Array
    tasks: NDArray[np.int64]

    @property
    def kept(self) -> Array:
        """Weight of each run that lies between the quarters."""
        ends = np.cumsum(self.weights)
        return np.clip(ends, CUT, 1 - CUT) - np.clip(ends - self.weights, CUT, 1 - CUT)

    def quantile(self, share: float) -> float:
        """Value below which this share of the weight lies, on straight lines between the runs' middles."""
        return float(np.interp(share, np.cumsum(self.weights) - self.weights / 2, self.values))


def interquartile_mean(strata: Strata) -> float:
    """Mean of the middle half of all runs, each weighing one over the finished runs of its task.

    A quarter of the weight is cut off at either end, parts of a run included: the interquartile mean of the mixture of
    the tasks' distributions of scores. With runs in equal numbers, a multiple of four, it is the 25 % trimmed mean.

    Source: arXiv 2108.13264, section 4.3.
    """
    pool = _pooled(strata)
    return float((pool.kept * pool.values).sum() / pool.kept.sum())


def iqm(strata: Strata, *, bounds: tuple[float, float] | None = None) -> Interval:
    """Interquartile mean over all runs of all tasks with its 95 % interval; `bounds` are those of a score.

    The variance is the sum over tasks of the variance of its scores clamped to the quartiles of the pool, twice over
    (a trimmed mean's influence function); the interval is Student's t with Satterthwaite's degrees of freedom, of
    which a task has one fewer than it has distinct clamped scores. Clamping a few runs says little of their spread:
    with fewer than 8 of a task, its variance is that of the scores themselves if there is one task, and at least that
    if there are several.

    Source: Tukey and McLaughlin 1963; Yuen 1974; Huber 1981, section 3.3 (the influence function).
    """
    num_runs = sum(len(scores) for scores in strata)
    found = Interval(
        interquartile_mean(strata),
        method="Student's t of the trimmed mean",
        unit="run",
        num_units=num_runs,
        assumes="runs drawn independently, scores not strongly skewed; the held-out problems as given",
    )
    reason = _why_no_interval(strata)
    if reason:
        return found.without_ends(reason)
    variances, freedoms = _variances(strata)
    total = float(variances.sum())
    if total <= (ROUNDING * max(float(np.abs(scores).max()) for scores in strata)) ** 2:
        return found.without_ends("all runs of a task have the same score")
    # Of shares, since squares of tiny variances underflow.
    freedom = 1 / float(((variances / total) ** 2 / freedoms).sum())
    reach = float(special.stdtrit(freedom, 1 - ALPHA / 2)) * math.sqrt(total)
    return Interval(
        found.value,
        found.value - reach,
        found.value + reach,
        method=found.method,
        unit=found.unit,
        num_units=num_runs,
        assumes=found.assumes,
    ).within(bounds)


def probability_of_improvement(strata: Strata, baseline: Strata) -> Interval:
    """Mean over tasks of `P(X > Y) + P(X = Y)/2`, for a run X here and a run Y of the baseline, with its 95 % interval.

    On each task the interval is Newcombe's for U/mn (Hanley and McNeil's variance at the interval's own end, his
    method 5), with Student's t at m + n − 2 degrees of freedom in place of the normal quantile. Over tasks the
    distances to the ends are added as squares (MOVER).

    Source: arXiv 2108.13264, section 4.3; Newcombe 2006, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic", part 2; Zou and Donner 2008.

    Raises:
        ValueError: the two do not have the same number of tasks.
    """
    if len(strata) != len(baseline):
        raise ValueError(f"{len(strata)} tasks against {len(baseline)}: give the scores of the same tasks")
    shares = [_improvement(ours, theirs) for ours, theirs in zip(strata, baseline, strict=True)]
    found = Interval(
        float(np.mean(shares)),
        method="Newcombe's method 5 with Student's t",
        unit="run",
        num_units=sum(len(scores) for scores in (*strata, *baseline)),
        assumes="runs of the two drawn independently",
    )
    least = min((len(scores) for scores in (*strata, *baseline)), default=0)
    if least < LEAST_RUNS_COMPARED:
        return found.without_ends(f"{_runs(least)} of a task, and {LEAST_RUNS_COMPARED} are the least for an interval")
    ends = [
        _newcombe(share, len(ours), len(theirs)) for share, ours, theirs in zip(shares, strata, baseline, strict=True)
    ]
    low, high = _over_tasks(np.array(shares)[:, None], np.array(ends)[:, :, None])
    return Interval(
        found.value,
        float(low[0]),
        float(high[0]),
        method=found.method,
        unit=found.unit,
        num_units=found.num_units,
        assumes=found.assumes,
    )


def performance_profile(strata: Strata, *, thresholds: Array) -> Profile:
    """Mean over tasks of the share of runs that score more than each threshold, with a pointwise 95 % band.

    On each task the interval of a share of independent runs; over tasks the distances to the ends are added as
    squares (MOVER). It has a width where all runs lie above a threshold, or none: other runs might not.

    Source: arXiv 2108.13264, section 4.2 (score distributions); Zou and Donner 2008.
    """
    shares = np.array([(scores[:, None] > thresholds).mean(axis=0) for scores in strata])
    if min(len(scores) for scores in strata) < 2:
        unknown = np.full(thresholds.shape, math.nan)
        return Profile(thresholds, shares.mean(axis=0), unknown, unknown, "one run of a task")
    ends = np.array([_ends_of_shares(row, len(scores)) for row, scores in zip(shares, strata, strict=True)])
    low, high = _over_tasks(shares, ends)
    return Profile(thresholds, shares.mean(axis=0), low, high)


def _ends_of_shares(shares: Array, number: int) -> Array:
    """Return the ends [low or high, share] of shares among so many runs; few of them differ."""
    distinct, at = np.unique(shares, return_inverse=True)
    return np.array([share_ends(share, number) for share in distinct]).T[:, at]


def _pooled(strata: Strata) -> _Pool:
    values = np.concatenate(list(strata))
    weights = np.concatenate([np.full(len(scores), 1 / (len(scores) * len(strata))) for scores in strata])
    tasks = np.repeat(np.arange(len(strata)), [len(scores) for scores in strata])
    order = np.argsort(values, kind="stable")
    return _Pool(values[order], weights[order], tasks[order])


def _why_no_interval(strata: Strata) -> str:
    """Return the reason, empty if there is none."""
    fewest, freedom = min(len(scores) for scores in strata), sum(len(scores) - 1 for scores in strata)
    if fewest < 2 or freedom < LEAST_FREEDOM:
        on = "one task" if len(strata) == 1 else "a task"
        least = LEAST_FREEDOM + 1 if len(strata) == 1 else 2
        return f"{_runs(fewest)} of {on}, and {least} are the least for an interval"
    largest = max(float(np.abs(scores).max()) for scores in strata)
    return f"scores up to {largest:.0e} are too large to square (overflow)" if largest > LARGEST else ""


def _runs(number: int) -> str:
    return f"{number} run" if number == 1 else f"{number} runs"


def _variances(strata: Strata) -> tuple[Array, Array]:
    """Of each task: its part of the variance of the interquartile mean, and the degrees of freedom behind it."""
    pool = _pooled(strata)
    low, high = pool.quantile(CUT), pool.quantile(1 - CUT)
    is_alone = len(strata) == 1
    variances, freedoms = [], []
    for scores in strata:
        number, clamped = len(scores), np.clip(scores, low, high)
        variance, freedom = float(clamped.var(ddof=1)) / (1 - 2 * CUT) ** 2, number - 1
        if number < CLAMPED_FROM:
            of_scores = float(scores.var(ddof=1))
            variance = of_scores if is_alone else max(variance, of_scores)
        elif not is_alone:
            freedom = max(1, len(np.unique(clamped)) - 1)
        variances.append(variance / (number * len(strata) ** 2))
        freedoms.append(freedom)
    return np.array(variances), np.array(freedoms, dtype=np.float64)


def _improvement(ours: Array, theirs: Array) -> float:
    return float((1 + np.sign(ours[:, None] - theirs[None, :]).mean()) / 2)


def _newcombe(share: float, num_ours: int, num_theirs: int) -> tuple[float, float]:
    quantile = float(special.stdtrit(num_ours + num_theirs - 2, 1 - ALPHA / 2))
    low = _newcombe_low(share, num_ours, num_theirs, quantile)
    return low, 1 - _newcombe_low(1 - share, num_ours, num_theirs, quantile)


def _newcombe_low(share: float, num_ours: int, num_theirs: int, quantile: float) -> float:
    """Return the truth below the share that is just as far from it as the quantile of its own error: a bisection."""
    low, high, extra = 0.0, share, (num_ours + num_theirs) / 2 - 1
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        spread = middle * (1 - middle) * (1 + extra * ((1 - middle) / (2 - middle) + middle / (1 + middle)))
        is_outside = share - middle > quantile * math.sqrt(spread / (num_ours * num_theirs))
        low, high = (middle, high) if is_outside else (low, middle)
    return (low + high) / 2


NUM_HALVINGS = 60


def _over_tasks(shares: Array, ends: Array) -> tuple[Array, Array]:
    """Return the ends of the mean of independent shares [task, ...] with ends [task, low or high, ...]."""
    num_tasks, value = len(shares), shares.mean(axis=0)
    below = np.sqrt(((shares - ends[:, 0]) ** 2).sum(axis=0)) / num_tasks
    above = np.sqrt(((ends[:, 1] - shares) ** 2).sum(axis=0)) / num_tasks
    return np.maximum(value - below, 0.0), np.minimum(value + above, 1.0)
