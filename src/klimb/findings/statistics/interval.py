"""An interval: a number with what it would have been, by what method, and how much independent evidence there is.

Every ± of klimb is one of these, made in this package and nowhere else. docs/statistics.md says for each how often it
holds the truth.
"""

import math
from dataclasses import dataclass, replace

CONFIDENCE = 0.95
"""Share of data sets whose interval is to hold the truth."""


ALPHA = 1 - CONFIDENCE
"""The usual level of a two-sided test."""


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval.

    Attributes:
        value: the estimate.
        low: lower end; nan where there is no interval.
        high: upper end; nan where there is no interval.
        method: how the ends were computed, e.g. `Student's t`.
        unit: what was drawn independently, as one noun: `problem`, `prompt`, `user`, `seed`.
        num_units: how many of these there are.
        assumes: what must be true for the interval to hold, in a few words; empty where the method says it.
        reason: why there is no interval; empty if there is one.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    unit: str = ""
    num_units: int = 0
    assumes: str = ""
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """True if both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the distance of the ends; nan where there is no interval."""
        return (self.high - self.low) / 2

    @property
    def is_positive(self) -> bool:
        """True if the whole interval lies above 0; False where there is none."""
        return self.is_known and self.low > 0

    @property
    def is_negative(self) -> bool:
        """True if the whole interval lies below 0; False where there is none."""
        return self.is_known and self.high < 0

    @property
    def counted_units(self) -> str:
        """`21 problems`, or `1 seed`."""
        return f"{self.num_units:,} {self.unit}{'' if self.num_units == 1 else 's'}"

    def without_ends(self, reason: str) -> "Interval":
        """Return the value alone, with the reason why it has no interval."""
        return replace(self, low=math.nan, high=math.nan, reason=reason)

    def too_few(self, least: int) -> "Interval":
        """Return the value alone, since it has fewer units than an interval needs."""
        return self.without_ends(f"{self.counted_units}, and {least} are the least for an interval")

    def within(self, bounds: tuple[float, float] | None) -> "Interval":
        """Return the interval cut at the ends of the range that the quantity can have."""
        if bounds is None or not self.is_known:
            return self
        return replace(self, low=max(self.low, bounds[0]), high=min(self.high, bounds[1]))


@dataclass(frozen=True)
class Tested:
    """A number with its interval, and the two-sided p of its being 0 (nan without a test)."""

    interval: Interval
    p_value: float = math.nan
