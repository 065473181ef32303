"""How well raters of the same things agree, beyond what chance would make of their ratings."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import LEAST_UNITS

Numbers = NDArray[np.float64]


def krippendorff_alpha(ratings: Sequence[Sequence[float]], *, unit: str) -> Interval:
    """Return Krippendorff's α for the squared distance of values, with its 95 % interval over units.

    With n ratings of units that have two or more, m_u of unit u, and SS sums of squares about their mean,
    α = 1 − D_o/D_e, D_o = (1/n)·Σ_u 2·m_u·SS_u/(m_u − 1), D_e = 2·SS/(n − 1). 1 is full agreement, 0 that of chance;
    for two values it is the nominal α too. The interval is Student's t with the delete-one-unit jackknife's error.

    Args:
        ratings: of each unit; those with fewer than two are left out.
        unit: the noun for one.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability"; Efron and Stein 1981 (jackknife).
    """
    compared = [np.asarray(values, dtype=np.float64) for values in ratings if len(values) > 1]
    found = Interval(math.nan, unit=unit, num_units=len(compared), method="jackknife of Krippendorff's α")
    if not compared:
        return found.without_ends(f"no {unit} has two ratings")
    within, sums = _within(compared), _sums(compared)
    value = _alpha(within.sum(), sums.sum(axis=0))
    if value is None:
        return found.without_ends(f"all ratings of {unit}s that have two or more are equal")
    found = replace(found, value=value)
    if len(compared) < LEAST_UNITS:
        return found.too_few(LEAST_UNITS)
    left = [_alpha(within.sum() - each, sums.sum(axis=0) - row) for each, row in zip(within, sums, strict=True)]
    if any(alpha is None for alpha in left):
        return found.without_ends(f"without one {unit} all ratings would be equal")
    number, alphas = len(left), np.array(left, dtype=np.float64)
    error = math.sqrt((number - 1) / number * float(((alphas - alphas.mean()) ** 2).sum()))
    reach = float(special.stdtrit(number - 1, 1 - ALPHA / 2)) * error
    return replace(found, low=value - reach, high=min(value + reach, 1.0))


def _within(compared: Sequence[Numbers]) -> Numbers:
    """2·m·SS/(m − 1) of each unit: the sum of squared distances of its pairs over its ratings less one."""
    return np.array([2 * len(v) * float(((v - v.mean()) ** 2).sum()) / (len(v) - 1) for v in compared])


def _sums(compared: Sequence[Numbers]) -> Numbers:
    """Return the number, sum and sum of squares of each unit's ratings."""
    return np.array([(len(values), values.sum(), (values**2).sum()) for values in compared])


def _alpha(within: float, sums: Numbers) -> float | None:
    number, total, squares = (float(value) for value in sums)
    spread = squares - total**2 / number
    if spread <= 1e-12 * max(squares, 1e-300):
        return None
    return float(1 - (within / number) / (2 * spread / (number - 1)))
