"""The curves of a study's page: a chart for each method, its baseline beside it in grey.

Tables of a study with a picture of each row's interval.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from klimb.findings.statistics import Array, Interval
from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.comparing import Decision, Family
from klimb.findings.study.scores import Arm
from klimb.findings.study.verdicts import Units, units_of
from klimb.ui.chart import Chart
from klimb.ui.chart import Curve as Line
from klimb.ui.svg import classes, strips
from klimb.ui.tables import StudyTable

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
    """Return a chart's title names its method, so that the setting alone tells its own lines apart."""
    return arm.setting if is_own and len(statistics.scores.settings) > 1 else arm.name


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


DECISION_CLASSES: dict[Decision, str] = {"higher": "c0", "lower": "c1", "open": "c6 hollow", "untested": "c6 hollow"}


def table(
    made: StudyTable, *, pictures: Sequence[str] = (), marked: Sequence[bool] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return heads and rows; a picture of each row's interval stands after its texts, `marked` rows are set off."""
    at = made.num_texts
    rows = [
        {
            "name": row[0],
            "texts": row[1:at],
            "picture": pictures[index] if pictures else None,
            "numbers": row[at:],
            "is_marked": bool(marked) and marked[index],
        }
        for index, row in enumerate(made.rows)
    ]
    texts = [*made.columns[:at], *(["interval"] if pictures else [])]
    return {"title": made.title, "notes": notes, "texts": texts, "numbers": made.columns[at:], "rows": rows}


def scores_table(made: StudyTable, statistics: StudyStatistics) -> dict[str, Any]:
    """Return the main table with the interval of the last score, the baseline's rows marked."""
    summaries = {summary.arm: summary for summary in statistics.arms}
    arms = [Arm(str(row[0]), str(row[1])) for row in made.full_rows]
    pictures = strips(
        [summaries[arm].scores[MAIN] for arm in arms], css=[classes(setting_colour(statistics, arm)) for arm in arms]
    )
    marked = [arm.method == statistics.scores.baseline for arm in arms]
    return table(made, pictures=pictures, marked=marked, notes=[f"{made.title}. The picture shows the last score."])


def comparisons_table(made: StudyTable, family: Family) -> dict[str, Any] | None:
    """Return the comparisons with their intervals around zero; None without any."""
    if not family.comparisons:
        return None
    intervals: list[Interval] = [one.difference for one in family.comparisons]
    pictures = strips(intervals, css=[DECISION_CLASSES[one.decision] for one in family.comparisons], has_zero=True)
    note = (
        "Hollow: not distinguishable. The intervals are not corrected for the number of comparisons; the verdicts are."
    )
    return table(made, pictures=pictures, notes=[f"{made.title}. {made.note} {note}"])
