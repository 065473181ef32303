"""Estimates of π's value with intervals, effective sample sizes and warnings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klimb.experience.estimates.data import Array, LoggedData
from klimb.experience.estimates.estimators import (
    CLIPS,
    DEFAULT_CLIP,
    ESTIMATORS,
    Estimator,
    clipped_ips,
    ratio_sum,
)
from klimb.experience.estimates.intervals import NUM_RESAMPLES, interval, resampled_sums
from klimb.experience.estimates.trust import effective_number, reason_unusable, weight_warnings


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What π would earn a response on these prompts, by one estimator.

    Attributes:
        name: of the estimator.
        value: mean reward.
        low: lower end of the interval, nan where there is only one prompt.
        high: upper end.
        standard_error: of the value, by the same resamples.
        ess: effective number of responses, (Σw)²/Σw² with the weights that this estimator uses.
        ess_prompts: the same of prompts, with the sum of the weights of a prompt's responses.
        max_weight_share: largest weight over the sum of weights.
        num_samples: responses.
        num_prompts: prompts.
        note: what to know of the estimator, in one sentence.
        warnings: why the number cannot be trusted; empty if nothing speaks against it.
        unusable: why it is no estimate at all, and not to be quoted in any way; empty if it is one.
    """

    name: str
    value: float
    low: float
    high: float
    standard_error: float
    ess: float
    ess_prompts: float
    max_weight_share: float
    num_samples: int
    num_prompts: int
    note: str = ""
    warnings: tuple[str, ...] = ()
    unusable: str = ""


def estimate_values(
    data: LoggedData,
    *,
    clip: float = DEFAULT_CLIP,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """The estimates of all estimators, on the same resamples."""
    made = [clipped_ips(data, clip=clip) if name == "clipped-ips" else make(data) for name, make in ESTIMATORS.items()]
    return with_intervals(data, made, num_resamples=num_resamples, confidence=confidence, seed=seed)


def clip_sweep(
    data: LoggedData, *, clips: Sequence[float] = CLIPS, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[Estimate, ...]:
    """Clipped IPS at several clips: values that go on moving with the clip say that the bias is not small."""
    return with_intervals(data, [clipped_ips(data, clip=c) for c in clips], num_resamples=num_resamples, seed=seed)


def with_intervals(
    data: LoggedData,
    estimators: Sequence[Estimator],
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """Values, intervals (BCa, whole prompts drawn again), effective sample sizes and warnings of these estimators.

    Baselines and the reward model are kept as they are while prompts are drawn again.

    Raises:
        ValueError: fewer than 100 resamples, or a confidence outside (0, 1).
    """
    if num_resamples < 100 or not 0 < confidence < 1:
        raise ValueError(
            f"num_resamples must be >= 100 and confidence in (0, 1), got {num_resamples} and {confidence}; "
            "the ends of an interval are quantiles of the resamples"
        )
    sums = [_by_prompt(data, estimator.columns) for estimator in estimators]
    resampled = resampled_sums(np.concatenate(sums, axis=1), num_resamples=num_resamples, seed=seed)
    estimates: list[Estimate] = []
    start = 0
    for estimator, own in zip(estimators, sums, strict=True):
        columns = resampled[:, start : start + own.shape[1]]
        start += own.shape[1]
        found = interval(own, columns, ratio_sum, confidence=confidence)
        weights = estimator.weights
        estimates.append(
            Estimate(
                name=estimator.name,
                value=estimator.value,
                low=found.low,
                high=found.high,
                standard_error=found.standard_error,
                ess=effective_number(weights),
                ess_prompts=effective_number(data.by_prompt(weights)),
                max_weight_share=float(weights.max() / weights.sum()),
                num_samples=data.num_samples,
                num_prompts=data.num_prompts,
                note=estimator.note,
                warnings=weight_warnings(data, weights),
                unusable=reason_unusable(data, estimator.value),
            )
        )
    return tuple(estimates)


def _by_prompt(data: LoggedData, columns: Array) -> Array:
    """Sums over the responses of each prompt: `[prompts, columns]`."""
    return np.stack([data.by_prompt(columns[:, number]) for number in range(columns.shape[1])], axis=1)
