"""Correlations of two columns of numbers."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval, Tested
from klimb.findings.statistics.means import LEAST_UNITS

Numbers = NDArray[np.float64]


def pearson(x: Numbers, y: Numbers) -> float | None:
    """Correlation of x and y; None if there are fewer than 3 pairs or one of the two is constant."""
    if len(x) < 3 or x.min() == x.max() or y.min() == y.max():
        return None
    a, b = x - x.mean(), y - y.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def spearman(x: Numbers, y: Numbers) -> float | None:
    """Correlation of the ranks, equal values sharing their mean rank; None as for `pearson`."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group].astype(np.float64)


LINE = 1e-9
"""A squared correlation this close to 1 is a line but for rounding."""


def correlation(
    x: Numbers, y: Numbers, clusters: NDArray[np.int64], *, unit: str, of_ranks: bool = False
) -> Tested | None:
    """Return Pearson's or Spearman's correlation over units with its 95 % interval; None as for `pearson`.

    The interval is Fisher's z = artanh(r) ± t·se with the delete-one-unit jackknife's se and Student's t of units less
    one. The p is the larger of that interval's and of the score test: with s_c = Σ_{i in c} (x_i − x̄)(y_i − ȳ) and C
    units, q = (Σ s_c)²/(C·Σ s_c²), t = √((C − 1)·q/(1 − q)). The score test stays true to its level for few units and
    skewed values, where the jackknife's does not; for lines, which have no spread, it is the only one.

    Args:
        x: one column.
        y: the other.
        clusters: the unit of each pair.
        unit: the noun for a unit.
        of_ranks: of the ranks of both columns (Spearman).

    Source: Efron and Stein 1981 (jackknife); Liang and Zeger 1986 (sums by cluster).
    """
    if of_ranks and len(x):
        x, y = ranks(x), ranks(y)
    # Squares of huge values would overflow.
    x, y = (column / (float(np.abs(column).max(initial=0.0)) or 1.0) for column in (x, y))
    value = pearson(x, y)
    if value is None:
        return None
    _, index = np.unique(clusters, return_inverse=True)
    number = int(index.max()) + 1
    found = Interval(value, unit=unit, num_units=number, method="jackknife of Fisher's z")
    if number < LEAST_UNITS:
        return Tested(found.too_few(LEAST_UNITS))
    a, b = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    score = _score_chance(np.bincount(index, weights=a * b).astype(np.float64))
    if 1 - value**2 < LINE:
        return Tested(found.without_ends("all lie on one line"), score)
    error = _jackknife_error(a, b, index)
    if error is None:
        return Tested(found.without_ends(f"without one {unit} nothing would vary"))
    z, reach = math.atanh(value), float(special.stdtrit(number - 1, 1 - ALPHA / 2)) * error
    interval = replace(found, low=math.tanh(z - reach), high=math.tanh(z + reach))
    return Tested(interval, max(score, float(2 * special.stdtr(number - 1, -abs(z) / error))))


def _score_chance(sums: Numbers) -> float:
    number = len(sums)
    squares = float((sums**2).sum())
    share = min(float(sums.sum()) ** 2 / (number * squares), 1.0) if squares > 0 else 0.0
    # x of the incomplete beta function is 1 − q: two-sided Student's t without dividing by 1 − q = 0.
    return float(special.betainc((number - 1) / 2, 0.5, 1 - share))


def _jackknife_error(a: Numbers, b: Numbers, index: NDArray[np.int64]) -> float | None:
    """Return the standard error of Fisher's z; None if all values are equal once some unit is left out."""
    columns = (np.ones_like(a), a, b, a * a, b * b, a * b)
    n, sa, sb, aa, bb, ab = (column.sum() - np.bincount(index, weights=column) for column in columns)
    if n.min() < 1:
        return None
    spread_a, spread_b = aa / n - (sa / n) ** 2, bb / n - (sb / n) ** 2
    if min(spread_a.min(), spread_b.min()) < LINE:
        return None
    left = (ab / n - sa * sb / n**2) / np.sqrt(spread_a * spread_b)
    z = np.arctanh(np.clip(left, LINE - 1, 1 - LINE))
    error = math.sqrt((len(z) - 1) / len(z) * float(((z - z.mean()) ** 2).sum()))
    return error if error > LINE else None
