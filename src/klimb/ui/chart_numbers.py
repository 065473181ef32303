"""The numbers of a chart as a short table, for readers without script, without sight of it, or in need of a value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from klimb.ui.chart import Chart, Curve, Histogram, drawable, kept_bins, spread

MOST_ROWS = 12


SLACK = 1 / 50
"""Of the axis: a curve without a point at a row's place is told by its nearest one within this distance."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Heads, rows of texts, and a line on what they leave out."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def numbers_of(chart: Chart) -> Numbers | None:
    """Return at most `MOST_ROWS` rows, evenly chosen, the first and the last included; None if there is nothing.

    Bars have none: each carries its number in the picture.
    """
    kept = drawable(chart)
    if kept.histogram is not None:
        return _of_bins(kept, kept.histogram)
    if not kept.curves:
        return None
    return _of_points(kept) if any(curve.mark == "points" for curve in kept.curves) else _of_lines(kept)


def cell_text(value: float) -> str:
    """Four digits, or all of a whole number; a dash for what is not finite.

    >>> [cell_text(value) for value in (0.123456, 12345.6, -3.0, math.nan)]
    ['0.1235', '12,346', '−3', '–']
    """
    if not math.isfinite(value):
        return "–"
    is_long = 1000 <= abs(value) < 1e9 or (value == round(value) and abs(value) < 1e9)
    return (f"{value:,.0f}" if is_long else f"{value:.4g}").replace("-", "−")


def _of_lines(kept: Chart) -> Numbers:
    """Give each curve a column, and each chosen place on the axis a row."""
    places = sorted({x for curve in kept.curves for x in curve.x})
    chosen = _evenly(places)
    slack = SLACK * (places[-1] - places[0])
    rows = ((cell_text(x), *(_at(curve, x, slack) for curve in kept.curves)) for x in chosen)
    is_smooth = any(len(curve.raw_y) for curve in kept.curves)
    notes = [_count(len(chosen), len(places), "points"), "moving averages" if is_smooth else ""]
    return Numbers(
        heads=(kept.axis, *(curve.label for curve in kept.curves)),
        rows=tuple(rows),
        note="; ".join(note for note in notes if note),
    )


def _evenly(places: Sequence[float]) -> list[float]:
    """Choose the places next to equal steps along the axis."""
    if len(places) <= MOST_ROWS:
        return list(places)
    low, step = places[0], (places[-1] - places[0]) / (MOST_ROWS - 1)
    return sorted({min(places, key=lambda x: abs(x - (low + at * step))) for at in range(MOST_ROWS)})


def _at(curve: Curve, x: float, slack: float) -> str:
    index = min(range(len(curve.x)), key=lambda at: abs(curve.x[at] - x))
    if abs(curve.x[index] - x) > slack:
        return "–"
    band = f" [{cell_text(curve.low[index])}, {cell_text(curve.high[index])}]" if curve.low else ""
    return f"{cell_text(curve.y[index])}{band}"


def _of_points(kept: Chart) -> Numbers:
    """Give each chosen point a row, with the name and the size that it has."""
    found = [
        (curve.label, *map(cell_text, (x, y)), *([cell_text(curve.sizes[at])] if curve.sizes else []))
        for curve in kept.curves
        for at, (x, y) in sorted(enumerate(zip(curve.x, curve.y, strict=True)), key=lambda point: point[1])
    ]
    has_sizes, chosen = any(curve.sizes for curve in kept.curves), spread(len(found), most=MOST_ROWS)
    heads = ("", kept.axis, kept.unit or "value", *(["number"] if has_sizes else []))
    rows = (found[index] + ("",) * (len(heads) - len(found[index])) for index in chosen)
    return Numbers(heads=heads, rows=tuple(rows), note=_count(len(chosen), len(found), "points"))


def _of_bins(kept: Chart, histogram: Histogram) -> Numbers | None:
    """Put neighbouring bins together where there are many: no count is left out."""
    bins = kept_bins(histogram)
    if not bins:
        return None
    size = math.ceil(len(bins) / MOST_ROWS)
    parts = [bins[at : at + size] for at in range(0, len(bins), size)]
    rows = ((cell_text(part[0][0]), cell_text(part[-1][1]), cell_text(sum(n for *_, n in part))) for part in parts)
    return Numbers(
        heads=(f"{kept.axis} from", "to", kept.unit or "count"),
        rows=tuple(rows),
        note=f"{size} bins of the picture in a row" if size > 1 else "",
    )


def _count(shown: int, total: int, what: str) -> str:
    return f"{shown} of {total:,} {what}" if shown < total else ""
