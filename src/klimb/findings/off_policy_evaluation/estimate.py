"""Estimates of π's value with intervals by prompt, effective sample sizes and warnings.

Whole prompts are drawn again, because responses to one prompt go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klimb.findings.off_policy_evaluation.data import LoggedData
from klimb.findings.off_policy_evaluation.estimators import (
    CLIPS,
    DEFAULT_CLIP,
    ESTIMATORS,
    MODEL_ESTIMATORS,
    Estimator,
    clipped_ips,
)
from klimb.findings.off_policy_evaluation.trust import (
    effective_number,
    range_warnings,
    reason_against_intervals,
    reason_of_the_rewards,
    reason_unusable,
    weight_warnings,
)
from klimb.findings.statistics import NUM_RESAMPLES, Interval, Ratios, bootstrap_t_intervals, mean_interval

UNIT = "prompt"


LEAST_RESAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What π would earn a response on these prompts, by one estimator.

    Attributes:
        name: of the estimator.
        interval: mean reward with its 95 % interval over prompts, or the reason why it has none.
        gain: the same of the value minus the logged mean, on the same prompts; None for the logged mean itself.
        standard_error: of the value, to first order; nan where there is only one prompt.
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
    interval: Interval
    gain: Interval | None
    standard_error: float
    ess: float
    ess_prompts: float
    max_weight_share: float
    num_samples: int
    num_prompts: int
    note: str = ""
    warnings: tuple[str, ...] = ()
    unusable: str = ""

    @property
    def value(self) -> float:
        """Mean reward."""
        return self.interval.value

    @property
    def low(self) -> float:
        """Lower end of the interval; nan where there is none."""
        return self.interval.low

    @property
    def high(self) -> float:
        """Upper end of the interval; nan where there is none."""
        return self.interval.high


def estimate_values(
    data: LoggedData, *, clip: float = DEFAULT_CLIP, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[Estimate, ...]:
    """Return the estimates of all estimators, on the same resamples; those of a reward model where it has scores."""
    made = [clipped_ips(data, clip=clip) if name == "clipped-ips" else make(data) for name, make in ESTIMATORS.items()]
    if data.model_scores is not None:
        made += [make(data) for make in MODEL_ESTIMATORS.values()]
    return with_intervals(data, made, num_resamples=num_resamples, seed=seed)


def clip_sweep(
    data: LoggedData, *, clips: Sequence[float] = CLIPS, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[Estimate, ...]:
    """Clipped IPS at several clips: values that go on moving with the clip say that the bias is not small."""
    return with_intervals(data, [clipped_ips(data, clip=c) for c in clips], num_resamples=num_resamples, seed=seed)


def logged_mean(data: LoggedData) -> Estimate:
    """Return the log's own mean reward: no weights, an ordinary mean over prompts."""
    interval = mean_interval(data.rewards, data.prompt_index, unit=UNIT, bounds=data.bounds)
    weights = np.ones(data.num_samples)
    return Estimate(
        name="logged mean",
        interval=interval,
        gain=None,
        standard_error=_ratios(data, ((data.rewards, weights),)).standard_error,
        ess=float(data.num_samples),
        ess_prompts=effective_number(data.by_prompt(weights)),
        max_weight_share=1 / data.num_samples,
        num_samples=data.num_samples,
        num_prompts=data.num_prompts,
    )


def with_intervals(
    data: LoggedData, estimators: Sequence[Estimator], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[Estimate, ...]:
    """Values, intervals (bootstrap t, whole prompts drawn again), effective sample sizes and warnings.

    Baselines and the reward model are kept as they are while prompts are drawn again.

    Raises:
        ValueError: fewer than 100 resamples.
    """
    if num_resamples < LEAST_RESAMPLES:
        raise ValueError(
            f"num_resamples must be >= {LEAST_RESAMPLES}, got {num_resamples}; the ends of an interval are quantiles "
            "of the resamples"
        )
    of_weights = reason_against_intervals(data)
    statistics: list[Ratios] = []
    reasons: list[str] = []
    logged = (-data.rewards, np.ones(data.num_samples))
    for estimator in estimators:
        own = _ratios(data, estimator.ratios)
        statistics += [own, _ratios(data, (*estimator.ratios, logged))]
        reasons += [estimator.biased or of_weights or reason_of_the_rewards(data, own)] * 2
    intervals = _intervals(data, statistics, reasons, num_resamples=num_resamples, seed=seed)
    parts = zip(estimators, statistics[::2], intervals[::2], intervals[1::2], strict=True)
    return tuple(_estimate(data, estimator, own, value, gain) for estimator, own, value, gain in parts)


def _intervals(
    data: LoggedData, statistics: Sequence[Ratios], reasons: Sequence[str], *, num_resamples: int, seed: int
) -> list[Interval]:
    """Return the intervals in the rewards' range: values and gains in turn; the value alone where there is a reason."""
    shown = [each for each, reason in zip(statistics, reasons, strict=True) if not reason]
    made = iter(bootstrap_t_intervals(shown, unit=UNIT, num_resamples=num_resamples, seed=seed))
    found: list[Interval] = []
    for number, (each, reason) in enumerate(zip(statistics, reasons, strict=True)):
        if reason:
            found.append(Interval(each.value, unit=UNIT, num_units=len(each.sums), reason=reason))
        else:
            found.append(_within(next(made), data.bounds, is_gain=number % 2 == 1))
    return found


def _within(found: Interval, bounds: tuple[float, float] | None, *, is_gain: bool) -> Interval:
    if bounds is None or not found.is_known:
        return found
    low, high = (bounds[0] - bounds[1], bounds[1] - bounds[0]) if is_gain else bounds
    if found.low > high or found.high < low:
        return found.without_ends(f"the whole interval is outside of what rewards can be, {low:g} to {high:g}")
    return found.within((low, high))


def _estimate(data: LoggedData, estimator: Estimator, own: Ratios, value: Interval, gain: Interval) -> Estimate:
    weights = estimator.weights
    return Estimate(
        name=estimator.name,
        interval=replace(value, value=estimator.value),
        gain=gain,
        standard_error=own.standard_error,
        ess=effective_number(weights),
        ess_prompts=effective_number(data.by_prompt(weights)),
        max_weight_share=float(weights.max() / weights.sum()),
        num_samples=data.num_samples,
        num_prompts=data.num_prompts,
        note=estimator.note,
        warnings=(*weight_warnings(data, weights), *range_warnings(data, estimator.value)),
        unusable=reason_unusable(data, estimator.value),
    )


def _ratios(data: LoggedData, ratios: Sequence[tuple[np.ndarray, np.ndarray]]) -> Ratios:
    """Return the sums over the responses of each prompt; what they are worth is by the unclipped weights."""
    sums = np.stack([data.by_prompt(column) for ratio in ratios for column in ratio], axis=1)
    return Ratios(sums=sums, num_effective=effective_number(data.by_prompt(data.relative_weights)))
