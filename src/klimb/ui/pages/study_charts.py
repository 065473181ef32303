"""The curves of a study's page: a chart for each method, its baseline beside it in grey.

Tables of a study as HTML, with a picture of each row's interval.

A point with its interval as a small picture in a row of a table; all rows share one scale.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from klimb.findings.statistics import Array, Interval
from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.comparing import Decision, Family
from klimb.findings.study.scores import Arm
from klimb.findings.study.verdicts import Units, units_of
from klimb.ui.chart import Chart
from klimb.ui.chart import Curve as Line
from klimb.ui.escaping import escaped
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


def finite_range(values: Iterable[float]) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 1) without any."""
    found = [value for value in values if math.isfinite(value)]
    return (min(found), max(found)) if found else (0.0, 1.0)


WIDTH, HEIGHT, MARGIN = 140.0, 16.0, 6.0


def bars(intervals: Sequence[Interval], *, classes: Sequence[str], has_zero: bool = False) -> list[str]:
    """SVG of each interval, in order; empty where there is no value.

    Args:
        intervals: one for each row.
        classes: CSS classes of each row: its colour, `hollow` for a hollow point.
        has_zero: the scale includes zero and marks it.
    """
    ends = [end for one in intervals for end in (one.value, one.low, one.high)]
    low, high = finite_range([*ends, 0.0] if has_zero else ends)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return MARGIN + (value - low) / span * (WIDTH - 2 * MARGIN)

    zero = f'<line class="axis" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="0" y2="{HEIGHT:g}"/>' if has_zero else ""
    return [
        _bar(one, [place(end) for end in (one.value, one.low, one.high)], name, zero)
        for one, name in zip(intervals, classes, strict=True)
    ]


def _bar(interval: Interval, places: Sequence[float], css: str, zero: str) -> str:
    if not math.isfinite(interval.value):
        return ""
    at, low, high = places
    middle = HEIGHT / 2
    reach = f'<line class="line" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>'
    return (
        f'<svg class="bar {css}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" aria-hidden="true">{zero}'
        f'{reach if interval.is_known else ""}<circle class="dot" cx="{at:.1f}" cy="{middle:g}" r="4"/></svg>'
    )


DECISION_CLASSES: dict[Decision, str] = {"higher": "c0", "lower": "c1", "open": "c6 hollow", "untested": "c6 hollow"}


def table_html(
    table: StudyTable, *, pictures: Sequence[str] = (), heading: str = "", marked: Sequence[bool] = ()
) -> str:
    """Return the table; a picture of each row stands after its texts, `marked` rows have a background."""
    at = table.num_texts
    columns = [*table.columns[:at], *([heading] if pictures else []), *table.columns[at:]]
    heads = "".join(
        f'<th scope="col"{_css(index, at, bool(pictures))}>{escaped(name)}</th>' for index, name in enumerate(columns)
    )
    rows = "".join(
        _row(row, table.num_texts, pictures[index] if pictures else None, is_marked=bool(marked) and marked[index])
        for index, row in enumerate(table.rows)
    )
    return (
        f'<div class="scroll"><table class="study"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def scores_html(table: StudyTable, statistics: StudyStatistics) -> str:
    """Return the main table with the interval of the last score, the baseline's rows marked."""
    summaries = {summary.arm: summary for summary in statistics.arms}
    arms = [Arm(str(row[0]), str(row[1])) for row in table.full_rows]
    pictures = bars(
        [summaries[arm].scores[MAIN] for arm in arms],
        classes=[f"c{setting_colour(statistics, arm)}" for arm in arms],
    )
    marked = [arm.method == statistics.scores.baseline for arm in arms]
    notes = "".join(
        f"<dt>{escaped(measure.title)}</dt><dd>{escaped(measure.meaning)}</dd>"
        for measure in statistics.measures.values()
        if measure.title in table.columns
    )
    return (
        f'<p class="quiet small">{escaped(table.title)}. The picture shows the last score.</p>'
        f'{table_html(table, pictures=pictures, heading="interval", marked=marked)}<dl class="small">{notes}</dl>'
    )


def comparisons_html(table: StudyTable, family: Family) -> str:
    """Return the comparisons with their intervals around zero."""
    if not family.comparisons:
        return "<p>There is nothing to compare: one method under one setting, or no two that finished on all tasks.</p>"
    intervals: list[Interval] = [one.difference for one in family.comparisons]
    classes = [DECISION_CLASSES[one.decision] for one in family.comparisons]
    pictures = bars(intervals, classes=classes, has_zero=True)
    note = (
        "Hollow: not distinguishable. The intervals are not corrected for the number of comparisons; the verdicts are."
    )
    return (
        f'<p class="quiet small">{escaped(table.title)}. {escaped(table.note)} {escaped(note)}</p>'
        f"{table_html(table, pictures=pictures, heading='interval')}"
    )


def _css(index: int, num_texts: int, has_picture: bool) -> str:
    is_left = index < num_texts + has_picture
    return "" if is_left else ' class="number"'


def _row(row: Sequence[str], num_texts: int, picture: str | None, *, is_marked: bool) -> str:
    texts = [f'<th scope="row">{escaped(row[0])}</th>', *(f"<td>{escaped(cell)}</td>" for cell in row[1:num_texts])]
    numbers = [f'<td class="number">{escaped(cell)}</td>' for cell in row[num_texts:]]
    shown = [] if picture is None else [f"<td>{picture}</td>"]
    css = ' class="reference"' if is_marked else ""
    return f"<tr{css}>{''.join([*texts, *shown, *numbers])}</tr>"
