"""Charts as inline SVG: the one engine of all pages.

Colours are the style sheet's, by class; sizes are in pixels of a 360-pixel-wide picture.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from klimb.ui.chart import (
    MOST_BARS,
    NUM_COLOURS,
    Chart,
    Curve,
    IntervalRow,
    Intervals,
    described,
    drawable,
    kept_bins,
    number_text,
)
from klimb.ui.escaping import escaped

WIDTH = 360.0


PLOT_HEIGHT = 158.0


TOP = 8.0


BOTTOM = 34.0


RIGHT = 10.0


CHARACTER = 6.6
"""Width of a digit, rounded up, at the pictures' font size of 11."""


NUM_DASHES = 4


MOST_DOTS = 25
"""A curve of at most this many points shows each of them."""


MOST_CLOUD = 2000
"""A cloud of more points is drawn in part."""


LARGEST_RADIUS = 15.0


BAR_PITCH = 22.0


BAR_HEIGHT = 14.0


LABEL_CHARACTERS = 28


MOST_TICKS = 6


NICE_STEPS = (1.0, 2.0, 5.0, 10.0)


DIGITS = 5


SMALLEST = 1e-250
"""Below it, a difference is nothing: ticks cannot divide it."""


_EXPONENT = re.compile(r"e\+?(−?)0*(?=\d)")


@dataclass(frozen=True)
class Scale:
    """Maps numbers in [low, high] to pixels in [start, end], linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a number."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, *, most: int = MOST_TICKS) -> list[float]:
    """Neighbouring multiples of 1, 2 or 5 times a power of ten within [low, high], the finest that are at most `most`.

    >>> nice_ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    >>> nice_ticks(-1, 1)
    [-1.0, -0.5, 0.0, 0.5, 1.0]

    Raises:
        ValueError: low and high are not finite, or not in this order.
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise ValueError(f"ticks need finite low < high, got {low} and {high}")
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (*NICE_STEPS, 20.0):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [index * step for index in range(first, last + 1)] or [low]
    return [low]


def whole_ticks(low: float, high: float) -> list[float]:
    """Return nice ticks, at whole numbers where the axis is long enough for them."""
    ticks = nice_ticks(low, high)
    whole = [tick for tick in ticks if abs(tick - round(tick)) < 1e-9]
    return whole if high - low >= 1 and whole else ticks


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """One label a tick, all with the decimals that tell neighbours apart; `1e+06` where digits would be too many."""
    largest = max(abs(tick) for tick in ticks)
    step = min((b - a for a, b in pairwise(ticks)), default=largest or 1.0)
    if largest >= 1e6 or 0 < step < 1e-4:
        return [f"{tick:.3g}".replace("-", "−") for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:,.{decimals}f}".replace("-", "−") for tick in ticks]


@dataclass(frozen=True)
class _Frame:
    """Both scales of a chart, and whether the vertical one is logarithmic."""

    x: Scale
    y: Scale
    is_logarithmic: bool

    def point(self, x: float, y: float) -> str:
        """`12.3,45.6`: the place of a point."""
        return f"{self.x(x):.1f},{self.height(y):.1f}"

    def height(self, y: float) -> float:
        """Return the vertical place of a value, kept inside of the picture."""
        value = math.log10(y) if self.is_logarithmic else y
        return min(self.y.start + 2, max(self.y.end - 2, self.y(value)))


def chart_svg(chart: Chart, *, name: str) -> Markup:
    """Draw the chart as one `<svg>` with title and description for screen readers; `name` is unique within the page."""
    kept = drawable(chart)
    text = described(chart)
    if not _has_something(kept):
        return Markup(f'<p class="quiet small">{escaped(chart.title)}: {escaped(text)}</p>')
    body, height, more = _bars(kept) if kept.bars is not None else _plot(kept)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" data-chart="{name}" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escaped(chart.title)}</title><desc id="{name}-d">{escaped(text + more)}</desc>'
        f"{body}</svg>"
    )


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return what the script under the pointer reads: the values, and where the horizontal axis begins and ends."""
    kept = drawable(chart)
    curves = [curve for curve in kept.curves if curve.mark == "line"]
    if not curves:
        return {"curves": []}
    frame, _ = _axes(kept)
    return {
        "axis": chart.axis,
        "width": WIDTH,
        "low": frame.x.low,
        "high": frame.x.high,
        "left": round(frame.x.start, 1),
        "right": round(frame.x.end, 1),
        "curves": [
            {
                "label": curve.label,
                "colour": f"c{curve.colour % NUM_COLOURS}",
                "x": _rounded(curve.x),
                "y": _rounded(curve.y),
                **({"low": _rounded(curve.low), "high": _rounded(curve.high)} if curve.low else {}),
            }
            for curve in curves
        ],
    }


def legend(chart: Chart) -> list[tuple[str, str]]:
    """Return the classes and the name of each line; none for a single one."""
    curves = drawable(chart).curves
    return [(classes(curve.colour, curve.dash), curve.label) for curve in curves] if len(curves) > 1 else []


def classes(colour: int, dash: int = 0) -> str:
    """`c0`, `c1 d1`: the style sheet's classes for a colour and a pattern."""
    dash %= NUM_DASHES
    return f"c{colour % NUM_COLOURS}{f' d{dash}' if dash else ''}"


STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 140.0, 16.0, 6.0


def strips(intervals: Intervals) -> list[Markup]:
    """Draw each row as a small picture for a row of a table, all on one scale; empty where there is no value."""
    rows = intervals.rows
    ends = [end for row in rows for end in (row.value, row.low, row.high) if math.isfinite(end)]
    ends = [*ends, *([0.0] if intervals.has_zero else [])] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    place = Scale(low, high if high > low else low + 1, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN)
    zero = _segment("axis", place(0), 0, place(0), STRIP_HEIGHT) if intervals.has_zero else ""
    return [_strip(row, place, zero) for row in rows]


def _strip(row: IntervalRow, place: Scale, zero: str) -> Markup:
    if not math.isfinite(row.value):
        return Markup("")
    middle, css = STRIP_HEIGHT / 2, f"{classes(row.colour)}{' hollow' if row.is_hollow else ''}"
    is_known = math.isfinite(row.low) and math.isfinite(row.high)
    reach = _segment("line", place(row.low), middle, place(row.high), middle) if is_known else ""
    return Markup(
        f'<svg class="strip {css}" viewBox="0 0 {STRIP_WIDTH:g} {STRIP_HEIGHT:g}" aria-hidden="true">{zero}{reach}'
        f'<circle class="dot" cx="{place(row.value):.1f}" cy="{middle:g}" r="4"/></svg>'
    )


def _has_something(kept: Chart) -> bool:
    has_bins = kept.histogram is not None and bool(kept_bins(kept.histogram))
    return bool(kept.curves) or has_bins or (kept.bars is not None and bool(kept.bars.values))


def _plot(kept: Chart) -> tuple[str, float, str]:
    """Axes with curves, points or bins; the height, and what the description must add."""
    frame, axes = _axes(kept)
    parts = [axes]
    if kept.histogram is not None:
        parts.append(_bins(kept, frame))
    # Beside clouds, a line only guides the eye.
    has_dots = all(curve.mark == "line" for curve in kept.curves)
    parts += [_curve(curve, frame, has_dots=has_dots) for curve in kept.curves]
    parts.append(f'<line class="cursor" y1="{TOP:g}" y2="{TOP + PLOT_HEIGHT:g}" x1="0" x2="0" visibility="hidden"/>')
    every = max([_every(curve) for curve in kept.curves], default=1)
    return "".join(parts), TOP + PLOT_HEIGHT + BOTTOM, f"; one in {every} is drawn" if every > 1 else ""


def _bins(kept: Chart, frame: _Frame) -> str:
    assert kept.histogram is not None
    boxes = (
        f'<rect class="mark" x="{frame.x(a):.1f}" y="{frame.y(count):.1f}" '
        f'width="{max(0.0, frame.x(b) - frame.x(a) - 1):.1f}" height="{frame.y(0) - frame.y(count):.1f}"/>'
        for a, b, count in kept_bins(kept.histogram)
    )
    return f'<g class="c0">{"".join(boxes)}</g>'


def _bars(kept: Chart) -> tuple[str, float, str]:
    """Horizontal, so that labels of any length can be read on a phone; each ends in its value."""
    assert kept.bars is not None
    rows = list(zip(kept.bars.labels, kept.bars.values, strict=True))[:MOST_BARS]
    values = [value for _, value in rows]
    left = CHARACTER * min(LABEL_CHARACTERS, max(len(label) for label, _ in rows)) + 10
    room = CHARACTER * max(len(number_text(value)) for value in values) + 6
    low, high = min(0.0, *values), max(0.0, *values)
    x = Scale(low, high if high > low else low + 1, left + (room if low < 0 else 0), WIDTH - room)
    parts = ["".join(_bar(x, left, TOP + at * BAR_PITCH, *row) for at, row in enumerate(rows))]
    height = TOP + len(rows) * BAR_PITCH + 4
    parts.append(_segment("axis", x(0), TOP - 4, x(0), height - 6))
    if kept.axis:
        parts.append(_text(WIDTH, height + 10, kept.axis, anchor="end"))
    return "".join(parts), height + (16 if kept.axis else 0), ""


def _bar(x: Scale, left: float, top: float, label: str, value: float) -> str:
    start, end = min(x(0), x(value)), max(x(0), x(value))
    where, anchor = (end + 4, "start") if value >= 0 else (start - 4, "end")
    cut = label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "…"
    return (
        f"{_text(left - 6, top + 11, cut, anchor='end')}"
        f'<rect class="mark c0" x="{start:.1f}" y="{top:.1f}" width="{end - start:.1f}" height="{BAR_HEIGHT:g}"/>'
        f"{_text(where, top + 11, number_text(value), anchor=anchor)}"
    )


def _axes(kept: Chart) -> tuple[_Frame, str]:
    """Return the scales, and the axes with ticks, grid lines and labels as SVG."""
    ticks, labels = _y_ticks(kept)
    left = CHARACTER * max(map(len, labels)) + 9
    x_low, x_high = padded(*_x_span(kept))
    x_ticks = whole_ticks(x_low, x_high)
    x_labels = tick_labels(x_ticks)
    right = WIDTH - max(RIGHT, CHARACTER * len(x_labels[-1]) / 2)
    # Circles at the ends of the axes stay clear of their labels.
    room, floor = (LARGEST_RADIUS if any(curve.sizes for curve in kept.curves) else 0.0), TOP + PLOT_HEIGHT
    y = Scale(ticks[0], ticks[-1], floor - room, TOP + room)
    frame = _Frame(Scale(x_low, x_high, left + room, right - room), y, kept.is_logarithmic)
    parts: list[str] = []
    for tick, label in zip(ticks, labels, strict=True):
        parts.append(_segment("grid", left, frame.y(tick), right, frame.y(tick)))
        parts.append(_text(left - 6, frame.y(tick) + 4, label, anchor="end"))
    for tick, label in zip(x_ticks, x_labels, strict=True):
        parts.append(_segment("axis", frame.x(tick), floor, frame.x(tick), floor + 4))
        parts.append(_text(frame.x(tick), floor + 16, label, anchor="middle"))
    parts.append(_segment("axis", left, floor, right, floor))
    parts.append(_text(right, floor + 30, kept.axis, anchor="end"))
    return frame, "".join(parts)


def _x_span(kept: Chart) -> tuple[float, float]:
    values = [value for curve in kept.curves for value in (*curve.x, *curve.raw_x)]
    if kept.histogram is not None:
        values += [edge for a, b, _ in kept_bins(kept.histogram) for edge in (a, b)]
    return min(values), max(values)


def _y_ticks(kept: Chart) -> tuple[list[float], list[str]]:
    values = [
        value for curve in kept.curves for part in (curve.y, curve.low, curve.high, curve.raw_y) for value in part
    ]
    if kept.histogram is not None:
        values += [0.0, *(count for *_, count in kept_bins(kept.histogram))]
    included = [bound for bound in (kept.floor, kept.ceiling) if bound is not None and not kept.is_logarithmic]
    low, high = min(*values, *included, values[0]), max(*values, *included, values[0])
    if kept.is_logarithmic:
        return _powers_of_ten(low, high)
    low, high = padded(low, high)
    if kept.floor is not None and low < kept.floor <= min(values):
        low = kept.floor
    ticks = _covering(low, high)
    return ticks, [_EXPONENT.sub(r"e\1", label) for label in tick_labels(ticks)]


def _powers_of_ten(low: float, high: float) -> tuple[list[float], list[str]]:
    """Logarithms of the powers of ten around [low, high], and how they are written."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    step = math.ceil((last - first) / 5)
    exponents = list(range(first, last + step, step))
    return [float(exponent) for exponent in exponents], [f"{10.0**exponent:g}" for exponent in exponents]


def _covering(low: float, high: float) -> list[float]:
    """Nice ticks, the first at or below low and the last at or above high."""
    ticks = nice_ticks(low, high)
    if len(ticks) < 2:
        return [low, high]
    step = ticks[1] - ticks[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def padded(low: float, high: float) -> tuple[float, float]:
    """Return the span itself, or some room around values that are all equal up to rounding."""
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, SMALLEST):
        return low, high
    room = 0.1 * size if size > SMALLEST else 0.5
    return low - room, high + room


def _curve(curve: Curve, frame: _Frame, *, has_dots: bool) -> str:
    if curve.mark == "points":
        return _cloud(curve, frame)
    parts = [f'<g class="{classes(curve.colour, curve.dash)}">']
    if curve.low:
        upper = [frame.point(x, y) for x, y in zip(curve.x, curve.high, strict=True)]
        lower = [frame.point(x, y) for x, y in zip(curve.x, curve.low, strict=True)]
        parts.append(f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>')
    if curve.raw_y:
        parts.append(_polyline("faint", curve.raw_x, curve.raw_y, frame))
    if len(curve.y) > 1:
        parts.append(_polyline("line", curve.x, curve.y, frame))
    if has_dots and len(curve.y) <= MOST_DOTS:
        parts += [_circle("dot", frame, x, y, 2.4) for x, y in zip(curve.x, curve.y, strict=True)]
    return "".join([*parts, "</g>"])


def _cloud(curve: Curve, frame: _Frame) -> str:
    """Draw points, all of one size, or each with an area that stands for a number and that number in it."""
    every = _every(curve)
    points = list(zip(curve.x, curve.y, strict=True))[::every]
    if not curve.sizes:
        parts = [_circle("point", frame, x, y, 2.2) for x, y in points]
        return f'<g class="{classes(curve.colour)}">{"".join(parts)}</g>'
    sizes, most = curve.sizes[::every], max(curve.largest, *curve.sizes)
    parts = [
        _circle("band", frame, x, y, max(2.0, LARGEST_RADIUS * math.sqrt(size / most)))
        + _text(frame.x(x), frame.height(y) + 4, f"{size:g}", anchor="middle")
        for (x, y), size in zip(points, sizes, strict=True)
    ]
    return f'<g class="{classes(curve.colour)}">{"".join(parts)}</g>'


def _every(curve: Curve) -> int:
    return math.ceil(len(curve.y) / MOST_CLOUD) if curve.mark == "points" else 1


def _circle(css: str, frame: _Frame, x: float, y: float, radius: float) -> str:
    return f'<circle class="{css}" cx="{frame.x(x):.1f}" cy="{frame.height(y):.1f}" r="{radius:.3g}"/>'


def _polyline(css: str, xs: Sequence[float], ys: Sequence[float], frame: _Frame) -> str:
    points = " ".join(frame.point(x, y) for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{css}" points="{points}"/>'


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") if abs(value) < 10**DIGITS else round(value) for value in values]


def _text(x: float, y: float, content: str, *, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(content)}</text>'


def _segment(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
