"""Whether a sequence of numbers rises or falls by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats


@dataclass(frozen=True)
class Trend:
    """Kendall's rank correlation of a metric with the step, and its two-sided p-value."""

    tau: float
    p: float


def trend_of(values: Sequence[float]) -> Trend:
    """Return the trend; none (τ = 0, p = 1) where all values are equal."""
    if len(set(values)) < 2:
        return Trend(0.0, 1.0)
    result: Any = stats.kendalltau(range(len(values)), values)  # scipy's own annotations hide the two fields
    return Trend(float(result.statistic), float(result.pvalue))
