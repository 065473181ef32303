"""Bootstrap intervals by prompt: whole prompts are drawn again, because responses to one prompt go together."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from klimb.experience.estimates.data import Array

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
    """Sums over as many prompts drawn with replacement: `[resamples, columns]` from `[prompts, columns]`."""
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
    """The bias-corrected and accelerated (BCa) interval of a statistic of sums over prompts.

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
    """The sum over all rows but one, for each row; not as total minus row, which may lose all digits."""
    before = np.zeros_like(sums)
    before[1:] = np.cumsum(sums[:-1], axis=0)
    after = np.zeros_like(sums)
    after[:-1] = np.cumsum(sums[:0:-1], axis=0)[::-1]
    return before + after


def _acceleration(left_out: Array) -> float:
    """A sixth of the skewness of the prompts' influences; 0 if no prompt has any."""
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
