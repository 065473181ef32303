"""Does a number depend on any of many columns? Against the same number dealt out at random."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.findings.statistics.correlations import ranks

Numbers = NDArray[np.float64]


NUM_SHUFFLES = 999


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """What a test of dependence found.

    Attributes:
        p_value: share of shuffled values that fit the columns as well.
        strongest: number of the column with the largest correlation.
        correlation: that correlation, of ranks.
    """

    p_value: float
    strongest: int
    correlation: float


def dependence_test(columns: Numbers, values: Numbers, *, seed: int = 0) -> Dependence | None:
    """Compare the correlations of values and columns with those of 999 shuffles of the values; None if nothing varies.

    Two statistics are asked, the largest |correlation| for one strong column and the sum of squares for many weak ones;
    the smaller of their p counts, held against the smaller p of each shuffle (Westfall and Young 1993). It is exact for
    values that are exchangeable, whatever their distribution and however the columns hang together.

    Args:
        columns: one row a value.
        values: of them the ranks are taken.
        seed: of the shuffles.
    """
    spread = columns.std(axis=0)
    kept = np.flatnonzero(spread > 1e-9)
    ranked = ranks(values)
    if len(values) < 3 or not len(kept) or ranked.std() == 0:
        return None
    shown = ((columns[:, kept] - columns[:, kept].mean(axis=0)) / spread[kept]).astype(np.float32)
    dealt = np.tile(((ranked - ranked.mean()) / ranked.std()).astype(np.float32), (1 + NUM_SHUFFLES, 1))
    np.random.default_rng(seed).permuted(dealt[1:], axis=1, out=dealt[1:])
    found = dealt @ shown / len(values)
    p_values = np.minimum(_shares_as_large(np.abs(found).max(axis=1)), _shares_as_large((found**2).sum(axis=1)))
    strongest = int(np.abs(found[0]).argmax())
    return Dependence(
        p_value=float((p_values <= p_values[0]).mean()),
        strongest=int(kept[strongest]),
        correlation=float(found[0, strongest]),
    )


def _shares_as_large(statistic: NDArray[np.float32]) -> Numbers:
    """Return for each entry the share of all that are at least as large."""
    ordered = np.sort(statistic)
    return 1 - np.searchsorted(ordered, statistic, side="left") / len(statistic)
