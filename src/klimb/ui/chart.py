"""What a chart shows, apart from how it is drawn: curves, bars, a histogram or intervals, and the same in words.

Long curves are made short enough for a page here, without losing their spikes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

NUM_COLOURS = 8
"""Series colours that the style sheet defines: classes `c0` to `c7`, as `--c0` to `--c7`."""


MOST_BARS = 40


Mark = Literal["line", "points"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart, or one cloud of points.

    Attributes:
        label: in the legend.
        x: in ascending order, unless it is a cloud.
        y: one value for each x.
        low: lower end of a band around y, or empty.
        high: upper end.
        raw_x: of what y is a smoothed version of; drawn faintly.
        raw_y: its values.
        colour: number of the colour.
        dash: number of the pattern; 0 is solid.
        mark: how its points are drawn.
        sizes: of points: what the area of each stands for, written into it; or empty.
        largest: size of the largest circle, where several clouds share a scale.
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
    mark: Mark = "line"
    sizes: Sequence[float] = ()
    largest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Horizontal bars, each with its name before it and its value behind it."""

    labels: Sequence[str]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of n bins between n + 1 edges."""

    edges: Sequence[float]
    counts: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """A value with its 95 % interval; its ends are nan where they are not known.

    Attributes:
        label: what has this value.
        value: nan where there is none.
        low: lower end.
        high: upper end.
        colour: number of the colour.
        is_hollow: drawn as a circle: the question is open.
        note: said behind the row.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    colour: int = 0
    is_hollow: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Values with their intervals, one a row, all on one scale: pictures in a table, or a forest plot.

    Attributes:
        title: what is shown.
        axis: of the scale.
        rows: from the top to the bottom.
        has_zero: the scale includes zero and marks it.
    """

    title: str
    axis: str
    rows: tuple[IntervalRow, ...]
    has_zero: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture: curves over an axis, or bars, or a histogram.

    Attributes:
        title: what is shown.
        unit: of the vertical axis, or of the bars.
        axis: of the horizontal axis.
        curves: lines and clouds of points; those without a point are left out.
        bars: drawn instead of curves.
        histogram: likewise.
        floor: a value that the vertical axis includes.
        ceiling: another.
        is_logarithmic: the vertical axis shows powers of ten; values that are not positive are left out.
        note: a sentence below.
        metrics: names of the logged numbers in it.

    Raises:
        ValueError: lengths do not fit.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...] = ()
    bars: Bars | None = None
    histogram: Histogram | None = None
    axis: str = "step"
    floor: float | None = None
    ceiling: float | None = None
    is_logarithmic: bool = False
    note: str = ""
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for curve in self.curves:
            if len(curve.x) != len(curve.y):
                raise ValueError(
                    f"chart {self.title!r}: {len(curve.y)} values of y need as many of x, got {len(curve.x)}"
                )
        bins = self.histogram
        if bins is not None and bins.counts and len(bins.edges) != len(bins.counts) + 1:
            raise ValueError(
                f"chart {self.title!r}: {len(bins.counts)} bins need {len(bins.counts) + 1} edges, "
                f"got {len(bins.edges)}"
            )
        if self.bars is not None and len(self.bars.labels) != len(self.bars.values):
            raise ValueError(
                f"chart {self.title!r}: {len(self.bars.values)} bars need as many labels, got {self.bars.labels}"
            )


def drawable(chart: Chart) -> Chart:
    """Return the chart with the finite values alone (of a logarithmic one: the positive ones), and no empty curve."""
    curves = (_shown(curve, is_positive=chart.is_logarithmic) for curve in chart.curves)
    return replace(
        chart,
        curves=tuple(curve for curve in curves if curve.y),
        bars=None if chart.bars is None else _finite_bars(chart.bars),
    )


def kept_bins(histogram: Histogram) -> list[tuple[float, float, float]]:
    """Return lower edge, upper edge and count of each bin whose numbers are finite."""
    bins = zip(pairwise(histogram.edges), histogram.counts, strict=True) if histogram.counts else ()
    return [(a, b, count) for (a, b), count in bins if all(map(math.isfinite, (a, b, count)))]


def described(chart: Chart) -> str:
    """`KL(π‖ref): from 0 to 0.034, last 0.031, over 24 points`, for every line; the same for bars and bins."""
    values = _all_values(chart)
    num_lost = sum(not math.isfinite(value) for value in values)
    if values and num_lost == len(values):
        return f"nothing to draw: none of {len(values)} values is finite"
    kept = drawable(chart)
    parts = [_curve_text(chart, curve) for curve in kept.curves]
    if kept.bars is not None:
        parts += [f"{label}: {number_text(value)}" for label, value in _first_bars(kept.bars)]
        num_more = len(kept.bars.values) - MOST_BARS
        parts += [f"{num_more} more are not drawn"] if num_more > 0 else []
    if kept.histogram is not None:
        parts += _histogram_text(kept.histogram)
    lost = [f"{num_lost} values that are not finite are left out"] if num_lost else []
    return "; ".join([*parts, *lost]) or "nothing to draw"


def number_text(value: float) -> str:
    """`1,234` for a whole number, else three digits."""
    return (f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.3g}").replace("-", "−")


def _all_values(chart: Chart) -> list[float]:
    curves = [value for curve in chart.curves for value in curve.y]
    bars = list(chart.bars.values) if chart.bars else []
    return curves + bars + (list(chart.histogram.counts) if chart.histogram else [])


def _curve_text(chart: Chart, curve: Curve) -> str:
    count = f"{len(curve.y)} point{'s' if len(curve.y) != 1 else ''}"
    if curve.mark == "line":
        return f"{curve.label}: from {min(curve.y):.3g} to {max(curve.y):.3g}, last {curve.y[-1]:.3g}, over {count}"
    if curve.sizes:
        places = zip(curve.x, curve.y, curve.sizes, strict=True)
        return f"{curve.label}: " + ", ".join(f"{size:g} at {x:g} and {y:g}" for x, y, size in places)
    return (
        f"{curve.label}: {count}; {chart.axis} from {min(curve.x):.3g} to {max(curve.x):.3g}, {chart.unit} from "
        f"{min(curve.y):.3g} to {max(curve.y):.3g}"
    )


def _histogram_text(histogram: Histogram) -> list[str]:
    bins = kept_bins(histogram)
    if not bins:
        return []
    low, high, most = max(bins, key=lambda part: part[2])
    return [f"{len(bins)} bins from {bins[0][0]:g} to {bins[-1][1]:g}", f"most, {most:g}, in {low:g} to {high:g}"]


def _first_bars(bars: Bars) -> list[tuple[str, float]]:
    return list(zip(bars.labels, bars.values, strict=True))[:MOST_BARS]


def _finite_bars(bars: Bars) -> Bars:
    rows = [(label, value) for label, value in zip(bars.labels, bars.values, strict=True) if math.isfinite(value)]
    return Bars(labels=[label for label, _ in rows], values=[value for _, value in rows])


def _shown(curve: Curve, *, is_positive: bool) -> Curve:
    """Return the curve without the points that cannot be drawn; a logarithmic axis shows no bands."""
    lowest = 0.0 if is_positive else -math.inf
    keep = [i for i, (a, b) in enumerate(zip(curve.x, curve.y, strict=True)) if _is_shown(a, b, lowest)]
    raw = [i for i, (a, b) in enumerate(zip(curve.raw_x, curve.raw_y, strict=True)) if _is_shown(a, b, lowest)]
    low, high = ((), ()) if is_positive else (curve.low, curve.high)
    return replace(
        curve,
        x=[curve.x[i] for i in keep],
        y=[curve.y[i] for i in keep],
        low=[low[i] for i in keep] if low else (),
        high=[high[i] for i in keep] if high else (),
        raw_x=[curve.raw_x[i] for i in raw],
        raw_y=[curve.raw_y[i] for i in raw],
        sizes=[curve.sizes[i] for i in keep] if curve.sizes else (),
    )


def _is_shown(x: float, y: float, lowest: float) -> bool:
    return math.isfinite(x) and math.isfinite(y) and y > lowest


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
