"""One case of a part: what was drawn, and how often the interval held the truth or the alarm went off."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from klimb.findings.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often an interval held the truth.

    Attributes:
        number: which ± of klimb it is, e.g. `held-out accuracy`.
        case: what was drawn, e.g. `20 problems x 4, rate 0.95, correlation 0.3`.
        num_sets: data sets.
        known: share of them that had an interval.
        held: share of these whose interval held the truth; nan without any.
        width: their median width.
        best_width: median width of the narrowest other method that holds 93 % or more; nan where none was tried.
        before: share held by the method of the first state compared; nan where it had none.
    """

    number: str
    case: str
    num_sets: int
    known: float
    held: float
    width: float
    best_width: float = math.nan
    before: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """How often something was said.

    Attributes:
        number: which alarm, verdict or forecast it is.
        case: what was drawn.
        num_sets: data sets (runs, reports, studies).
        rate: share of them in which it was said.
        truth: `nothing changed`, or what did.
        before: the same share for the rule of the first state compared; nan where it had none.
    """

    number: str
    case: str
    num_sets: int
    rate: float
    truth: str = "nothing changed"
    before: float = math.nan


Cell = Coverage | Alarms


Part = Callable[[int, np.random.Generator], Iterator[Cell]]
"""From the number of data sets of a case and a generator to the cells."""


def coverage(
    intervals: Sequence[Interval], truth: float | Sequence[float], *, number: str, case: str, **more: float
) -> Coverage:
    """Count how many of the intervals hold the truth, which is one number or one for each."""
    truths = np.broadcast_to(np.asarray(truth, dtype=np.float64), (len(intervals),))
    known = np.array([found.is_known for found in intervals])
    low, high = (np.array([getattr(found, end) for found in intervals])[known] for end in ("low", "high"))
    return Coverage(
        number=number,
        case=case,
        num_sets=len(intervals),
        known=float(known.mean()),
        # An end that equals the truth but for rounding holds it.
        held=float(((low <= truths[known] + 1e-12) & (truths[known] - 1e-12 <= high)).mean())
        if known.any()
        else math.nan,
        width=float(np.median(high - low)) if known.any() else math.nan,
        **more,
    )
