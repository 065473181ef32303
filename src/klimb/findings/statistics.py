"""Statistics as functions of numbers: effective shares, tests on counts, aggregate scores with intervals.

A `strata` argument holds, for each task, the scores of its runs. Intervals are percentile intervals of the stratified
bootstrap: runs are drawn again with replacement within each task, tasks stay.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


LOG_BOUND = 20.0
"""Log-ratios are bounded to ±20 before exp, as verl does; e^20 is beyond every threshold."""


MIN_TAIL = 5
"""A tail of fewer weights says nothing about its shape."""


def effective_share(log_weights: Numbers) -> float:
    """Kish's effective sample size over the number of weights: (Σw)² / (n·Σw²), in (0, 1], computed in log space."""
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def k1(log_w: Numbers) -> float:
    """mean(−log w): unbiased for KL(μ‖π) when the tokens were drawn from μ; may be negative."""
    return float(-log_w.mean())


def k3(log_w: Numbers) -> float:
    """mean(w − 1 − log w): unbiased for KL(μ‖π) when the tokens were drawn from μ; never negative."""
    bounded = log_w.clip(-LOG_BOUND, LOG_BOUND)
    return float((np.expm1(bounded) - bounded).mean())


def chi_square(log_w: Numbers) -> float:
    """mean(w²) − 1: unbiased for χ²(π‖μ) when the tokens were drawn from μ."""
    return float(np.exp(2 * log_w.clip(-LOG_BOUND, LOG_BOUND)).mean() - 1)


def pareto_k(log_weights: Numbers) -> float | None:
    """Shape k̂ of a generalised Pareto distribution fitted to the largest weights; None if they have no tail to fit.

    The tail is what lies above the M-th largest weight, M = min(0.2·n, 3·√n) (arXiv 1507.02646). k̂ > 0.5 says that
    the weights' variance is infinite. None: fewer than 5 weights lie above the cut, or all of them are equal.
    """
    ordered = np.sort(log_weights)
    num_tail = int(np.ceil(min(0.2 * len(ordered), 3 * np.sqrt(len(ordered)))))
    if num_tail >= len(ordered):
        return None
    weights = np.exp(ordered - ordered[-1])
    cut = weights[len(ordered) - num_tail - 1]
    # Below this, exp has no digits left and the exceedances would be rounding.
    exceedances = weights[weights > cut] - cut
    if len(exceedances) < MIN_TAIL or exceedances[-1] < np.finfo(np.float64).eps:
        return None
    return pareto_shape(exceedances)


def pareto_shape(exceedances: Numbers) -> float:
    """Shape k of the generalised Pareto density (1/σ)(1 + k·x/σ)^(−1/k − 1), fitted to values > 0 in ascending order.

    The posterior mean of b = −k/σ over a grid of 30 + √n points weighted by the profile likelihood
    (Zhang and Stephens 2009), then k = mean log(1 − b·x), drawn towards 0.5 with the weight of 10 observations
    (arXiv 1507.02646, appendix C).
    """
    n = len(exceedances)
    num_points = 30 + int(np.sqrt(n))
    quartile = exceedances[int(n / 4 + 0.5) - 1]
    points = 1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))
    b = points / (3 * quartile) + 1 / exceedances[-1]
    b = b[b != 0]
    shapes = np.log1p(-b[:, None] * exceedances).mean(axis=1)
    log_likelihood = n * (np.log(-b / shapes) - shapes - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    b_mean = float((b * weights).sum() / weights.sum())
    shape = float(np.log1p(-b_mean * exceedances).mean())
    return (n * shape + 10 * 0.5) / (n + 10)


def pearson(x: Numbers, y: Numbers) -> float | None:
    """Correlation of x and y; None if there are fewer than 3 pairs or one of the two is constant."""
    if len(x) < 3 or x.min() == x.max() or y.min() == y.max():
        return None
    a, b = x - x.mean(), y - y.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def spearman(x: Numbers, y: Numbers) -> float | None:
    """Correlation of the ranks, equal values sharing their mean rank; None as for `pearson`."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group].astype(np.float64)


def perplexity(counts: Numbers) -> float:
    """exp(entropy) of counts: how many equally frequent kinds are as diverse as these."""
    shares = counts / counts.sum()
    # Rounding must not turn 8 equal prompts into fewer than 8.
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 9)


def cluster_half_width(values: Numbers, clusters: NDArray[np.int64]) -> float | None:
    """Half width of a 95 % interval of the mean, responses to the same prompt not being independent.

        1.96·√( max( C/(C − 1) · Σ_c ( Σ_{i in c} (r_i − r̄) )², n/(n − 1) · Σ_i (r_i − r̄)² ) ) / n

    with C clusters (prompts) and n values. For C clusters of m equal values it is the half width of C values; for
    clusters of one it is 1.96·s/√n. It is never below that: prompts chosen for equal pass rates would seem certain
    otherwise. None for fewer than 2 clusters.

    Source: the cluster-robust variance of a mean (Cochran 1977, chapter 9; Liang and Zeger 1986).
    """
    centred = values - values.mean()
    sums = np.bincount(clusters, weights=centred)
    num_clusters, n = len(sums), len(values)
    if num_clusters < 2:
        return None
    between = num_clusters / (num_clusters - 1) * (sums**2).sum()
    independent = n / (n - 1) * (centred**2).sum()
    return float(Z_95 * np.sqrt(max(between, independent)) / n)


def paired_chance(*, num_worse: int, num_better: int) -> float:
    """Probability of at least `num_worse` worse ones, if each that changed was as likely to get better: a sign test.

    Σ_{k ≥ worse} C(n, k) / 2ⁿ,  n = worse + better; 1 when nothing changed.
    """
    total = num_worse + num_better
    return sum(comb(total, k) for k in range(num_worse, total + 1)) / 2**total


def unpaired_chance(*, num_first: int, of_first: int, num_last: int, of_last: int) -> float:
    """Probability that the last share is so far above the first, if both are the same: Fisher's exact test.

    Σ_{k ≥ last} C(K, k)·C(N − K, n − k) / C(N, n),  N = both together, K = those that count, n = `of_last`.
    """
    total, counting = of_first + of_last, num_first + num_last
    tail = range(num_last, min(counting, of_last) + 1)
    return sum(comb(counting, k) * comb(total - counting, of_last - k) for k in tail) / comb(total, of_last)


Array = NDArray[np.float64]


Strata = Sequence[Array]


NUM_RESAMPLES = 5000


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval; they are nan where there are too few runs to say."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """True if both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Profile:
    """A performance profile: for each threshold the share of runs that score above it, with a pointwise band."""

    thresholds: Array
    share: Array
    low: Array
    high: Array


def interquartile_mean(values: Array) -> Array | np.float64:
    """Mean of the middle half along the last axis: `⌊n/4⌋` values are cut off at either end.

    Source: arXiv 2108.13264, section 4.3; the same cut as a 25 % trimmed mean.
    """
    number = values.shape[-1]
    cut = number // 4
    return np.sort(values, axis=-1)[..., cut : number - cut].mean(axis=-1)


def iqm(strata: Strata, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Interval:
    """Interquartile mean over all runs of all tasks, with its stratified bootstrap interval."""
    value = float(interquartile_mean(np.concatenate(list(strata))))
    if not _can_resample(strata):
        return Interval(value)
    drawn = np.concatenate(_resampled(strata, num_resamples=num_resamples, seed=seed), axis=-1)
    return _interval(value, interquartile_mean(drawn))


def probability_of_improvement(
    strata: Strata, baseline: Strata, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over tasks of `P(X > Y) + P(X = Y)/2`, for a run X here and a run Y of the baseline.

    Both are resampled, apart from each other. Source: arXiv 2108.13264, section 4.3 (Mann-Whitney's U over n·m).

    Raises:
        ValueError: the two do not have the same number of tasks.
    """
    if len(strata) != len(baseline):
        raise ValueError(f"{len(strata)} tasks against {len(baseline)}: give the scores of the same tasks")
    value = float(_improvement(strata, baseline))
    if not (_can_resample(strata) and _can_resample(baseline)):
        return Interval(value)
    drawn = _resampled([*strata, *baseline], num_resamples=num_resamples, seed=seed)
    return _interval(value, _improvement(drawn[: len(strata)], drawn[len(strata) :]))


def performance_profile(
    strata: Strata, *, thresholds: Array, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Profile:
    """Mean over tasks of the share of runs that score more than each threshold.

    Source: arXiv 2108.13264, section 4.2 (score distributions).
    """
    share = _share_above(strata, thresholds)
    if not _can_resample(strata):
        unknown = np.full_like(share, math.nan)
        return Profile(thresholds, share, unknown, unknown)
    drawn = _share_above(_resampled(strata, num_resamples=num_resamples, seed=seed), thresholds)
    low, high = np.quantile(drawn, _TAILS, axis=0)
    return Profile(thresholds, share, low, high)


_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _can_resample(strata: Strata) -> bool:
    """One run of a task says nothing of the spread between runs."""
    return bool(strata) and all(len(scores) >= 2 for scores in strata)


def _resampled(strata: Strata, *, num_resamples: int, seed: int) -> list[Array]:
    """For each task an array [resample, run]."""
    generator = np.random.default_rng(seed)
    return [scores[generator.integers(len(scores), size=(num_resamples, len(scores)))] for scores in strata]


def _interval(value: float, drawn: Array | np.float64) -> Interval:
    low, high = np.quantile(drawn, _TAILS)
    return Interval(value, float(low), float(high))


def _improvement(strata: Strata, baseline: Strata) -> Array | np.float64:
    """Of arrays [..., run] of each task."""
    wins = [np.sign(x[..., :, None] - y[..., None, :]) for x, y in zip(strata, baseline, strict=True)]
    return np.mean([(1 + won.mean(axis=(-2, -1))) / 2 for won in wins], axis=0)


def _share_above(strata: Strata, thresholds: Array) -> Array:
    return np.mean([(scores[..., :, None] > thresholds).mean(axis=-2) for scores in strata], axis=0)
