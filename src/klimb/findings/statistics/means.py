"""Intervals of means whose values come in groups: answers to one prompt are not independent, prompts are.

`clusters` number the independent units: values with the same number belong to one prompt (problem, user, …).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.proportions import mid_p_ends

Numbers = NDArray[np.float64]
Clusters = NDArray[np.int64]


LEAST_UNITS = 5
"""With fewer independent units there is no interval: what it would be depends on their distribution alone."""


ROUNDING = 1e-12
"""A spread below this share of the largest value is rounding."""


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its interval, and the two-sided p of no difference (nan without a test)."""

    interval: Interval
    p_value: float = math.nan

    @property
    def p_greater(self) -> float:
        """One-sided p: how likely so large a difference is, if the truth is none or below."""
        return self.p_value / 2 if self.interval.value > 0 else 1 - self.p_value / 2

    @property
    def p_less(self) -> float:
        """One-sided p: how likely so small a difference is, if the truth is none or above."""
        return self.p_value / 2 if self.interval.value < 0 else 1 - self.p_value / 2


@dataclass(frozen=True)
class _Groups:
    """Units of some values: their means, the share of the whole mean that each decides, and their sizes."""

    means: Numbers
    weights: Numbers
    sizes: Numbers
    is_share: bool

    @property
    def mean(self) -> float:
        """Of all units, each with its weight."""
        return float((self.weights * self.means).sum())

    @property
    def num_equal(self) -> float:
        """Units of equal weight that would be worth as much: Kish's 1/Σw²."""
        return float(1 / (self.weights**2).sum())

    @property
    def num_values(self) -> float:
        """Values that would be worth as much, if they were independent within units as well."""
        return float(1 / (self.weights**2 / self.sizes).sum())

    @property
    def influences(self) -> Numbers:
        """What each unit adds to the error of the mean, scaled so that their squares add up to its variance."""
        number = len(self.means)
        return math.sqrt(number / (number - 1)) * self.weights * (self.means - self.mean)

    @property
    def effective(self) -> float:
        """Independent observations that a share is worth: p(1 − p) over its variance, no fewer than units."""
        share, variance = self.mean, float((self.influences**2).sum())
        if variance <= 0:  # balanced units say nothing against independence; without both values they say nothing
            return self.num_values if 0 < share < 1 else self.num_equal
        return min(max(share * (1 - share) / variance, self.num_equal), self.num_values)


def mean_interval(
    values: Numbers, clusters: Clusters, *, unit: str, by_unit: bool = False, bounds: tuple[float, float] | None = None
) -> Interval:
    """Return the mean with its 95 % interval over units.

    Args:
        values: finite numbers; all 0 or 1 make it a share.
        clusters: the unit of each value.
        unit: the noun for a unit.
        by_unit: the mean of the units' means, each unit counting alike; else of all values, each counting alike.
        bounds: range that the mean can have, at which the interval ends.
    """
    groups = _grouped(values, clusters, by_unit=by_unit)
    found = Interval(groups.mean, unit=unit, num_units=len(groups.means))
    if found.num_units < LEAST_UNITS:
        return found.without_ends(f"{found.counted_units}, and {LEAST_UNITS} are the least for an interval")
    if groups.is_share:
        low, high = mid_p_ends(groups.mean, groups.effective)
        return Interval(
            found.value, low, high, method="mid-p with the effective number", unit=unit, num_units=found.num_units
        )
    reach = float(special.stdtrit(groups.num_equal - 1, 1 - ALPHA / 2) * math.sqrt((groups.influences**2).sum()))
    return Interval(
        found.value,
        found.value - reach,
        found.value + reach,
        method="Student's t",
        unit=unit,
        num_units=found.num_units,
    ).within(bounds)


def paired_interval(differences: Numbers, *, unit: str, bounds: tuple[float, float] | None = None) -> Difference:
    """Return the mean of one difference a unit, with its interval and p."""
    number, value = len(differences), float(differences.mean())
    found = Interval(value, unit=unit, num_units=number)
    if number < LEAST_UNITS:
        return Difference(found.without_ends(f"{found.counted_units}, and {LEAST_UNITS} are the least for an interval"))
    error = float(differences.std(ddof=1)) / math.sqrt(number)
    if error <= ROUNDING * float(np.abs(differences).max()):
        return Difference(found.without_ends(f"all {unit}s differ by the same amount"), 1.0 if value == 0 else math.nan)
    reach = float(special.stdtrit(number - 1, 1 - ALPHA / 2)) * error
    interval = replace(found, low=value - reach, high=value + reach, method="paired t")
    return Difference(interval.within(bounds), float(2 * special.stdtr(number - 1, -abs(value) / error)))


def difference_of_groups(
    first: Numbers, first_clusters: Clusters, second: Numbers, second_clusters: Clusters, *, unit: str
) -> Difference:
    """Return mean(second) − mean(first), with its interval and p; a unit may have values on both sides.

    Args:
        first: values of one side.
        first_clusters: the unit of each; the same number on both sides is the same unit.
        second: values of the other side.
        second_clusters: the unit of each.
        unit: the noun for a unit.
    """
    old, new = _grouped(first, first_clusters, by_unit=False), _grouped(second, second_clusters, by_unit=False)
    number = len(np.union1d(first_clusters, second_clusters))
    found = Interval(new.mean - old.mean, unit=unit, num_units=number)
    if min(len(old.means), len(new.means)) < LEAST_UNITS:
        return Difference(found.without_ends(f"fewer than {LEAST_UNITS} {unit}s on one side"))
    variances = [_variance(old), _variance(new)]
    shared, at_old, at_new = np.intersect1d(
        np.unique(first_clusters), np.unique(second_clusters), assume_unique=True, return_indices=True
    )
    together = float((old.influences[at_old] * new.influences[at_new]).sum()) if shared.size else 0.0
    variance = max(sum(variances) - 2 * together, 0.0)
    if variance <= 0:
        return Difference(found.without_ends("nothing varies"), 1.0 if found.value == 0 else math.nan)
    freedom = sum(variances) ** 2 / sum(
        part**2 / (groups.num_equal - 1) for part, groups in zip(variances, (old, new), strict=True)
    )
    reach = float(special.stdtrit(freedom, 1 - ALPHA / 2)) * math.sqrt(variance)
    interval = Interval(
        found.value,
        found.value - reach,
        found.value + reach,
        method="Welch's t over units",
        unit=unit,
        num_units=number,
    )
    return Difference(interval, float(2 * special.stdtr(freedom, -abs(found.value) / math.sqrt(variance))))


def _variance(groups: _Groups) -> float:
    """Of the mean; of a share as if one success and one failure had been seen besides, so that 0 of 9 is not sure."""
    if not groups.is_share:
        return float((groups.influences**2).sum())
    number = groups.effective
    share = (groups.mean * number + 1) / (number + 2)
    return share * (1 - share) / number


def _grouped(values: Numbers, clusters: Clusters, *, by_unit: bool) -> _Groups:
    _, index = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    means = np.bincount(index, weights=values) / sizes
    weights = np.full(len(sizes), 1 / len(sizes)) if by_unit else sizes / len(values)
    return _Groups(means, weights, sizes, is_share=bool(np.isin(values, (0.0, 1.0)).all()))
