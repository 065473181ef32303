"""Intervals of sums of ratios, by drawing the independent units again: the studentised bootstrap.

A statistic here is Σ_k (Σ_u a_uk)/(Σ_u b_uk) over units u (prompts): a mean, a self-normalised mean, their differences.
It is told by one row of sums a unit, `[units, 2·ratios]`: numerator, denominator, numerator, ...
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import ROUNDING

Numbers = NDArray[np.float64]


NUM_RESAMPLES = 2000


LARGEST_BLOCK = 4_000_000
"""Numbers that are drawn at once; bounds the memory of many units."""


SMALLEST_SHARE = 1e-12
"""A resample's variance is taken as no smaller than this share of the data's: one of equal units has none."""


METHOD = "bootstrap t"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ratios:
    """A sum of ratios of sums over units.

    Attributes:
        sums: `[units, 2·ratios]`: numerator, denominator, numerator, ...
        num_effective: units of equal weight that these are worth.
    """

    sums: Numbers
    num_effective: float

    @property
    def value(self) -> float:
        """The statistic."""
        return float(ratio_sum(self.sums.sum(axis=0, keepdims=True))[0])

    @property
    def influences(self) -> Numbers:
        """What each unit adds to the error of the value, to first order; they add up to 0."""
        total = self.sums.sum(axis=0, keepdims=True)
        return self.sums @ _gradient(total)[0]

    @property
    def standard_error(self) -> float:
        """√(n/(n − 1)·Σ influence²), n the units; nan with one."""
        number = len(self.sums)
        influences = self.influences
        largest = float(np.abs(influences).max())
        if number < 2 or not 0 < largest < math.inf:
            return 0.0 if number > 1 and largest == 0 else math.nan
        # Squares of huge values would overflow.
        return largest * math.sqrt(number / (number - 1) * float(((influences / largest) ** 2).sum()))

    @property
    def size(self) -> float:
        """Sum of the ratios' sizes: what the rounding of the value is a share of."""
        return float(ratio_sum(np.abs(self.sums).sum(axis=0, keepdims=True))[0])


def ratio_sum(sums: Numbers) -> Numbers:
    """Σ of numerator/denominator over the pairs of columns, one a row."""
    return (sums[:, 0::2] / sums[:, 1::2]).sum(axis=1)


def resampled_sums(sums: Numbers, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Numbers:
    """Return sums over as many units drawn with replacement: `[resamples, columns]` from `[units, columns]`."""
    generator = np.random.default_rng(seed)
    number = len(sums)
    shares = np.full(number, 1 / number)
    block = max(1, LARGEST_BLOCK // number)
    parts: list[Numbers] = []
    for start in range(0, num_resamples, block):
        times_drawn = generator.multinomial(number, shares, size=min(block, num_resamples - start))
        parts.append(times_drawn.astype(np.float64) @ sums)
    return np.concatenate(parts)


def bootstrap_t_intervals(
    statistics: Sequence[Ratios], *, unit: str, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Return the studentised bootstrap interval of each statistic, all on the same resamples of units.

    With t* = (θ* − θ)/s* over resamples, each with its own standard error s* (linearised, `Ratios.influences`), the
    interval is [θ − s·q(1 − α/2), θ − s·q(α/2)], q the quantiles of t*. It follows skewness to the second order, and
    few units: t* varies as Student's t does. s is widened by √(n/(n − 1)), n the effective number of units.

    Source: Efron and Tibshirani 1993, section 12.5; Hall 1988 (second order); Hesterberg 2015, arXiv 1411.5279, on √n.
    """
    tables = [np.concatenate([each.sums, _products(each.sums)], axis=1) for each in statistics]
    if not tables:
        return []
    drawn = resampled_sums(np.concatenate(tables, axis=1), num_resamples=num_resamples, seed=seed)
    parts = zip(statistics, _split(drawn, [table.shape[1] for table in tables]), strict=True)
    return [_bootstrap_t(each, part, unit) for each, part in parts]


def _split(drawn: Numbers, widths: Sequence[int]) -> Iterator[Numbers]:
    start = 0
    for width in widths:
        yield drawn[:, start : start + width]
        start += width


def _bootstrap_t(statistic: Ratios, drawn: Numbers, unit: str) -> Interval:
    number, value = len(statistic.sums), statistic.value
    found = Interval(value, unit=unit, num_units=number)
    variance = float((statistic.influences**2).sum())
    if number < 2:
        return found.without_ends(f"there is one {unit}")
    if not variance > (ROUNDING * statistic.size) ** 2:
        return found.without_ends(f"all {unit}s are equal")
    width = statistic.sums.shape[1]
    sums, products = drawn[:, :width], drawn[:, width:]
    variances = _variances(_gradient(sums), products)
    t = (ratio_sum(sums) - value) / np.sqrt(np.maximum(variances, SMALLEST_SHARE * variance))
    low, high = np.quantile(t, [ALPHA / 2, 1 - ALPHA / 2])
    error = math.sqrt(variance * _widening(statistic.num_effective))
    assumes = f"{unit}s are independent; log μ is right; no answer that matters was out of reach of μ"
    return Interval(value, value - error * float(high), value - error * float(low), METHOD, unit, number, assumes)


def _widening(num_effective: float) -> float:
    return num_effective / (num_effective - 1) if num_effective > 1 else math.inf


def _products(sums: Numbers) -> Numbers:
    """Return products of the columns in pairs, those of two different ones doubled: `[units, C·(C + 1)/2]`."""
    first, second = np.triu_indices(sums.shape[1])
    return sums[:, first] * sums[:, second] * np.where(first == second, 1.0, 2.0)


def _gradient(total: Numbers) -> Numbers:
    """∂(Σ a/b) by each column: 1/b for a numerator, −a/b² for its denominator; one row a row."""
    gradient = np.empty_like(total)
    gradient[:, 0::2] = 1 / total[:, 1::2]
    gradient[:, 1::2] = -total[:, 0::2] / total[:, 1::2] ** 2
    return gradient


def _variances(gradient: Numbers, products: Numbers) -> Numbers:
    """Σ over units of influence², from sums of products: gᵀ(Σ x xᵀ)g, one a row."""
    first, second = np.triu_indices(gradient.shape[1])
    return (gradient[:, first] * gradient[:, second] * products).sum(axis=1)
