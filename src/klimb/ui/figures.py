"""Charts as files: the curves of a run as one figure, and the charts of a report for papers and slides."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from klimb.ui.chart import Chart, Curve
from klimb.ui.grouping import Group
from klimb.ui.run_charts import charts_of

Row = Mapping[str, Any]


BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
"""Okabe and Ito's colours: told apart with every common colour blindness."""


INK, FAINT = "#222222", "#D8D8D8"


SMOOTHED_FROM = 60
"""Curves with at least this many points also show a moving average."""


@dataclass(frozen=True)
class Series:
    """One curve: the metric it shows, its name in the legend, colour and dash."""

    key: str
    label: str
    colour: str
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """One small plot. `floor` and `ceiling` are values the axis always includes."""

    title: str
    unit: str
    series: tuple[Series, ...]
    floor: float | None = None
    ceiling: float | None = None
    band: tuple[str, str] | None = None


PANELS: tuple[Panel, ...] = (
    Panel("Reward on training batches", "mean reward", (Series("reward_mean", "reward", BLUE),), 0.0),
    Panel(
        "Accuracy on held-out problems",
        "share correct",
        (
            Series("evaluation_mean", "sampled, with 95 % interval", BLUE),
            Series("evaluation_greedy", "greedy", ORANGE, "--"),
        ),
        0.0,
        1.0,
        ("evaluation_low", "evaluation_high"),
    ),
    Panel("Distance from the reference, KL(π‖ref)", "nats per token", (Series("kl_pi_ref", "KL(π‖ref)", BLUE),), 0.0),
    Panel("Entropy of the policy", "nats per token", (Series("entropy", "entropy", BLUE),), 0.0),
    Panel("Length of an answer", "tokens", (Series("length_mean", "mean", BLUE),), 0.0),
    Panel(
        "Effective sample size",
        "share of the samples",
        (
            Series("ess_token", "token", BLUE),
            Series("ess_normalised", "normalised", ORANGE, "--"),
            Series("ess_sequence", "sequence", GREEN, ":"),
        ),
        0.0,
        1.0,
    ),
    Panel(
        "Clipped tokens",
        "share of the tokens",
        (
            Series("clip_low_fraction", "low", BLUE),
            Series("clip_high_fraction", "high", ORANGE, "--"),
            Series("clip_ceiling_fraction", "ceiling", GREEN, ":"),
        ),
        0.0,
    ),
    Panel("Gradient norm before clipping", "norm", (Series("grad_norm", "norm", BLUE),), 0.0),
)


def plot_curves(rows: Iterable[Row], folder: Path, *, title: str) -> tuple[Path, Path]:
    """Write `curves.png` and `curves.svg` of these metric rows into the folder and return their paths."""
    figure = curves_figure(list(rows), title=title)
    png, svg = folder / "curves.png", folder / "curves.svg"
    figure.savefig(png, dpi=140)
    figure.savefig(svg)
    return png, svg


def curves_figure(rows: Sequence[Row], *, title: str) -> Figure:
    """Return the figure of `plot_curves`, not yet written. Metrics that no row has leave their panel saying so."""
    figure = Figure(figsize=(14, 6.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, color=INK, x=0.01, ha="left", weight="bold")
    for axes, panel in zip(figure.subplots(2, 4).flat, PANELS, strict=True):
        _draw_panel(axes, panel, rows)
    return figure


def points(rows: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of one metric, where it is a finite number."""
    found = [(row.get("step"), row.get(key)) for row in rows]
    numbers = [(float(x), float(y)) for x, y in found if _is_number(x) and _is_number(y)]
    return [x for x, _ in numbers], [y for _, y in numbers]


def moving_average(values: Sequence[float], *, window: int) -> list[float]:
    """Mean of each value and the ones before it, `window` at most."""
    return [
        math.fsum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    ]


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    axes.set_title(panel.title, fontsize=11, color=INK, loc="left")
    axes.set_ylabel(panel.unit, fontsize=9, color=INK)
    axes.set_xlabel("step", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if panel.band is not None:
        _draw_band(axes, panel.band, rows)
    drawn = [series for series in panel.series if _draw_series(axes, series, rows)]
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#777777", fontsize=9)
        axes.set_yticks([])
        axes.set_xticks([])
        return
    if len(panel.series) > 1:
        axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="best")
    _include_value(axes, panel)


def _draw_series(axes: Axes, series: Series, rows: Sequence[Row]) -> bool:
    steps, values = points(rows, series.key)
    if not steps:
        return False
    is_long = len(steps) >= SMOOTHED_FROM
    marker = "o" if len(steps) <= 3 else None
    shown = moving_average(values, window=len(values) // 20) if is_long else values
    if is_long:
        axes.plot(steps, values, color=series.colour, linewidth=0.7, alpha=0.3)
    axes.plot(steps, shown, series.style, color=series.colour, linewidth=1.8, label=series.label, marker=marker)
    return True


def _draw_band(axes: Axes, band: tuple[str, str], rows: Sequence[Row]) -> None:
    (steps, low), (_, high) = points(rows, band[0]), points(rows, band[1])
    if len(low) == len(high):
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0)


def _include_value(axes: Axes, panel: Panel) -> None:
    """Widen the axis to the panel's floor and ceiling, with a margin so that curves at them stay visible."""
    low, high = axes.get_ylim()
    floor = low if panel.floor is None else min(low, panel.floor)
    ceiling = high if panel.ceiling is None else max(high, panel.ceiling)
    margin = 0.03 * (ceiling - floor)
    low_end = floor - margin if panel.floor is not None else floor
    axes.set_ylim(low_end, ceiling + margin if panel.ceiling is not None else ceiling)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, "#56B4E9", "#6B6B6B", "#7A4FA3")
"""In the order of the page's own."""


DASHES = ("-", "--", ":", "-.")


MOST_DOTS = 25


DPI = 200


def write_figures(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write each chart as SVG and PNG, `learning-accuracy-on-held-out-problems.svg`; returns the paths."""
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
    """Return the chart, not yet written."""
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
        _draw_chart(axes, curve)
    _include(axes, chart)
    if len(chart.curves) > 1:
        axes.legend(fontsize=7.5, framealpha=0.85, edgecolor="none")
    return figure


def _draw_chart(axes: Axes, curve: Curve) -> None:
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
    """Let the axis show the chart's floor and ceiling, with a little room so that a curve on them stays visible."""
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
