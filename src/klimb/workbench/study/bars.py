"""A point with its interval as a small picture in a row of a table; all rows share one scale."""

import math
from collections.abc import Sequence

from klimb.workbench.study.resampling import Interval
from klimb.workbench.study.study_charts import finite_range

WIDTH, HEIGHT, MARGIN = 140.0, 16.0, 6.0


def bars(intervals: Sequence[Interval], *, classes: Sequence[str], has_zero: bool = False) -> list[str]:
    """SVG of each interval, in order; empty where there is no value.

    Args:
        intervals: one for each row.
        classes: CSS classes of each row: its colour, `hollow` for a hollow point.
        has_zero: the scale includes zero and marks it.
    """
    ends = [end for one in intervals for end in (one.value, one.low, one.high)]
    low, high = finite_range([*ends, 0.0] if has_zero else ends)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return MARGIN + (value - low) / span * (WIDTH - 2 * MARGIN)

    zero = f'<line class="axis" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="0" y2="{HEIGHT:g}"/>' if has_zero else ""
    return [
        _bar(one, [place(end) for end in (one.value, one.low, one.high)], name, zero)
        for one, name in zip(intervals, classes, strict=True)
    ]


def _bar(interval: Interval, places: Sequence[float], css: str, zero: str) -> str:
    if not math.isfinite(interval.value):
        return ""
    at, low, high = places
    middle = HEIGHT / 2
    reach = f'<line class="line" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>'
    return (
        f'<svg class="bar {css}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" aria-hidden="true">{zero}'
        f'{reach if interval.is_known else ""}<circle class="dot" cx="{at:.1f}" cy="{middle:g}" r="4"/></svg>'
    )
