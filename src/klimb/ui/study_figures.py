"""The figures of a study for papers and slides: SVG and PNG, in colours that every eye tells apart."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from klimb.findings.study.analysis import MAIN, ArmSummary, Curve, StudyStatistics
from klimb.findings.study.comparing import Comparison
from klimb.findings.study.scores import Arm
from klimb.findings.study.verdicts import Units, against_text, p_text, units_of
from klimb.ui.figures import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION
from klimb.ui.tables import slug
from klimb.ui.text import printable

GREY = "#777777"


SETTING_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)


Dash = Literal["-", "--", "-.", ":"]


SETTING_DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")


PANEL_COLUMNS = 4


DECISION_MARKS = {"higher": (BLUE, "o"), "lower": (VERMILION, "s"), "open": (GREY, "o"), "untested": (GREY, "x")}


def write_figures(statistics: StudyStatistics, folder: Path) -> tuple[Path, ...]:
    """Write every figure of the study as `<name>.svg` and `<name>.png` into the folder; returns the SVGs."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, figure in study_figures(statistics).items():
        # Without date and random ids, so that the same numbers give the same file.
        with rc_context({"svg.hashsalt": "klimb"}):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=150)
        written.append(folder / f"{name}.svg")
    return tuple(written)


def study_figures(statistics: StudyStatistics) -> dict[str, Figure]:
    """Figure by file name: `scores`, `differences`, `profiles`, and `curves-<task>` of each task."""
    figures = {"scores": scores_figure(statistics)}
    if statistics.main.comparisons:
        figures["differences"] = differences_figure(statistics)
    if any(summary.profile is not None for summary in statistics.arms):
        figures["profiles"] = profiles_figure(statistics)
    for task in statistics.scores.tasks:
        if any(curve.task == task for curve in statistics.curves):
            figures[f"curves-{slug(task)}"] = curves_figure(statistics, task=task)
    return figures


def scores_figure(statistics: StudyStatistics) -> Figure:
    """Interquartile means of the last and the best score of every arm, with their intervals."""
    units, ranked = units_of(statistics.scores), statistics.ranked[::-1]
    figure, (left, right) = _figure(1, 2, height=1.3 + 0.27 * max(4, len(ranked)), share_y=True)
    for axes, key in ((left, MAIN), (right, "best")):
        for at, summary in enumerate(ranked):
            colour = _colour(statistics, summary.arm)
            _bar(axes, at, summary.scores[key].value, summary.scores[key].low, summary.scores[key].high, units, colour)
        axes.set_title(f"{statistics.measures[key].title}, {units.name}", fontsize=10, color=INK, loc="left")
        axes.grid(True, axis="x", color=FAINT, linewidth=0.6)
    _name_rows(left, [summary.arm.name for summary in ranked])
    figure.suptitle("Interquartile mean over tasks and seeds, 95 % stratified bootstrap intervals", **_TITLE)
    return figure


def differences_figure(statistics: StudyStatistics) -> Figure:
    """Paired differences of the last score: a forest plot."""
    units, found = units_of(statistics.scores), statistics.main.comparisons[::-1]
    figure, (axes,) = _figure(1, 1, height=1.3 + 0.27 * max(4, len(found)))
    for at, one in enumerate(found):
        colour, marker = DECISION_MARKS[one.decision]
        ends = one.difference
        _bar(axes, at, ends.value, ends.low, ends.high, units, colour, marker=marker, is_open=one.decision == "open")
        axes.text(1.01, at, p_text(one.p_adjusted), transform=axes.get_yaxis_transform(), va="center", **_SMALL)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(True, axis="x", color=FAINT, linewidth=0.6)
    axes.set_xlabel(f"difference{units.of_differences and f',{units.of_differences}'}", fontsize=9, color=INK)
    _name_rows(axes, [_pair_name(one) for one in found])
    title = "Paired differences when the budget is spent, 95 % intervals; p by Holm; hollow: not distinguishable"
    figure.suptitle(title, **_TITLE)
    return figure


def profiles_figure(statistics: StudyStatistics) -> Figure:
    """Share of runs above each score, a panel for each method, the baseline in grey."""
    units = units_of(statistics.scores)

    def draw(axes: Axes, summary: ArmSummary, colour: str, dash: str) -> None:
        if summary.profile is None:
            return
        at = _scaled(summary.profile.thresholds, units)
        if colour != GREY:
            axes.fill_between(at, summary.profile.low, summary.profile.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(at, summary.profile.share, dash, color=colour, linewidth=1.6)

    by_arm = {summary.arm: summary for summary in statistics.arms}
    figure = _panels(statistics, lambda axes, arm, colour, dash: draw(axes, by_arm[arm], colour, dash))
    figure.supxlabel(f"score when the budget is spent, {units.name}", fontsize=9, color=INK)
    figure.suptitle("Performance profiles: share of runs above a score, 95 % pointwise bands", **_TITLE)
    return figure


def curves_figure(statistics: StudyStatistics, *, task: str) -> Figure:
    """Score against the budget on one task, a panel for each method, the baseline in grey."""
    units = units_of(statistics.scores)
    by_arm = {curve.arm: curve for curve in statistics.curves if curve.task == task}

    def draw(axes: Axes, curve: Curve | None, colour: str, dash: str) -> None:
        if curve is None:
            return
        if colour != GREY and np.isfinite(curve.low).all():
            low, high = _scaled(curve.low, units), _scaled(curve.high, units)
            axes.fill_between(curve.spent, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve.spent, _scaled(curve.value, units), dash, color=colour, **_LINE)

    figure = _panels(statistics, lambda axes, arm, colour, dash: draw(axes, by_arm.get(arm), colour, dash))
    spent = "generated tokens" if statistics.scores.budget_kind == "tokens" else "seconds of training"
    figure.supxlabel(spent, fontsize=9, color=INK)
    title = f"{_label(task)}: score on held-out problems, {units.name}; interquartile mean over seeds, 95 % band"
    figure.suptitle(title, **_TITLE)
    return figure


_TITLE = {"fontsize": 11, "color": INK, "x": 0.01, "ha": "left", "weight": "bold"}


_SMALL = {"fontsize": 8, "color": INK}


_LINE = {"linewidth": 1.6, "marker": "o", "markersize": 2.5}


def _figure(rows: int, columns: int, *, height: float, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(11, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, sharey=share_y, squeeze=False).flat)
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=INK)
    return figure, grid


def _panels(statistics: StudyStatistics, draw: Callable[[Axes, Arm, str, str], None]) -> Figure:
    """One panel a method, all with the same axes: the baseline's arms faintly, then the method's own."""
    scores = statistics.scores
    rows = math.ceil(len(scores.methods) / PANEL_COLUMNS)
    columns = min(PANEL_COLUMNS, len(scores.methods))
    figure, grid = _figure(rows, columns, height=1.0 + 2.1 * rows)
    for axes, method in zip(grid, scores.methods, strict=False):
        own = [Arm(method, setting) for setting in scores.settings if Arm(method, setting) in scores.arms]
        for arm in own:
            baseline = Arm(scores.baseline, arm.setting)
            if method != scores.baseline and baseline in scores.arms:
                draw(axes, baseline, GREY, _dash(statistics, arm))
        for arm in own:
            draw(axes, arm, _colour(statistics, arm), _dash(statistics, arm))
        axes.set_title(_label(method), fontsize=9, color=INK, loc="left")
        axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    for axes in grid[len(scores.methods) :]:
        axes.set_visible(False)
    _share_limits(grid[: len(scores.methods)])
    figure.legend(handles=_legend(statistics), loc="outside lower left", ncols=6, fontsize=8, frameon=False)
    return figure


def _legend(statistics: StudyStatistics) -> list[Line2D]:
    """One for all panels: the settings of the panel's method, and the baseline."""
    own = [
        Line2D(
            [],
            [],
            color=_colour(statistics, arm),
            linestyle=_dash(statistics, arm),
            label=_label(arm.setting or "method"),
        )
        for arm in (Arm("", setting) for setting in statistics.scores.settings)
    ]
    return [*own, Line2D([], [], color=GREY, label=f"{_label(statistics.scores.baseline)} (baseline)")]


def _share_limits(grid: Sequence[Axes]) -> None:
    low, high = min(axes.get_ylim()[0] for axes in grid), max(axes.get_ylim()[1] for axes in grid)
    for axes in grid:
        axes.set_ylim(low, high)


def _bar(
    axes: Axes,
    at: int,
    value: float,
    low: float,
    high: float,
    units: Units,
    colour: str,
    *,
    marker: str = "o",
    is_open: bool = False,
) -> None:
    """Draw a point with its interval on row `at`; hollow where the question is open."""
    scale = 100 if units.is_percent else 1
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([scale * low, scale * high], [at, at], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot(
        [scale * value], [at], marker, color=colour, markersize=5.5, markerfacecolor="white" if is_open else colour
    )


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_label(name) for name in names], fontsize=8)
    axes.set_ylim(-0.7, len(names) - 0.3)


def _pair_name(one: Comparison) -> str:
    return f"{one.question.arm.name} − {against_text(one.question)}"


def _colour(statistics: StudyStatistics, arm: Arm) -> str:
    return SETTING_COLOURS[statistics.scores.settings.index(arm.setting) % len(SETTING_COLOURS)]


def _dash(statistics: StudyStatistics, arm: Arm) -> Dash:
    return SETTING_DASHES[statistics.scores.settings.index(arm.setting) % len(SETTING_DASHES)]


def _scaled(values: np.ndarray, units: Units) -> np.ndarray:
    return 100 * values if units.is_percent else values


def _label(text: str) -> str:
    """Plain text: matplotlib would set what stands between dollars as mathematics."""
    return printable(text, limit=60).replace("$", r"\$")
