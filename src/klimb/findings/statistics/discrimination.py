"""How well scores tell one kind of thing from another: the area under the ROC curve, and its gain over another's."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import LEAST_UNITS
from klimb.findings.statistics.proportions import share_ends

Numbers = NDArray[np.float64]


METHOD = "jackknife of the area under the ROC curve"


def area_under_roc(
    scores: Sequence[float],
    positive: Sequence[bool],
    units: Sequence[str],
    *,
    unit: str,
    than: Sequence[float] | None = None,
) -> Interval:
    """Return the share of (positive, negative) pairs whose positive one has the higher score, with its 95 % interval.

    A tie counts half. The interval is Student's t with the delete-one-unit jackknife's error; where no unit changes the
    area (all pairs are in order, say), it is that of a share seen in as many observations as the rarer kind has.

    Args:
        scores: of each thing.
        positive: which kind it is of.
        units: what was drawn independently, of each.
        unit: the noun for one.
        than: other scores, whose area is taken away; the interval is then that of the difference.

    Source: Mann and Whitney 1947; Efron and Stein 1981 (jackknife).
    """
    found_scores, kinds = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    others = None if than is None else np.asarray(than, dtype=np.float64)
    numbers = np.unique(np.asarray(units, dtype=str), return_inverse=True)[1]
    number = int(numbers.max()) + 1 if len(numbers) else 0
    found = Interval(math.nan, unit=unit, num_units=number, method=METHOD)
    value = _area(found_scores, others, kinds)
    if value is None:
        return found.without_ends("all are of one kind")
    found = replace(found, value=value)
    if number < LEAST_UNITS:
        return found.too_few(LEAST_UNITS)
    left = [
        _area(found_scores[keep], None if others is None else others[keep], kinds[keep])
        for keep in (numbers != each for each in range(number))
    ]
    if any(area is None for area in left):
        return found.without_ends(f"without one {unit} all would be of one kind")
    areas = np.array(left, dtype=np.float64)
    error = math.sqrt((number - 1) / number * float(((areas - areas.mean()) ** 2).sum()))
    if error > 0:
        reach = float(special.stdtrit(number - 1, 1 - ALPHA / 2)) * error
        return replace(found, low=value - reach, high=value + reach).within((0.0, 1.0) if than is None else (-1.0, 1.0))
    if than is not None:
        return found.without_ends(f"no {unit} changes the difference")
    low, high = share_ends(value, float(min(kinds.sum(), (~kinds).sum())))
    return replace(found, low=low, high=high)


def _area(scores: Numbers, others: Numbers | None, positive: NDArray[np.bool_]) -> float | None:
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return None
    area = _mann_whitney(scores, positive, num_positive, num_negative)
    return area if others is None else area - _mann_whitney(others, positive, num_positive, num_negative)


def _mann_whitney(scores: Numbers, positive: NDArray[np.bool_], num_positive: int, num_negative: int) -> float:
    ranks = np.asarray(stats.rankdata(scores), dtype=np.float64)
    return (float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
