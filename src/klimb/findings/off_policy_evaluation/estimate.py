"""Estimates of π's value with intervals, effective sample sizes and warnings.

Bootstrap intervals by prompt: whole prompts are drawn again, because responses to one prompt go together.

When an estimate cannot be trusted, in plain words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from klimb.findings.off_policy_evaluation.data import MAX_LOG_W, Array, LoggedData
from klimb.findings.off_policy_evaluation.estimators import (
    CLIPS,
    DEFAULT_CLIP,
    ESTIMATORS,
    Estimator,
    clipped_ips,
    ratio_sum,
)

NUM_RESAMPLES = 2000


LARGEST_BLOCK = 4_000_000
"""Numbers that are drawn at once; bounds the memory of many prompts."""


Statistic = Callable[[Array], Array]
"""From sums `[rows, columns]` to one value a row."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval and the standard error, both from the same resamples; nan where there is only one prompt."""

    low: float
    high: float
    standard_error: float


def resampled_sums(sums: Array, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Array:
    """Return sums over as many prompts drawn with replacement: `[resamples, columns]` from `[prompts, columns]`."""
    generator = np.random.default_rng(seed)
    num_prompts = len(sums)
    shares = np.full(num_prompts, 1 / num_prompts)
    block = max(1, LARGEST_BLOCK // num_prompts)
    parts: list[Array] = []
    for start in range(0, num_resamples, block):
        times_drawn = generator.multinomial(num_prompts, shares, size=min(block, num_resamples - start))
        parts.append(times_drawn.astype(np.float64) @ sums)
    return np.concatenate(parts)


def interval(sums: Array, resampled: Array, statistic: Statistic, *, confidence: float = 0.95) -> Interval:
    """Return the bias-corrected and accelerated (BCa) interval of a statistic of sums over prompts.

    The ends are the quantiles Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))) of the resampled values, with z = Φ⁻¹((1 ∓ c)/2 …),
    z₀ = Φ⁻¹(share of resampled values below the estimate) and a from leaving out one prompt at a time. With z₀ = a = 0
    these are the percentiles. The standard error is the standard deviation of the resampled values.

    Args:
        sums: `[prompts, columns]`.
        resampled: `[resamples, columns]`, from `resampled_sums`.
        statistic: the estimate as a function of sums.
        confidence: share of data sets whose interval should hold the truth.

    Source: Efron 1987, equations 2.3 and 6.6.
    """
    if len(sums) < 2:
        return Interval(low=float("nan"), high=float("nan"), standard_error=float("nan"))
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    values = statistic(resampled)
    tail = (1 - confidence) / 2
    below = ((values < value).sum() + 0.5 * (values == value).sum()) / len(values)
    # A share of 0 or 1 has no quantile; half a resample is what can be told apart.
    bias = NormalDist().inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    acceleration = _acceleration(statistic(_leaving_one_out(sums)))
    levels = [_adjusted(level, bias, acceleration) for level in (tail, 1 - tail)]
    low, high = np.quantile(values, levels)
    return Interval(low=float(low), high=float(high), standard_error=float(values.std(ddof=1)))


def _leaving_one_out(sums: Array) -> Array:
    """Return the sum over all rows but one, for each row; not as total minus row, which may lose all digits."""
    before = np.zeros_like(sums)
    before[1:] = np.cumsum(sums[:-1], axis=0)
    after = np.zeros_like(sums)
    after[:-1] = np.cumsum(sums[:0:-1], axis=0)[::-1]
    return before + after


def _acceleration(left_out: Array) -> float:
    """Return a sixth of the skewness of the prompts' influences; 0 if no prompt has any."""
    influence = left_out.mean() - left_out
    scale = float(np.abs(influence).max())
    if scale == 0:
        return 0.0
    influence = influence / scale
    return float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))


def _adjusted(level: float, bias: float, acceleration: float) -> float:
    z = bias + NormalDist().inv_cdf(level)
    stretch = 1 - acceleration * z
    if stretch <= 0:
        return 1.0 if z > 0 else 0.0
    return NormalDist().cdf(bias + z / stretch)


LEAST_ESS_SHARE = 0.1


LEAST_ESS_PROMPTS = 100.0
"""Below a hundred prompts' worth a 95 % interval of a pass rate is wider than ± 10 points (1.96·√(0.25/100))."""


LARGEST_SHARE = 0.1


LEAST_ESS = 2.0
"""With fewer responses' worth of weight the number is one response's reward."""


LARGEST_EXCESS = 0.05
"""How far beyond the rewards a value may be, as a share of the largest |reward|: the mean weight varies by chance."""


MEAN_WEIGHT_RANGE = (0.5, 2.0)


MEAN_WEIGHT_ERRORS = 4.0


MEAN_WEIGHT_GAP = 0.05
"""The mean weight is told of outside the range, or if it misses 1 by this much and by four standard errors as well."""


def effective_number(weights: Array) -> float:
    """Kish's (Σw)²/Σw²: that many equal weights have the same variance. Weights over their largest, to stay finite."""
    relative = weights / weights.max()
    return float(relative.sum() ** 2 / (relative**2).sum())


def weight_warnings(data: LoggedData, weights: Array) -> tuple[str, ...]:
    """Return what the weights that an estimator uses say against it."""
    ess, share = effective_number(weights), float(weights.max() / weights.sum())
    ess_prompts = effective_number(data.by_prompt(weights))
    found: list[str] = []
    if ess < LEAST_ESS_SHARE * len(weights):
        found.append(
            f"{len(weights)} responses count like {ess:.1f} (less than {LEAST_ESS_SHARE:.0%}): π is too far from what "
            "drew them."
        )
    if ess_prompts < LEAST_ESS_PROMPTS:
        found.append(
            f"the evidence is {ess_prompts:.1f} prompts' worth (fewer than {LEAST_ESS_PROMPTS:.0f}): the interval is "
            "wide, and holds the truth less often than it says."
        )
    if share > LARGEST_SHARE:
        found.append(f"one response holds {share:.0%} of all weight: the number is mostly its reward.")
    return tuple(found)


def reason_unusable(data: LoggedData, value: float) -> str:
    """Why the value is no estimate at all; empty if it is one.

    Where one response has all the weight, no estimator knows more than its reward; a clipped one then tells of the log
    and not of π. And a mean reward of π lies among the rewards that π can earn: estimators that do not divide by the
    sum of the weights leave that range if the weights' mean is not 1.
    """
    ess = effective_number(data.relative_weights)
    if ess < LEAST_ESS and data.num_samples > 1:
        return f"{data.num_samples} responses count like {ess:.1f}, and one reward is no mean; π is too far from μ."
    low, high = float(data.rewards.min()), float(data.rewards.max())
    excess = max(low - value, value - high)
    if excess <= LARGEST_EXCESS * max(abs(low), abs(high)):
        return ""
    return (
        f"{value:.3g} is outside of the rewards, {low:.3g} to {high:.3g}, and no mean of them is; snips stays inside."
    )


def data_warnings(data: LoggedData) -> tuple[str, ...]:
    """Return what the data say against every estimate from them, those noticed while they were made included."""
    found = list(data.notes)
    if data.num_prompts < 2:
        found.append("there is one prompt, and intervals come from drawing prompts again: there is no interval.")
    if np.ptp(data.rewards) == 0:
        found.append(f"every reward is {data.rewards[0]:g}: nothing can be learnt of what π would earn.")
    num_bounded = int((np.abs(data.log_w) > MAX_LOG_W).sum())
    if num_bounded:
        found.append(f"{num_bounded} log-weights are outside ±{MAX_LOG_W:g} nats and were bounded there.")
    return (*found, *_mean_weight_warning(data))


def mean_weight(data: LoggedData) -> tuple[float, float]:
    """Mean of w, 1 in expectation when μ is right and can draw all that π can, and its standard error by prompt."""
    w = data.weights
    mean, num = float(w.mean()), data.num_prompts
    if num < 2:
        return mean, float("nan")
    deviations = data.by_prompt(w - mean)
    return mean, float(np.sqrt(num / (num - 1) * (deviations**2).sum()) / data.num_samples)


def _mean_weight_warning(data: LoggedData) -> list[str]:
    mean, error = mean_weight(data)
    low, high = MEAN_WEIGHT_RANGE
    # A standard error of nan (one prompt) compares as False.
    is_off = abs(mean - 1) > MEAN_WEIGHT_GAP and abs(mean - 1) > MEAN_WEIGHT_ERRORS * error
    if low <= mean <= high and not is_off:
        return []
    return [
        f"the weights' mean is {mean:.3g} ± {error:.2g} and should be 1: log μ is not that of what drew the responses, "
        "μ cannot draw what π can, or so few large weights carry the mean that they are missing here."
    ]


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
    """Return the estimates of all estimators, on the same resamples."""
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
    """Return sums over the responses of each prompt: `[prompts, columns]`."""
    return np.stack([data.by_prompt(columns[:, number]) for number in range(columns.shape[1])], axis=1)
