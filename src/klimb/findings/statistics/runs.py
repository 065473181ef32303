"""Aggregate scores over the runs of a study: interquartile mean, probability of improvement, performance profile.

A `strata` argument holds, for each task, the scores of its runs. Intervals are percentile intervals of the stratified
bootstrap: runs are drawn again with replacement within each task, tasks stay.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.statistics.interval import CONFIDENCE, Interval

Array = NDArray[np.float64]


Strata = Sequence[Array]


NUM_RESAMPLES = 5000


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
