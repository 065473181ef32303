"""Figures of an audit as inline SVG: histogram, bars, line, points. Sizes are in pixels of a 360-pixel-wide picture.

Colours come from the page's style sheet by class, so that one picture fits a light and a dark page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from klimb.findings.audit.report import Figure
from klimb.ui.escaping import escaped

WIDTH = 360.0


PLOT_HEIGHT = 150.0


TOP = 22.0


BOTTOM = 36.0


RIGHT = 16.0


CHARACTER = 6.2
"""Width of a digit at the pictures' font size of 11."""


BAR_PITCH = 22.0


BAR_HEIGHT = 14.0


LABEL_CHARACTERS = 16


MOST_BARS = 40


MOST_POINTS = 2000


MOST_DOTS_ON_A_LINE = 30


MOST_TICKS = 6


NICE_STEPS = (1.0, 2.0, 5.0, 10.0)


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


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """One label a tick, all with the decimals that tell neighbours apart; `1e+06` where digits would be too many."""
    largest = max(abs(tick) for tick in ticks)
    step = min((b - a for a, b in pairwise(ticks)), default=largest or 1.0)
    if largest >= 1e6 or 0 < step < 1e-4:
        return [f"{tick:.3g}".replace("-", "−") for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:,.{decimals}f}".replace("-", "−") for tick in ticks]


def figure_svg(figure: Figure, *, name: str) -> str:
    """Return the figure as one `<svg>` element with a title and a description for screen readers.

    Args:
        figure: values that are not finite are left out, and counted in the description.
        name: prefix of the ids, unique within the page.

    Raises:
        ValueError: lengths do not fit the kind.
    """
    _check(figure)
    draw = {"histogram": _histogram, "bars": _bars, "line": _line, "points": _points}[figure.kind]
    body, height, described = draw(figure) if figure.y else ("", TOP, "nothing to draw")
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escaped(figure.title)}</title>'
        f'<desc id="{name}-d">{escaped(described)}</desc>{body}</svg>'
    )


def _check(figure: Figure) -> None:
    expected = len(figure.y) + (1 if figure.kind == "histogram" and figure.y else 0)
    if figure.kind == "bars":
        if len(figure.labels) != len(figure.y):
            raise ValueError(f"figure {figure.title!r}: {len(figure.y)} bars need as many labels, got {figure.labels}")
    elif len(figure.x) != expected:
        raise ValueError(
            f"figure {figure.title!r}: a {figure.kind} of {len(figure.y)} values needs {expected} values of x, "
            f"got {len(figure.x)}"
        )


def _histogram(figure: Figure) -> tuple[str, float, str]:
    kept = [
        (a, b, count)
        for (a, b), count in zip(pairwise(figure.x), figure.y, strict=True)
        if math.isfinite(a) and math.isfinite(b) and math.isfinite(count)
    ]
    if not kept:
        return "", TOP, _all_left_out(figure)
    x, y, axes = _axes(
        figure, [edge for a, b, _ in kept for edge in (a, b)], [0.0, max(count for *_, count in kept) or 1.0]
    )
    boxes = [
        f'<rect class="mark" x="{x(a):.1f}" y="{y(count):.1f}" '
        f'width="{max(0.0, x(b) - x(a) - 1):.1f}" height="{y(0) - y(count):.1f}"/>'
        for a, b, count in kept
    ]
    most = max(kept, key=lambda part: part[2])
    described = (
        f"{len(kept)} bins from {kept[0][0]:g} to {kept[-1][1]:g}; most, {most[2]:g}, in {most[0]:g} to {most[1]:g}"
    )
    return axes + "".join(boxes), _height(), described + _left_out(len(figure.y) - len(kept))


def _line(figure: Figure) -> tuple[str, float, str]:
    kept = _finite_points(figure)
    if not kept:
        return "", TOP, _all_left_out(figure)
    x, y, axes = _axes(figure, [a for a, _ in kept], [b for _, b in kept])
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in kept)
    # A line of one point cannot be seen, and few points are worth telling apart.
    dots = _dots(x, y, kept) if len(kept) <= MOST_DOTS_ON_A_LINE else ""
    return f'{axes}<polyline class="line" points="{path}"/>{dots}', _height(), _described(figure, kept)


def _points(figure: Figure) -> tuple[str, float, str]:
    kept = _finite_points(figure)
    if not kept:
        return "", TOP, _all_left_out(figure)
    x, y, axes = _axes(figure, [a for a, _ in kept], [b for _, b in kept])
    every = math.ceil(len(kept) / MOST_POINTS)
    shown = kept[::every]
    dots = _dots(x, y, shown)
    thinned = "" if every == 1 else f"; one in {every} is drawn"
    return axes + dots, _height(), _described(figure, kept) + thinned


def _dots(x: Scale, y: Scale, points: Sequence[tuple[float, float]]) -> str:
    return "".join(f'<circle class="point" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.2"/>' for a, b in points)


def _bars(figure: Figure) -> tuple[str, float, str]:
    """Horizontal, so that labels of any length can be read on a phone; each ends in its value."""
    rows = [(label, value) for label, value in zip(figure.labels, figure.y, strict=True) if math.isfinite(value)]
    if not rows:
        return "", TOP, _all_left_out(figure)
    shown = rows[:MOST_BARS]
    values = [value for _, value in shown]
    left = CHARACTER * min(LABEL_CHARACTERS, max(len(label) for label, _ in shown)) + 10
    room = CHARACTER * max(len(_number(value)) for value in values) + 6
    low, high = min(0.0, *values), max(0.0, *values)
    x = Scale(low, high if high > low else low + 1, left + (room if low < 0 else 0), WIDTH - room)
    parts: list[str] = []
    for index, (label, value) in enumerate(shown):
        top = TOP + index * BAR_PITCH
        start, end = min(x(0), x(value)), max(x(0), x(value))
        where, anchor = (end + 4, "start") if value >= 0 else (start - 4, "end")
        parts += [
            _text(left - 6, top + 11, _cut(label), anchor="end"),
            f'<rect class="mark" x="{start:.1f}" y="{top:.1f}" width="{end - start:.1f}" height="{BAR_HEIGHT:g}"/>',
            _text(where, top + 11, _number(value), anchor=anchor),
        ]
    height = TOP + len(shown) * BAR_PITCH + 4
    parts.append(_segment("axis", x(0), TOP - 4, x(0), height - 6))
    parts.append(_text(0, 11, _axis_title(figure), css="label"))
    described = "; ".join(f"{label}: {_number(value)}" for label, value in shown)
    more = f"; {len(rows) - len(shown)} more are not drawn" if len(rows) > len(shown) else ""
    return "".join(parts), height, described + more + _left_out(len(figure.y) - len(rows))


def _axes(figure: Figure, xs: Sequence[float], ys: Sequence[float]) -> tuple[Scale, Scale, str]:
    """Both scales, and the axes with ticks, grid lines and labels as SVG."""
    x_low, x_high = _span(xs)
    y_ticks = _covering_ticks(*_span(ys))
    y_labels = tick_labels(y_ticks)
    left = CHARACTER * max(map(len, y_labels)) + 8
    x_ticks = nice_ticks(x_low, x_high)
    x_labels = tick_labels(x_ticks)
    right = WIDTH - max(RIGHT, CHARACTER * len(x_labels[-1]) / 2)
    x = Scale(x_low, x_high, left, right)
    y = Scale(y_ticks[0], y_ticks[-1], TOP + PLOT_HEIGHT, TOP)
    parts = [_text(0, 11, figure.y_label, css="label")]
    for tick, label in zip(y_ticks, y_labels, strict=True):
        parts.append(_segment("grid", left, y(tick), right, y(tick)))
        parts.append(_text(left - 5, y(tick) + 4, label, anchor="end"))
    for tick, label in zip(x_ticks, x_labels, strict=True):
        parts.append(_segment("axis", x(tick), y.start, x(tick), y.start + 4))
        parts.append(_text(x(tick), y.start + 16, label, anchor="middle"))
    parts.append(_segment("axis", left, y.start, right, y.start))
    parts.append(_text(right, y.start + 31, figure.x_label, anchor="end", css="label"))
    return x, y, "".join(parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return low - max(0.5, 0.1 * abs(low)), high + max(0.5, 0.1 * abs(high))


def _covering_ticks(low: float, high: float) -> list[float]:
    """Nice ticks, the first at or below low and the last at or above high, so that the extremes can be read off."""
    ticks = nice_ticks(low, high)
    if len(ticks) < 2:
        return [low, high]
    step = ticks[1] - ticks[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _height() -> float:
    return TOP + PLOT_HEIGHT + BOTTOM


def _finite_points(figure: Figure) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(figure.x, figure.y, strict=True) if math.isfinite(a) and math.isfinite(b)]


def _described(figure: Figure, kept: Sequence[tuple[float, float]]) -> str:
    (x_low, x_high), (y_low, y_high) = ((min(part), max(part)) for part in zip(*kept, strict=True))
    return (
        f"{len(kept)} points; {figure.x_label} from {x_low:g} to {x_high:g}, {figure.y_label} from {y_low:g} to "
        f"{y_high:g}{_left_out(len(figure.y) - len(kept))}"
    )


def _left_out(count: int) -> str:
    return f"; {count} values that are not finite are left out" if count else ""


def _all_left_out(figure: Figure) -> str:
    return f"nothing to draw: none of {len(figure.y)} values is finite"


def _axis_title(figure: Figure) -> str:
    return f"{figure.y_label} · {figure.x_label}" if figure.x_label else figure.y_label


def _number(value: float) -> str:
    return (f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.3g}").replace("-", "−")


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "…"


def _text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "tick") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(content)}</text>'


def _segment(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
