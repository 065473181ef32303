"""Charts as files: what pages draw as SVG, drawn by matplotlib as SVG and PNG for papers and slides."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from klimb.findings.run.record import RunRecord
from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.verdicts import units_of
from klimb.ui.chart import Bars, Chart, Curve, Histogram, Intervals, drawable
from klimb.ui.grouping import Group
from klimb.ui.run_charts import charts_of, overview_charts
from klimb.ui.study_charts import difference_intervals, learning_charts, profile_charts, score_intervals
from klimb.ui.svg import nice_ticks, padded, tick_labels, whole_ticks
from klimb.ui.tables import slug
from klimb.ui.text import printable

INK, FAINT, QUIET = "#222222", "#D8D8D8", "#777777"


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B", "#7A4FA3")
"""In the order of the page's own, most of them Okabe and Ito's: told apart with every common colour blindness."""


DASHES = ("-", "--", ":", "-.")


MOST_DOTS = 25
"""A curve of at most this many points shows each of them."""


MOST_COLUMNS = 4


LABEL_SIZE = 8.0


LINE_HEIGHT = 1.5 * LABEL_SIZE
"""Points that a line of the legend takes."""


def chart_figure(chart: Chart) -> Figure:
    """Return one chart, not yet written; a longer legend makes it higher."""
    width = 4.2
    figure = _figure(width, 2.8 + _legend_lines(chart, _room(width)) * LINE_HEIGHT / 72)
    draw_chart(figure.subplots(), chart, room=_room(width))
    return figure


def charts_figure(charts: Sequence[Chart], *, title: str, width: float, panel_height: float) -> Figure:
    """Return several charts side by side, not yet written; where all have the same range, they share its axis.

    Args:
        charts: in reading order.
        title: above them all.
        width: of the whole in inches.
        panel_height: of each chart without its legend.
    """
    columns = min(MOST_COLUMNS, len(charts))
    rows, room = math.ceil(len(charts) / columns), _room(width / columns)
    lines = max(_legend_lines(chart, room) for chart in charts)
    figure = _figure(width, 0.4 + rows * (panel_height + lines * LINE_HEIGHT / 72))
    is_shared = None not in (charts[0].floor, charts[0].ceiling) and len({(c.floor, c.ceiling) for c in charts}) == 1
    grid = list(figure.subplots(rows, columns, sharey=is_shared, squeeze=False).flat)
    for axes, chart in zip(grid, charts, strict=False):
        draw_chart(axes, chart, room=room)
    for at, axes in enumerate(grid):
        axes.set_visible(at < len(charts))
        if is_shared and at % columns:
            axes.set_ylabel("")
    _head(figure, title)
    return figure


def intervals_figure(parts: Sequence[Intervals], *, title: str) -> Figure:
    """Return forest plots of the same rows side by side, not yet written."""
    figure = _figure(11, 1.3 + 0.27 * max(4, len(parts[0].rows)))
    grid = list(figure.subplots(1, len(parts), sharey=True, squeeze=False).flat)
    for axes, part in zip(grid, parts, strict=True):
        _draw_intervals(axes, part)
        axes.set_title(_literal(part.title), fontsize=10, color=INK, loc="left")
    _head(figure, title)
    return figure


def draw_chart(axes: Axes, chart: Chart, *, room: float) -> None:
    """Draw the chart with its title, units and legend; `room` is how many points wide the legend may be."""
    kept = drawable(chart)
    _label(axes, kept, _legend_lines(kept, room))
    if kept.bars is not None:
        _draw_bars(axes, kept.bars)
    elif kept.histogram is not None:
        _draw_bins(axes, kept.histogram)
    elif kept.curves:
        _draw_curves(axes, kept, room)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET, fontsize=9)
        axes.set_yticks([])
        axes.set_xticks([])


def _label(axes: Axes, chart: Chart, num_lines: int) -> None:
    """Title, units and grid; the legend's lines fit between the title and the curves, so that it covers none."""
    axes.set_title(_literal(chart.title), fontsize=10, color=INK, loc="left", pad=6 + num_lines * LINE_HEIGHT)
    axes.set_ylabel(_literal(chart.unit), fontsize=9, color=INK)
    axes.set_xlabel(_literal(chart.axis), fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)


def _draw_curves(axes: Axes, chart: Chart, room: float) -> None:
    for curve in chart.curves:
        _draw_curve(axes, curve)
    if chart.is_logarithmic:
        axes.set_yscale("log")
    else:
        _include(axes, chart)
        _mark_ticks(axes)
    if len(chart.curves) > 1:
        axes.legend(
            **_PLAIN, fontsize=LABEL_SIZE, loc="lower left", bbox_to_anchor=(0, 1), ncols=_legend_columns(chart, room)
        )


_PLAIN = {
    "frameon": False,
    "borderaxespad": 0.2,
    "borderpad": 0,
    "labelspacing": 0.3,
    "columnspacing": 1,
    "handlelength": 1.6,
}


def _draw_curve(axes: Axes, curve: Curve) -> None:
    colour, style, label = COLOURS[curve.colour % len(COLOURS)], DASHES[curve.dash % len(DASHES)], _literal(curve.label)
    if curve.mark == "points":
        axes.scatter(curve.x, curve.y, s=[8 + 4 * size for size in curve.sizes] or 8, color=colour, label=label)
        return
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    if curve.raw_y:
        axes.plot(curve.raw_x, curve.raw_y, color=colour, linewidth=0.6, alpha=0.3)
    marker = "o" if len(curve.y) <= MOST_DOTS else None
    axes.plot(curve.x, curve.y, style, color=colour, linewidth=1.6, marker=marker, markersize=2.5, label=label)


def _draw_bars(axes: Axes, bars: Bars) -> None:
    places = range(len(bars.values))
    axes.barh(places, bars.values, color=COLOURS[0])
    axes.set_yticks(places, [_literal(label) for label in bars.labels])
    axes.invert_yaxis()


def _draw_bins(axes: Axes, histogram: Histogram) -> None:
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=COLOURS[0])


def _include(axes: Axes, chart: Chart) -> None:
    """Let the axis show the chart's floor and ceiling, with a little room so that a curve on them stays visible."""
    low, high = axes.get_ylim()
    low = low if chart.floor is None else min(chart.floor, axes.dataLim.y0)
    high = high if chart.ceiling is None else max(chart.ceiling, axes.dataLim.y1)
    low, high = padded(low, high)
    room = 0.03 * (high - low)
    # Charts that share an axis are drawn one after the other: its limits go on with what the next one adds.
    axes.set_ylim(low if chart.floor is None else low - room, high if chart.ceiling is None else high + room, auto=None)


def _mark_ticks(axes: Axes) -> None:
    """Put the ticks where pages have them, and write them as pages do."""
    for span, mark in ((axes.get_xlim(), axes.set_xticks), (axes.get_ylim(), axes.set_yticks)):
        ticks = whole_ticks(*span) if mark == axes.set_xticks else nice_ticks(*span)
        mark(ticks, tick_labels(ticks))


def _draw_intervals(axes: Axes, part: Intervals) -> None:
    """Draw the first row at the top; hollow where the question is open."""
    for at, row in enumerate(part.rows[::-1]):
        colour = COLOURS[row.colour % len(COLOURS)]
        if math.isfinite(row.low) and math.isfinite(row.high):
            axes.plot([row.low, row.high], [at, at], color=colour, linewidth=1.8, solid_capstyle="butt")
        face = "white" if row.is_hollow else colour
        axes.plot([row.value], [at], "o", color=colour, markersize=5.5, markerfacecolor=face)
        axes.text(
            1.01, at, _literal(row.note), transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=INK
        )
    if part.has_zero:
        axes.axvline(0, color=INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="x", color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=LABEL_SIZE, colors=INK)
    axes.set_xlabel(_literal(part.axis), fontsize=9, color=INK)
    axes.set_yticks(range(len(part.rows)), [_literal(row.label) for row in part.rows[::-1]], fontsize=8)
    axes.set_ylim(-0.7, len(part.rows) - 0.3)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def _head(figure: Figure, title: str) -> None:
    figure.suptitle(_literal(title, limit=200), fontsize=12, color=INK, x=0.01, ha="left", weight="bold", wrap=True)


def _room(width: float) -> float:
    """Points beside the labels of the vertical axis, in a chart so many inches wide."""
    return 72 * width - 50


def _legend_columns(chart: Chart, room: float) -> int:
    """As many as fit: a letter is about half as wide as it is high, and each name has a piece of its line."""
    widths = [(0.54 * len(_literal(curve.label)) + 3.2) * LABEL_SIZE for curve in chart.curves]
    return len(widths) if sum(widths) <= room else max(1, int(room / max(widths)))


def _legend_lines(chart: Chart, room: float) -> int:
    return math.ceil(len(chart.curves) / _legend_columns(chart, room)) if len(chart.curves) > 1 else 0


def _literal(text: str, *, limit: int = 60) -> str:
    """Make anybody's text short and printable; no dollar sign in it begins a formula."""
    return printable(text, limit=limit).replace("$", r"\$")


def plot_curves(record: RunRecord, *, title: str) -> tuple[Path, Path]:
    """Write `curves.png` and `curves.svg` into the run's folder and return their paths."""
    figure = charts_figure(overview_charts(record), title=title, width=14, panel_height=3.0)
    svg, png = _save(figure, record.folder / "curves", dpi=140)
    return png, svg


def write_figures(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write each chart as SVG and PNG, `learning-accuracy-on-held-out-problems.svg`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        path
        for section, charts in charts_of(groups).items()
        for chart in charts
        for path in _save(chart_figure(chart), folder / f"{section}-{_file_name(chart.title)}", dpi=200)
    ]


def write_study_figures(statistics: StudyStatistics, folder: Path) -> tuple[Path, ...]:
    """Write every figure of the study as `<name>.svg` and `<name>.png` into the folder; returns the SVGs."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_save(figure, folder / name, dpi=150)[0] for name, figure in study_figures(statistics).items())


def study_figures(statistics: StudyStatistics) -> dict[str, Figure]:
    """Figure by file name: `scores`, `differences`, `profiles`, and `curves-<task>` of each task."""
    units = units_of(statistics.scores)
    scores = [score_intervals(statistics, key=key) for key in (MAIN, "best")]
    title = "Interquartile mean over tasks and seeds, 95 % intervals over runs; hollow: not ranked, runs were lost"
    figures = {"scores": intervals_figure(scores, title=title)}
    if statistics.main.comparisons:
        title = "Paired differences when the budget is spent, 95 % intervals; p corrected; hollow: not distinguishable"
        figures["differences"] = intervals_figure([difference_intervals(statistics, statistics.main)], title=title)
    panels = {"profiles": (profile_charts(statistics), "Share of runs above a score, 95 % pointwise bands")}
    for task in statistics.scores.tasks:
        title = f"{task}: score on held-out problems, {units.name}; interquartile mean over seeds, 95 % band"
        panels[f"curves-{slug(task)}"] = (learning_charts(statistics, task=task), title)
    drawn = {
        name: charts_figure(charts, title=title, width=11, panel_height=2.2)
        for name, (charts, title) in panels.items()
        if charts
    }
    return figures | drawn


def _save(figure: Figure, stem: Path, *, dpi: int) -> tuple[Path, Path]:
    """Write the SVG and the PNG, without date and random ids: the same numbers give the same files."""
    svg, png = (stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png"))
    with rc_context({"svg.hashsalt": "klimb"}):
        figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=dpi)
    return svg, png


def _file_name(title: str) -> str:
    """Small letters, digits and hyphens: a metric's name may hold a slash."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "chart"
