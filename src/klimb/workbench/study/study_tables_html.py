"""Tables of a study as HTML, with a picture of each row's interval."""

from collections.abc import Sequence

from klimb.workbench.audit_escaping import escaped
from klimb.workbench.study.bars import bars
from klimb.workbench.study.comparing import Decision, Family
from klimb.workbench.study.resampling import Interval
from klimb.workbench.study.scores import Arm
from klimb.workbench.study.statistics import MAIN, StudyStatistics
from klimb.workbench.study.study_charts import setting_colour
from klimb.workbench.study.table_formats import StudyTable

DECISION_CLASSES: dict[Decision, str] = {"higher": "c0", "lower": "c1", "open": "c6 hollow", "untested": "c6 hollow"}


def table_html(
    table: StudyTable, *, pictures: Sequence[str] = (), heading: str = "", marked: Sequence[bool] = ()
) -> str:
    """The table; a picture of each row stands after its texts, `marked` rows have a background."""
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
    """The main table with the interval of the last score, the baseline's rows marked."""
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
    """The comparisons with their intervals around zero."""
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
