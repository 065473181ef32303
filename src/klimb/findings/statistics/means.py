"""Intervals of means whose values come in groups: answers to one prompt are not independent, prompts are.

`clusters` number the independent units: values with the same number belong to one prompt (problem, user, …).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval, Tested
from klimb.findings.statistics.proportions import share_ends

Numbers = NDArray[np.float64]
Clusters = NDArray[np.int64]
Values = Numbers | Sequence[float]
Units = Clusters | Sequence[int]
Range = tuple[float, float]


LEAST_UNITS = 5
"""With fewer independent units there is no interval: what it would be depends on their distribution alone."""


LEAST_UNBOUNDED = 10
"""The same where no bounds are known: below it, what skewness adds cannot be told from the units that are there."""


ROUNDING = 1e-12
"""A spread below this share of the largest value is rounding."""


LARGEST = 1e100
"""Larger values have no interval: their squares, and cubes, leave the range of a float."""


UNITS_OF_DOUBT = 1.5
"""So many units' worth of doubt that answers to one unit differ at all: a correlation seen in few units is half known.
With less, the interval of rare wrong answers that come together in a few problems holds too rarely; with more it is
wider where they do not. The shares held are measured: docs/statistics.md."""


UNITS_OF_DOUBT_BETWEEN = 5.0
"""The same for values between the bounds, such as pass@k. With 1.5, one value of 0.986 beside 49 of 1 made the interval
five times narrower than that of 50 times 1, and pass@4 of 50 problems held 90 %."""


WELCH = "Welch's t over units"


@dataclass(frozen=True)
class _Groups:
    """Units of some values: their means, the share of the whole mean that each decides, their sizes, and the spread.

    `spread` is the variance of single values around the whole mean, each unit with its weight.
    """

    means: Numbers
    weights: Numbers
    sizes: Numbers
    spread: float
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
    def variance(self) -> float:
        """Of the mean, by units; never below that of independent values.

        Prompts that were chosen for equal pass rates would seem certain otherwise.
        """
        independent = self.spread / max(self.num_values - 1, 1)
        return max(float((self.influences**2).sum()), independent)

    def effective(self, bounds: Range, *, doubt: float = 0.0) -> float:
        """Return the independent observations that the mean is worth as a share of the range.

        p(1 − p) over its variance, no fewer than units. Balanced units, which do not vary, say nothing against
        independence; units that are all at one bound say nothing.

        Args:
            bounds: of the range.
            doubt: so many units' worth of doubt that more than one observation a unit is known: with k units that are
                not at the nearer bound, the factor over the number of units has the power k/(k + doubt).
        """
        bottom, span = bounds[0], bounds[1] - bounds[0]
        shares = (self.means - bottom) / span
        share = min(max(float((self.weights * shares).sum()), 0.0), 1.0)
        if not ROUNDING < share < 1 - ROUNDING:
            return self.num_equal
        # Yes-or-no answers cannot vary less than independent ones; other values of a bounded range can.
        most = self.num_values / self.num_equal if self.is_share else 1 / ROUNDING
        ratio = float((self.influences**2).sum()) / span**2 * self.num_equal / (share * (1 - share))
        factor = min(max(1 / max(ratio, ROUNDING), 1.0), most)
        known = (shares > ROUNDING).sum() if share <= 0.5 else (shares < 1 - ROUNDING).sum()
        return self.num_equal * factor ** (float(known) / (float(known) + doubt))


def mean_interval(
    values: Values,
    clusters: Units,
    *,
    unit: str,
    weights: Values | None = None,
    bounds: Range | None = None,
    alpha: float = ALPHA,
) -> Interval:
    """Return the mean with its interval over units.

    A mean within known bounds is a share of their range: its interval is that of a binomial share with an effective
    number of observations (`share_ends`), which lies inside the bounds and is right at both of them. Any other mean has
    the wider, on each side, of Student's t and the t that is corrected for skewness.

    Args:
        values: finite numbers; where there are two different ones, or 0 or 1 alone, these are the bounds.
        clusters: the unit of each value.
        unit: the noun for a unit.
        weights: what each value counts in the mean, > 0, up to a common factor; None counts all alike.
        bounds: range that a value can have; None if it is not known.
        alpha: chance that the truth is outside.

    Source: Cochran 1977, chapter 9 (variance by clusters); Kish 1965 (effective number); Hall 1992, "On the removal of
    skewness by transformation".
    """
    values, clusters = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    weights = None if weights is None else np.asarray(weights, dtype=np.float64)
    if reason := _why_no_squares(values):
        each = np.ones_like(values) if weights is None else weights
        value = float((each / each.sum() * values).sum())
        return Interval(value, unit=unit, num_units=len(np.unique(clusters)), reason=reason)
    bounds = two_values(values) if bounds is None else bounds
    groups = _grouped(values, clusters, weights, bounds)
    found = Interval(groups.mean, unit=unit, num_units=len(groups.means))
    if found.num_units >= LEAST_UNITS and groups.num_equal < LEAST_UNITS - ROUNDING:
        uneven = f"so unevenly spread that they are worth {groups.num_equal:.1f}, and {LEAST_UNITS} are the least"
        return found.without_ends(f"{found.counted_units} {uneven}")
    if bounds is None:
        return _by_t(found, groups, alpha)
    if found.num_units < LEAST_UNITS:
        return found.too_few(LEAST_UNITS)
    low, high = _bounded_ends(groups, bounds, alpha)
    return replace(found, low=low, high=high, method="binomial share with the effective number", assumes=ALIKE)


def _why_no_squares(values: Numbers) -> str:
    """Return the reason, empty if there is none."""
    largest = float(np.abs(values).max())
    if math.isnan(largest):
        return "a value is not a number"
    if 0 < largest < 1 / LARGEST:
        return f"values of at most {largest:.3g} are too small to be squared"
    return f"values up to {largest:.3g} are too large to be squared" if largest > LARGEST else ""


ALIKE = "the units are drawn as later ones will be"


NO_RARE = f"{ALIKE}, and none is far off that was not seen"


def paired_interval(
    differences: Values, *, unit: str, largest: float | None = None, num_values: float = 1, alpha: float = ALPHA
) -> Interval:
    """Return the mean of one difference a unit, with its interval over units.

    Where no difference can be beyond ±`largest`, what went up and what went down each have the interval of a share, and
    the two are combined (MOVER, with their correlation), so that few changed units, or none, do not seem certain. Else
    it is the interval of `mean_interval`.

    Args:
        differences: one a unit.
        unit: the noun for a unit.
        largest: the largest difference that is possible; None if it is not known.
        num_values: values on each side of a unit's difference.
        alpha: chance that the truth is outside.

    Source: Zou and Donner 2008 (MOVER); Newcombe 1998 for differences of paired shares.
    """
    differences = np.asarray(differences, dtype=np.float64)
    number = len(differences)
    if largest is None:
        if _why_no_squares(differences):
            return mean_interval(differences, np.arange(number), unit=unit)
        groups = _grouped(differences, np.arange(number), bounds=None)
        found = _by_t(Interval(groups.mean, unit=unit, num_units=number), groups, alpha)
        is_even = number >= LEAST_UNBOUNDED and not found.is_known
        return (
            found.without_ends(f"all {found.counted_units} have the same mean change, so its spread is not known")
            if is_even
            else found
        )
    if number < LEAST_UNITS:
        found = Interval(float(differences.mean()), unit=unit, num_units=number)
        return found.too_few(LEAST_UNITS)
    low, high = _mover_ends(differences / largest, num_values, alpha)
    return Interval(
        float(differences.mean()),
        largest * low,
        largest * high,
        method="shares up and down, combined (MOVER)",
        unit=unit,
        num_units=number,
        assumes=ALIKE,
    )


def _mover_ends(differences: Numbers, num_values: float, alpha: float) -> Range:
    up, down = np.maximum(differences, 0.0), np.maximum(-differences, 0.0)
    up_low, up_high = _bounded_ends(_one_each(up, num_values), (0.0, 1.0), alpha)
    down_low, down_high = _bounded_ends(_one_each(down, num_values), (0.0, 1.0), alpha)
    mean_up, mean_down, shared = float(up.mean()), float(down.mean()), _correlation(up, down)
    below = _combined(mean_up - up_low, down_high - mean_down, shared)
    above = _combined(up_high - mean_up, mean_down - down_low, shared)
    return max(mean_up - mean_down - below, -1.0), min(mean_up - mean_down + above, 1.0)


def _combined(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0))


def _correlation(up: Numbers, down: Numbers) -> float:
    """Of what went up and what went down; never positive, since no unit does both."""
    if up.std() == 0 or down.std() == 0:
        return 0.0
    return min(0.0, float(np.corrcoef(up, down)[0, 1]))


def difference_of_groups(
    first: Values,
    first_clusters: Units,
    second: Values,
    second_clusters: Units,
    *,
    unit: str,
    bounds: Range | None = None,
    alpha: float = ALPHA,
) -> Tested:
    """Return mean(second) − mean(first), with its interval and p; a unit may have values on both sides.

    Args:
        first: values of one side; two different ones on both sides together are a share of their range.
        first_clusters: the unit of each; the same number on both sides is the same unit.
        second: values of the other side.
        second_clusters: the unit of each.
        unit: the noun for a unit.
        bounds: range that a value can have; None if it is not known.
        alpha: chance that the truth is outside.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    first_clusters, second_clusters = np.asarray(first_clusters), np.asarray(second_clusters)
    values, number = np.concatenate([first, second]), len(np.union1d(first_clusters, second_clusters))
    if reason := _why_no_squares(values):
        value = float((second / len(second)).sum() - (first / len(first)).sum())
        return Tested(Interval(value, unit=unit, num_units=number, reason=reason))
    bounds = two_values(values) if bounds is None else bounds
    old, new = (_grouped(*side, bounds=bounds) for side in ((first, first_clusters), (second, second_clusters)))
    found = Interval(new.mean - old.mean, unit=unit, num_units=number)
    fewest = min(len(old.means), len(new.means))
    if fewest < LEAST_UNITS:
        return Tested(found.without_ends(f"{fewest} on one side, and {LEAST_UNITS} {unit}s are the least"))
    sides = [_side_of_difference(side, (old, new), bounds) for side in (old, new)]
    variances = [variance for variance, _ in sides]
    shared, at_old, at_new = np.intersect1d(
        np.unique(first_clusters), np.unique(second_clusters), assume_unique=True, return_indices=True
    )
    together = float((old.influences[at_old] * new.influences[at_new]).sum()) if shared.size else 0.0
    variance = max(sum(variances) - 2 * together, 0.0)
    rounding = ROUNDING * float(np.abs(values).max())
    if variance <= rounding**2:
        return Tested(found.without_ends("nothing varies"), 1.0 if abs(found.value) <= rounding else math.nan)
    total = sum(variances)  # of its shares, since squares of tiny variances underflow
    freedom = 1 / sum((part / total) ** 2 / its_freedom for part, its_freedom in sides)
    reach = float(special.stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(variance)
    interval = replace(found, low=found.value - reach, high=found.value + reach, method=WELCH, assumes=ALIKE)
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return Tested(interval.within(span), float(2 * special.stdtr(freedom, -abs(found.value) / math.sqrt(variance))))


def _variance(groups: _Groups, bounds: Range | None) -> float:
    """Of the mean; of a share as if one of each value had been seen besides, so that none of nine is not sure."""
    if bounds is None:
        return float((groups.influences**2).sum())
    bottom, span = bounds[0], bounds[1] - bounds[0]
    share, number = (groups.mean - bottom) / span, groups.effective(bounds)
    share = (share * number + 1) / (number + 2)
    return span**2 * share * (1 - share) / number


def _side_of_difference(side: _Groups, both: tuple[_Groups, _Groups], bounds: Range | None) -> tuple[float, float]:
    """Return the variance of one side's mean, and its degrees of freedom.

    Five skewed rewards often lie all on the short side and seem certain. So the variance of rewards on a side that has
    less than half of the other's units is at least that of both sides together.
    """
    own = _variance(side, bounds)
    if bounds is None and 2 * side.num_equal < max(each.num_equal for each in both):
        freedom = sum(len(each.means) for each in both) - 2
        squares = sum(float(((each.means - each.mean) ** 2).sum()) for each in both)
        if (pooled := squares / freedom / side.num_equal) > own:
            return pooled, float(freedom)
    return own, side.num_equal - 1


def _by_t(found: Interval, groups: _Groups, alpha: float) -> Interval:
    """Return the interval of a mean without known bounds."""
    if found.num_units < LEAST_UNBOUNDED:
        return found.too_few(LEAST_UNBOUNDED)
    if math.sqrt(groups.variance) <= ROUNDING * float(np.abs(groups.means).max()):
        return found.without_ends(f"all {found.counted_units} have the same mean, so their spread is not known")
    low, high = _skewed_ends(groups, alpha)
    return replace(found, low=low, high=high, method="Student's t, corrected for skewness", assumes=NO_RARE)


def two_values(values: Numbers) -> Range | None:
    """Return the two values of a yes-or-no reward; None for any other.

    Two values that are not whole numbers can be graded ones of which there are few: each must come twice.
    """
    low, high = float(values.min()), float(values.max())
    num_low, num_high = int((values == low).sum()), int((values == high).sum())
    if low in (0.0, 1.0) and high in (0.0, 1.0):
        return (0.0, 1.0) if num_low + num_high == len(values) or low == high else None
    if num_low + num_high < len(values) or high - low <= ROUNDING * max(abs(low), abs(high)):
        return None
    are_whole = low.is_integer() and high.is_integer()
    return (low, high) if are_whole or min(num_low, num_high) > 1 else None


def _bounded_ends(groups: _Groups, bounds: Range, alpha: float) -> Range:
    """Return the ends of the mean as a share of the range.

    Values between the bounds can be skewed otherwise than yes-or-no answers: theirs is no narrower than the interval
    without bounds.
    """
    bottom, span = bounds[0], bounds[1] - bounds[0]
    share = min(max((groups.mean - bottom) / span, 0.0), 1.0)
    doubt = UNITS_OF_DOUBT if groups.is_share else UNITS_OF_DOUBT_BETWEEN
    low, high = share_ends(share, groups.effective(bounds, doubt=doubt), alpha=alpha)
    low, high = bottom + span * low, bottom + span * high
    if groups.is_share or groups.variance <= 0:
        return low, high
    by_t = _skewed_ends(groups, alpha)
    return max(bottom, min(low, by_t[0])), min(bottom + span, max(high, by_t[1]))


def _skewed_ends(groups: _Groups, alpha: float) -> Range:
    """Return the ends by Student's t or by Hall's transformed t, whichever is further out on its side."""
    error, freedom = math.sqrt(groups.variance), max(groups.num_equal - 1, 1.0)
    reach = float(special.stdtrit(freedom, 1 - alpha / 2))
    influences = groups.influences
    squares = float((influences**2).sum())
    is_rounding = squares <= ROUNDING * groups.variance
    skewness = 0.0 if is_rounding else float((influences**3).sum() / squares**1.5)
    number = len(influences)
    skewness *= number**1.5 / math.sqrt(number - 1) / (number - 2)  # without the bias of few units
    below, above = max(reach, _unskewed(reach, skewness)), max(reach, -_unskewed(-reach, skewness))
    return groups.mean - below * error, groups.mean + above * error


def _unskewed(quantile: float, skewness: float) -> float:
    """Return the t whose transform is the quantile; `skewness` is that of the mean, g/√n.

    The transform is T + s·T²/3 + s²·T³/27 + s/6 (Hall 1992, equation 2.4).
    """
    if abs(skewness) < 1e-6:
        return quantile
    return 3 / skewness * (math.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)


def _one_each(means: Numbers, num_values: float) -> _Groups:
    number = len(means)
    weights, sizes = np.full(number, 1 / number), np.full(number, float(num_values))
    return _Groups(means, weights, sizes, spread=float(means.var()), is_share=True)


def _grouped(
    values: Numbers, clusters: Clusters, weights: Numbers | None = None, bounds: Range | None = (0.0, 1.0)
) -> _Groups:
    _, index = np.unique(clusters, return_inverse=True)
    each = np.ones_like(values) if weights is None else weights
    each = each / each.sum()
    shares = np.bincount(index, weights=each).astype(np.float64)
    means = np.bincount(index, weights=each * values) / shares
    return _Groups(
        means,
        shares,
        sizes=shares**2 / np.bincount(index, weights=each**2),
        spread=float((each * (values - float((each * values).sum())) ** 2).sum()),
        is_share=bounds is not None and bool(np.isin(values, bounds).all()),
    )
