"""The charts of a study, for its page and its figures: a chart for each method, its baseline beside it in grey.

Scores and differences with their intervals.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from klimb.findings.statistics.runs import Array
from klimb.findings.study.analysis import MAIN, StudyStatistics, ordered
from klimb.findings.study.comparing import Comparison, Decision, Family
from klimb.findings.study.scores import Arm
from klimb.findings.study.verdicts import Units, against_text, p_text, units_of
from klimb.ui.chart import Chart, IntervalRow, Intervals
from klimb.ui.chart import Curve as Line
from klimb.ui.tables import named

GREY = 6


SETTING_COLOURS = (0, 1, 2, 3, 4, 5, 7)


def learning_charts(statistics: StudyStatistics, *, task: str) -> tuple[Chart, ...]:
    """Score on held-out problems of one task against the budget; all charts show the same range of scores."""
    units, scores = units_of(statistics.scores), statistics.scores
    curves = {curve.arm: curve for curve in statistics.curves if curve.task == task}
    axis = "generated tokens" if scores.budget_kind == "tokens" else "seconds of training"

    def line(arm: Arm, colour: int, dash: int, *, has_band: bool) -> Line | None:
        curve = curves.get(arm)
        if curve is None:
            return None
        name = _label(statistics, arm, is_own=has_band)
        return _line(name, curve.spent, curve.value, curve.low, curve.high, units, colour, dash, has_band=has_band)

    return _charts(statistics, line, unit=units.name, axis=axis)


def profile_charts(statistics: StudyStatistics) -> tuple[Chart, ...]:
    """Share of runs whose last score is above a threshold."""
    units = units_of(statistics.scores)
    by_arm = {summary.arm: summary.profile for summary in statistics.arms}

    def line(arm: Arm, colour: int, dash: int, *, has_band: bool) -> Line | None:
        found = by_arm.get(arm)
        if found is None:
            return None
        at, plain = found.thresholds * (100 if units.is_percent else 1), Units(is_percent=False)
        name = _label(statistics, arm, is_own=has_band)
        return _line(name, at, found.share, found.low, found.high, plain, colour, dash, has_band=has_band)

    return _charts(statistics, line, unit="share of runs above the score", axis=f"score, {units.name}")


def setting_colour(statistics: StudyStatistics, arm: Arm) -> int:
    """Return number of the colour that stands for the arm's setting throughout the page."""
    return SETTING_COLOURS[statistics.scores.settings.index(arm.setting) % len(SETTING_COLOURS)]


def _charts(
    statistics: StudyStatistics, line: Callable[..., Line | None], *, unit: str, axis: str
) -> tuple[Chart, ...]:
    by_method = {method: _present(_lines(statistics, method, line)) for method in statistics.scores.methods}
    drawn = [one for lines in by_method.values() for one in lines]
    ends = [value for one in drawn for part in (one.y, one.low, one.high) for value in part]
    return tuple(
        Chart(title=method, unit=unit, axis=axis, curves=tuple(lines), floor=min(ends), ceiling=max(ends))
        for method, lines in by_method.items()
        if lines
    )


def _label(statistics: StudyStatistics, arm: Arm, *, is_own: bool) -> str:
    """Return what tells the line apart: a chart's title names its method, so that its own lines need the setting."""
    name = arm.setting if is_own and len(statistics.scores.settings) > 1 else arm.name
    lost = next((one.not_ranked.get("", "") for one in statistics.arms if one.arm == arm), "")
    return f"{name}, {lost}" if lost else name


def _lines(statistics: StudyStatistics, method: str, line: Callable[..., Line | None]) -> Iterable[Line | None]:
    """Return the baseline first, so that the method's own lines lie over it."""
    scores = statistics.scores
    if method != scores.baseline:
        yield from (
            line(Arm(scores.baseline, name), GREY, at, has_band=False) for at, name in enumerate(scores.settings)
        )
    for at, name in enumerate(scores.settings):
        arm = Arm(method, name)
        yield line(arm, setting_colour(statistics, arm), at, has_band=True)


def _present(lines: Iterable[Line | None]) -> list[Line]:
    return [line for line in lines if line is not None and line.y]


def _line(
    label: str,
    x: Array,
    y: Array,
    low: Array,
    high: Array,
    units: Units,
    colour: int,
    dash: int,
    *,
    has_band: bool,
) -> Line:
    kept = np.isfinite(y)
    scale = 100 if units.is_percent else 1
    is_banded = has_band and bool(np.isfinite(low[kept]).all() and np.isfinite(high[kept]).all())
    return Line(
        label=label,
        x=x[kept].tolist(),
        y=(scale * y[kept]).tolist(),
        low=(scale * low[kept]).tolist() if is_banded else (),
        high=(scale * high[kept]).tolist() if is_banded else (),
        colour=colour,
        dash=dash,
    )


DECISION_COLOURS: dict[Decision, int] = {"higher": 0, "lower": 1, "open": GREY, "untested": GREY}


def score_intervals(statistics: StudyStatistics, *, key: str) -> Intervals:
    """Return the interquartile mean of each arm over tasks and seeds, in one measure; hollow ones are not ranked."""
    units = units_of(statistics.scores)
    scale = 100 if units.is_percent else 1
    rows = (
        IntervalRow(
            label=named(summary),
            value=scale * summary.scores[key].value,
            low=scale * summary.scores[key].low,
            high=scale * summary.scores[key].high,
            colour=setting_colour(statistics, summary.arm),
            is_hollow=not summary.is_ranked(),
        )
        for summary in ordered(statistics.arms)
        if math.isfinite(summary.scores[MAIN].value)
    )
    return Intervals(title=statistics.measures[key].title, axis=units.name, rows=tuple(rows))


def difference_intervals(statistics: StudyStatistics, family: Family) -> Intervals:
    """Return the paired differences around zero; hollow ones are not distinguishable from it."""
    units = units_of(statistics.scores)
    rows = tuple(_difference(one, 100 if units.is_percent else 1) for one in family.comparisons)
    axis = f"difference{units.of_differences and f',{units.of_differences}'}"
    return Intervals(title=family.title, axis=axis, rows=rows, has_zero=True)


def _difference(one: Comparison, scale: float) -> IntervalRow:
    return IntervalRow(
        label=f"{one.question.arm.name} − {against_text(one.question)}",
        value=scale * one.difference.value,
        low=scale * one.difference.low,
        high=scale * one.difference.high,
        colour=DECISION_COLOURS[one.decision],
        is_hollow=one.decision in ("open", "untested"),
        note=p_text(one.p_adjusted),
    )
