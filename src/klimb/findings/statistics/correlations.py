"""Correlations of two columns of numbers."""

import numpy as np
from numpy.typing import NDArray

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
