"""Curves as inline SVG: lines, bands, legends.

Colours are the style sheet's, by class; sizes are in pixels of a 360-pixel-wide picture.

Long curves made short enough for a page, without losing their spikes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from klimb.ui.audit_figures import Scale, nice_ticks, tick_labels
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


DIGITS = 5


SMALLEST = 1e-250
"""Below it, a difference is nothing: ticks cannot divide it."""


_EXPONENT = re.compile(r"e\+?(−?)0*(?=\d)")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart.

    Attributes:
        label: in the legend.
        x: in ascending order.
        y: one value for each x.
        low: lower end of a band around y, or empty.
        high: upper end.
        raw_x: of what y is a smoothed version of; drawn faintly.
        raw_y: its values.
        colour: number of the colour.
        dash: number of the pattern; 0 is solid.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    raw_x: Sequence[float] = ()
    raw_y: Sequence[float] = ()
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture.

    Attributes:
        title: what is shown.
        unit: of the vertical axis.
        axis: of the horizontal axis.
        curves: lines with at least one point each.
        floor: a value that the vertical axis includes.
        ceiling: another.
        is_logarithmic: the vertical axis shows powers of ten; values that are not positive are left out.
        note: a sentence below.
        metrics: names of the logged numbers in it.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...]
    axis: str = "step"
    floor: float | None = None
    ceiling: float | None = None
    is_logarithmic: bool = False
    note: str = ""
    metrics: tuple[str, ...] = ()


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


def chart_svg(chart: Chart, *, name: str) -> str:
    """Draw the chart as one `<svg>` with title and description for screen readers; `name` is unique within the page."""
    curves = _drawable(chart)
    if not curves:
        return f'<p class="quiet small">{escaped(chart.title)}: nothing to draw</p>'
    frame, axes = _axes(chart, curves)
    body = "".join(_curve(curve, frame) for curve in curves)
    height = TOP + PLOT_HEIGHT + BOTTOM
    cursor = f'<line class="cursor" y1="{TOP:g}" y2="{TOP + PLOT_HEIGHT:g}" x1="0" x2="0" visibility="hidden"/>'
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" data-chart="{name}" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escaped(chart.title)}</title><desc id="{name}-d">{escaped(described(chart))}</desc>'
        f"{axes}{body}{cursor}</svg>"
    )


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return what the script under the pointer reads: the values, and where the horizontal axis begins and ends."""
    curves = _drawable(chart)
    if not curves:
        return {"curves": []}
    frame, _ = _axes(chart, curves)
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


def legend(chart: Chart) -> str:
    """Return the names of the lines beside a piece of each; empty for a single one."""
    curves = _drawable(chart)
    if len(curves) < 2:
        return ""
    items = "".join(
        f'<li><svg viewBox="0 0 26 8" aria-hidden="true" class="{_classes(curve)}">'
        f'<path class="line" d="M1 4H25"/></svg><span>{escaped(curve.label)}</span></li>'
        for curve in curves
    )
    return f'<ul class="legend">{items}</ul>'


def described(chart: Chart) -> str:
    """`KL(π‖ref): from 0 to 0.034, last 0.031, over 24 points`, for every line."""
    parts = [
        f"{curve.label}: from {min(curve.y):.3g} to {max(curve.y):.3g}, last {curve.y[-1]:.3g}, "
        f"over {len(curve.y)} point{'s' if len(curve.y) != 1 else ''}"
        for curve in _drawable(chart)
    ]
    return "; ".join(parts) or "nothing to draw"


def _drawable(chart: Chart) -> list[Curve]:
    """Return the curves with a point that the vertical axis can show."""
    if not chart.is_logarithmic:
        return [curve for curve in chart.curves if curve.y]
    return [positive for curve in chart.curves if (positive := _positive(curve)).y]


def _positive(curve: Curve) -> Curve:
    kept = [(a, b) for a, b in zip(curve.x, curve.y, strict=True) if b > 0]
    raw = [(a, b) for a, b in zip(curve.raw_x, curve.raw_y, strict=True) if b > 0]
    return Curve(
        label=curve.label,
        x=[a for a, _ in kept],
        y=[b for _, b in kept],
        raw_x=[a for a, _ in raw],
        raw_y=[b for _, b in raw],
        colour=curve.colour,
        dash=curve.dash,
    )


def _axes(chart: Chart, curves: Sequence[Curve]) -> tuple[_Frame, str]:
    """Return the scales, and the axes with ticks, grid lines and labels as SVG."""
    ticks, labels = _y_ticks(chart, curves)
    left = CHARACTER * max(map(len, labels)) + 9
    x_low, x_high = _padded(min(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves))
    x_ticks = _x_ticks(x_low, x_high)
    x_labels = tick_labels(x_ticks)
    right = WIDTH - max(RIGHT, CHARACTER * len(x_labels[-1]) / 2)
    frame = _Frame(
        Scale(x_low, x_high, left, right), Scale(ticks[0], ticks[-1], TOP + PLOT_HEIGHT, TOP), chart.is_logarithmic
    )
    floor = frame.y.start
    parts: list[str] = []
    for tick, label in zip(ticks, labels, strict=True):
        parts.append(_segment("grid", left, frame.y(tick), right, frame.y(tick)))
        parts.append(_text(left - 6, frame.y(tick) + 4, label, anchor="end"))
    for tick, label in zip(x_ticks, x_labels, strict=True):
        parts.append(_segment("axis", frame.x(tick), floor, frame.x(tick), floor + 4))
        parts.append(_text(frame.x(tick), floor + 16, label, anchor="middle"))
    parts.append(_segment("axis", left, floor, right, floor))
    parts.append(_text(right, floor + 30, chart.axis, anchor="end"))
    return frame, "".join(parts)


def _y_ticks(chart: Chart, curves: Sequence[Curve]) -> tuple[list[float], list[str]]:
    values = [value for curve in curves for part in (curve.y, curve.low, curve.high, curve.raw_y) for value in part]
    included = [bound for bound in (chart.floor, chart.ceiling) if bound is not None and not chart.is_logarithmic]
    low, high = min(*values, *included, values[0]), max(*values, *included, values[0])
    if chart.is_logarithmic:
        return _powers_of_ten(low, high)
    low, high = _padded(low, high)
    if chart.floor is not None and low < chart.floor <= min(values):
        low = chart.floor
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


def _x_ticks(low: float, high: float) -> list[float]:
    """Nice ticks, at whole numbers where the axis is long enough for them."""
    ticks = nice_ticks(low, high)
    whole = [tick for tick in ticks if abs(tick - round(tick)) < 1e-9]
    return whole if high - low >= 1 and whole else ticks


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return the span itself, or some room around values that are all equal up to rounding."""
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, SMALLEST):
        return low, high
    room = 0.1 * size if size > SMALLEST else 0.5
    return low - room, high + room


def _curve(curve: Curve, frame: _Frame) -> str:
    parts = [f'<g class="{_classes(curve)}">']
    if curve.low:
        upper = [frame.point(x, y) for x, y in zip(curve.x, curve.high, strict=True)]
        lower = [frame.point(x, y) for x, y in zip(curve.x, curve.low, strict=True)]
        parts.append(f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>')
    if curve.raw_y:
        parts.append(_polyline("faint", curve.raw_x, curve.raw_y, frame))
    if len(curve.y) > 1:
        parts.append(_polyline("line", curve.x, curve.y, frame))
    if len(curve.y) <= MOST_DOTS:
        parts += [
            f'<circle class="dot" cx="{frame.x(x):.1f}" cy="{frame.height(y):.1f}" r="2.4"/>'
            for x, y in zip(curve.x, curve.y, strict=True)
        ]
    return "".join([*parts, "</g>"])


def _polyline(css: str, xs: Sequence[float], ys: Sequence[float], frame: _Frame) -> str:
    points = " ".join(frame.point(x, y) for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{css}" points="{points}"/>'


def _classes(curve: Curve) -> str:
    dash = curve.dash % NUM_DASHES
    return f"c{curve.colour % NUM_COLOURS}{f' d{dash}' if dash else ''}"


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") if abs(value) < 10**DIGITS else round(value) for value in values]


def _text(x: float, y: float, content: str, *, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(content)}</text>'


def _segment(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


MOST_POINTS = 400


def thinned(values: Sequence[float], *, most: int = MOST_POINTS) -> list[int]:
    """Pick the indices to keep, `most` at most, in order: the lowest and the highest of each of most/2 equal stretches.

    The first and the last are always kept, and so is every extreme of a stretch: a spike of one step stays visible.

    Raises:
        ValueError: `most` is below 4.
    """
    if most < 4:
        raise ValueError(f"thinned: most must be 4 or more, got {most}")
    count = len(values)
    if count <= most:
        return list(range(count))
    num_stretches = (most - 2) // 2
    kept = {0, count - 1}
    for stretch in range(num_stretches):
        part = range(count * stretch // num_stretches, count * (stretch + 1) // num_stretches)
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(kept)


def spread(count: int, *, most: int = MOST_POINTS) -> list[int]:
    """Return indices at equal distances, the first and the last among them; `most` at most."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def smoothed(values: Sequence[float], *, window: int) -> list[float]:
    """Return the mean of each value and its neighbours, as many before it as behind it, `window` at most altogether.

    Near the ends there are fewer neighbours, so that the curve neither lags nor leans: a straight line stays as it is.

    Raises:
        ValueError: the window is not positive.
    """
    if window < 1:
        raise ValueError(f"smoothed: the window must be 1 or more, got {window}")
    # Around their mean, so that a small change of large values is not rounded away by the running sum.
    middle = math.fsum(values) / max(1, len(values))
    sums = [0.0, *accumulate(value - middle for value in values)]
    last = len(values) - 1
    reaches = [min((window - 1) // 2, index, last - index) for index in range(len(values))]
    return [
        middle + (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)
        for index, reach in enumerate(reaches)
    ]


NUM_COLOURS = 8
"""Series colours that the style sheet defines: classes `c0` to `c7`, as `--c0` to `--c7`."""
