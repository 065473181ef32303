"""The charts of a report as files for papers and slides."""

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from klimb.workbench.plot import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION
from klimb.workbench.report.all_charts import charts_of
from klimb.workbench.report.charts import Chart, Curve
from klimb.workbench.report.grouping import Group

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, "#56B4E9", "#6B6B6B", "#7A4FA3")
"""In the order of the page's own."""
DASHES = ("-", "--", ":", "-.")
MOST_DOTS = 25
DPI = 200


def write_figures(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Writes each chart as SVG and PNG, `learning-accuracy-on-held-out-problems.svg`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for section, charts in charts_of(groups).items():
        for chart in charts:
            figure = chart_figure(chart)
            stem = folder / f"{section}-{_file_name(chart.title)}"
            for path in (stem.with_suffix(".svg"), stem.with_suffix(".png")):
                figure.savefig(path, dpi=DPI)
                written.append(path)
    return written


def chart_figure(chart: Chart) -> Figure:
    """The chart, not yet written."""
    figure = Figure(figsize=(4.2, 3.0), layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # Names of runs are anybody's text: a lone dollar sign must not begin a formula.
    axes.set_title(_literal(chart.title), fontsize=10, color=INK, loc="left")
    axes.set_ylabel(_literal(chart.unit), fontsize=9, color=INK)
    axes.set_xlabel(_literal(chart.axis), fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=INK)
    if chart.is_logarithmic:
        axes.set_yscale("log")
    for curve in chart.curves:
        _draw(axes, curve)
    _include(axes, chart)
    if len(chart.curves) > 1:
        axes.legend(fontsize=7.5, framealpha=0.85, edgecolor="none")
    return figure


def _draw(axes: Axes, curve: Curve) -> None:
    colour, style = COLOURS[curve.colour % len(COLOURS)], DASHES[curve.dash % len(DASHES)]
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    if curve.raw_y:
        axes.plot(curve.raw_x, curve.raw_y, color=colour, linewidth=0.6, alpha=0.3)
    marker = "o" if len(curve.y) <= MOST_DOTS else None
    axes.plot(
        curve.x, curve.y, style, color=colour, linewidth=1.6, marker=marker, markersize=3, label=_literal(curve.label)
    )


def _include(axes: Axes, chart: Chart) -> None:
    """The axis shows the chart's floor and ceiling, with a little room so that a curve on them stays visible."""
    if chart.is_logarithmic:
        return
    low, high = axes.get_ylim()
    low = low if chart.floor is None else min(low, chart.floor)
    high = high if chart.ceiling is None else max(high, chart.ceiling)
    axes.set_ylim(low, high + (0.02 * (high - low) if chart.ceiling is not None else 0.0))


def _literal(text: str) -> str:
    return text.replace("$", r"\$")


def _file_name(title: str) -> str:
    """Small letters, digits and hyphens: a metric's name may hold a slash."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "chart"
