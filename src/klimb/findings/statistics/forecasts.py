"""How many units would be enough for an interval of a wished width, as far as those that are there can tell."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import mean_interval, two_values
from klimb.findings.statistics.proportions import share_ends

Numbers = NDArray[np.float64]


Clusters = NDArray[np.int64]


CHANCE_OF_FORECAST = 0.8
"""That the data which a forecast asks for is enough."""


QUANTILE_OF_SKEWED = 0.9
"""Of F, for rewards of more than two values: few skewed ones hide how heavy their tail is. So it is still enough
in 80 % of cases."""


MOST_UNITS = 10_000_000
"""A forecast that asks for more says nothing."""


NUM_ROUNDS = 16


HALF_WIDTHS_POWER = 1.3
"""Half widths fall with the number to the power 1/2 within, and 1 at the ends: both converge by a factor of 0.35."""


@dataclass(frozen=True)
class MeanReward:
    """The mean of rewards with its interval, and what a forecast needs.

    Attributes:
        interval: in units of the reward.
        span: the larger of two values minus the smaller, for rewards of two values; else 0.
        lowest: the smaller of the two.
        num_equal: units with equally many values that would be worth as much: (Σn)²/Σn².
        num_values: values.
        excess: excess kurtosis of the units' sums about the mean, at least 0: how much less certain a variance is.
    """

    interval: Interval
    span: float
    lowest: float
    num_equal: float
    num_values: int
    excess: float

    @property
    def num_independent(self) -> float:
        """Independent values that would have so wide an interval; of rewards of two values."""
        share, wanted = (self.interval.value - self.lowest) / self.span, self.interval.half_width / self.span
        number = float(self.num_values)
        for _ in range(NUM_ROUNDS):
            number *= (_half_of_share(share, number) / wanted) ** HALF_WIDTHS_POWER
        return number

    def units_for(self, half_width: float) -> int | None:
        """Units after which a new interval is no wider, with a chance of 80 %; None without an interval or any number.

        As many values a unit, as unevenly spread. What the data say of the variance is uncertain, and so is what the
        next data will say. Both are in the forecast: the new variance over the old one is at most a quantile of F, 80 %
        for two values of reward and 90 % for more, with the units of both less one as degrees of freedom, for more
        values over 1 + excess/2. A share is at most as near to one half as the 80 % interval of the new one.

        Source: the variance of a variance, σ⁴·(2/(n − 1) + κ/n) with the excess kurtosis κ (Cramér 1946).
        """
        if not self.interval.is_known:
            return None
        half = self._next_half_of_share() if self.span else self._next_half_of_mean
        return _smallest(half, half_width)

    def _next_half_of_mean(self, num_units: int) -> float:
        equal, less = self._next_equal(num_units), 1 + self.excess / 2
        freedom = max(self.num_equal - 1, 1.0)
        now, later = (float(special.stdtrit(each, 1 - ALPHA / 2)) for each in (freedom, equal - 1))
        more = _more_variance((equal - 1) / less, max(freedom / less, 1.0), QUANTILE_OF_SKEWED)
        return float(self.interval.half_width * later / now * np.sqrt(more * self.num_equal / equal))

    def _next_half_of_share(self) -> Callable[[int], float]:
        return partial(self._half_of_share_after, (self.interval.value - self.lowest) / self.span, self.num_independent)

    def _half_of_share_after(self, share: float, number: float, num_units: int) -> float:
        """Half width in units of the reward, if `share` is now known as well as from `number` independent values."""
        equal = self._next_equal(num_units)
        worth = number / self.num_equal
        if self.num_equal < self.num_values:
            worth = max(
                worth / _more_variance(equal - 1, max(self.num_equal - 1, 1.0), CHANCE_OF_FORECAST), min(worth, 1.0)
            )
        later = equal * worth
        low, high = share_ends(share, number * later / (number + later), alpha=1 - CHANCE_OF_FORECAST)
        return self.span * _half_of_share(float(np.clip(0.5, low, high)), later)

    def _next_equal(self, num_units: int) -> float:
        return max(num_units * self.num_equal / self.interval.num_units, 2.0)


def mean_reward(rewards: Numbers, clusters: Clusters, *, unit: str) -> MeanReward:
    """Return the mean of rewards with its 95 % interval over units, and what a forecast needs.

    Args:
        rewards: finite numbers.
        clusters: the unit of each.
        unit: the noun for a unit.
    """
    lowest, highest = two_values(rewards) or (0.0, 0.0)
    found = mean_interval(rewards, clusters, unit=unit)
    return MeanReward(found, highest - lowest, lowest, _num_equal(clusters), len(rewards), _excess(rewards, clusters))


def _num_equal(clusters: Clusters) -> float:
    sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _excess(rewards: Numbers, clusters: Clusters) -> float:
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=rewards - rewards.mean())
    sums = sums / (np.abs(sums).max() or 1.0)  # their fourth powers would overflow
    squares = float((sums**2).sum())
    return max(len(sums) * float((sums**4).sum()) / squares**2 - 3, 0.0) if squares > 0 else 0.0


def units_for_any_share(half_width: float) -> int | None:
    """Units after which the 95 % interval of a share is no wider, whatever the share and with one value a unit."""
    return _smallest(partial(_half_of_share, 0.5), half_width)


def _half_of_share(share: float, number: float) -> float:
    low, high = share_ends(share, number)
    return (high - low) / 2


def _more_variance(freedom: float, old_freedom: float, chance: float) -> float:
    """Return how many times the old variance the new one is at most, with this chance; no less than once."""
    return max(float(special.fdtri(freedom, old_freedom, chance)), 1.0)


def _smallest(half: Callable[[int], float], wanted: float) -> int | None:
    """Return the smallest number of units whose half width is at most the wanted one."""
    high = 2
    while half(high) > wanted:
        high *= 2
        if high > MOST_UNITS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if half(middle) > wanted else (low, middle)
    return high
