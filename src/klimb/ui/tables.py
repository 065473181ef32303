"""A table as Markdown, CSV or LaTeX; every text in it is escaped for its format.

The tables of a study: scores of every arm, and every comparison.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from klimb.findings.statistics import Interval
from klimb.findings.statistics.pairing import level_of_look
from klimb.findings.study.analysis import MAIN, ArmSummary, StudyStatistics, ordered
from klimb.findings.study.comparing import Comparison, Family
from klimb.findings.study.scores import StudyScores
from klimb.findings.study.thresholds import THRESHOLDS
from klimb.findings.study.verdicts import (
    MINUS,
    UNKNOWN,
    Units,
    against_text,
    counted,
    decision_text,
    left_out_texts,
    look_text,
    needed_short,
    p_number,
    share_text,
    units_of,
)
from klimb.ui.text import printable

Cell = str | float | int
"""What a table holds: texts, and for CSV numbers in full."""


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


LONG = 500


LONG_NOTE = 5000


@dataclass(frozen=True)
class StudyTable:
    """A table for people (`rows`) and for programs (`full_rows`, `full_columns`), of the same things.

    `num_texts` columns on the left are texts; the others are numbers and are set to the right.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    full_columns: tuple[str, ...]
    full_rows: tuple[tuple[Cell, ...], ...]
    num_texts: int = 1
    note: str = ""


def as_markdown(table: StudyTable) -> str:
    """Return the table with its title above and its note below."""
    marks = [":--" if at < table.num_texts else "--:" for at in range(len(table.columns))]
    lines = [_markdown_row(table.columns), _markdown_row(marks, is_text=False), *map(_markdown_row, table.rows)]
    note = f"\n{_markdown(table.note, limit=LONG_NOTE)}\n" if table.note else ""
    return f"**{_markdown(table.title)}**\n\n" + "\n".join(lines) + "\n" + note


def as_csv(table: StudyTable) -> str:
    """All digits; a number that is not known is an empty cell. A text that a spreadsheet would run begins with '."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerows([table.full_columns, *([_csv_cell(cell) for cell in row] for row in table.full_rows)])
    return target.getvalue()


def as_latex(table: StudyTable) -> str:
    """Return a `table` environment for the package booktabs."""
    marks = "l" * table.num_texts + "r" * (len(table.columns) - table.num_texts)
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (table.columns, *table.rows)]
    caption = latex_text(f"{table.title}. {table.note}".strip(), limit=LONG_NOTE)
    body = "\n".join(["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule"])
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{caption}}}\n\\begin{{tabular}}{{{marks}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def latex_text(text: str, *, limit: int = LONG) -> str:
    r"""Return the text as LaTeX that prints it.

    >>> latex_text("a_b & 5 %")
    'a\\_b \\& 5 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in printable(text, limit=limit))


def slug(name: str) -> str:
    """Return a file name's part: letters, digits and dots of the name, anything else a hyphen."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "unnamed"


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # At the start of a row they would belong to the line break before.
    "[": "{[}",
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
    UNKNOWN: "--",
}


def _markdown_row(cells: Sequence[str], *, is_text: bool = True) -> str:
    return "| " + " | ".join(_markdown(cell) if is_text else cell for cell in cells) + " |"


def _markdown(text: str, *, limit: int = LONG) -> str:
    """One line in which no character marks anything up: not a table's bar, not HTML, not emphasis or a link."""
    shown = printable(text, limit=limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Brackets stay readable: `[1, 2]` is a link only before a bracket, a parenthesis or a colon.
    return re.sub(r"\](?=[\[(:])", r"\\]", re.sub(r"([\\`*_|~])", r"\\\1", shown))


def _csv_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        shown = printable(cell, limit=LONG)
        return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown
    return "" if not math.isfinite(cell) else repr(cell)


SPREAD_TITLES = ("sd of seeds", "largest loss", "runs")


SPREAD_COLUMNS = ("seed_sd", "largest_drop", "num_runs", "num_lost")


MOST_NAMED = 12
"""Methods or comparisons that a note names."""


def study_tables(statistics: StudyStatistics) -> tuple[StudyTable, ...]:
    """Return the main table, the comparisons, each task alone, the other measures' comparisons."""
    units = units_of(statistics.scores)
    scores = statistics.scores
    leader = [comparison_table(statistics.leader, scores, name="leader")] if statistics.leader else []
    return (
        main_table(statistics, units),
        *(task_table(statistics, task, units) for task in statistics.scores.tasks),
        comparison_table(statistics.main, scores, name="comparisons"),
        *leader,
        *(
            comparison_table(family, scores, name=f"comparisons-{slug(task)}")
            for task, family in statistics.by_task.items()
        ),
        *(
            comparison_table(
                family, scores, name=f"comparisons-{slug(key)}", more_is_better=statistics.measures[key].more_is_better
            )
            for key, family in statistics.others.items()
        ),
    )


def main_table(statistics: StudyStatistics, units: Units) -> StudyTable:
    """Every arm, the highest last score first: its measures over all tasks, spread, losses and runs."""
    tasks = statistics.scores.tasks
    over = f"over {len(tasks)} tasks" if len(tasks) > 1 else f"on {' '.join(tasks)}"
    return _score_table(
        statistics,
        units,
        name="main",
        title=f"Interquartile means {over}, {units.name}, with 95 % intervals over runs",
        task="",
    )


def task_table(statistics: StudyStatistics, task: str, units: Units) -> StudyTable:
    """Return the same on one task."""
    return _score_table(
        statistics,
        units,
        name=f"task-{slug(task)}",
        title=f"Interquartile means on {task}, {units.name}, with 95 % intervals over runs",
        task=task,
    )


COMPARISON_TITLES = (
    *("method", "against", "verdict"),
    *("difference [95 %]", "p, corrected", "P(improvement)", "what would tell"),
)


COMPARISON_COLUMNS = (
    *("method", "setting", "against_method", "against_setting", "measure"),
    *("difference", "low", "high"),
    *("p", "p_corrected", "p_sign_flip"),
    *("improvement", "improvement_low", "improvement_high", "pairs_by_task", "verdict", "more_seeds_needed"),
    *("if_difference_is_at_least", "why_no_interval", "left_out"),
)


def comparison_table(family: Family, scores: StudyScores, *, name: str, more_is_better: bool = True) -> StudyTable:
    """Every comparison of a family."""
    units = units_of(scores)
    found = family.comparisons
    decisions = [decision_text(one, more_is_better=more_is_better) for one in found]
    return StudyTable(
        name=name,
        title=f"Paired differences: {family.title}{f', {units.of_differences.strip()}' if units.is_percent else ''}",
        columns=COMPARISON_TITLES,
        rows=tuple(_comparison_texts(one, decision, units) for one, decision in zip(found, decisions, strict=True)),
        full_columns=COMPARISON_COLUMNS,
        full_rows=tuple(_comparison_cells(one, decision) for one, decision in zip(found, decisions, strict=True)),
        num_texts=3,
        note=comparison_note(family, scores),
    )


def comparison_note(family: Family, scores: StudyScores) -> str:
    """Return how p is corrected, what has no test or interval and why, and what the differences do not hold."""
    found = family.comparisons
    cost = f"{THRESHOLDS.alpha / level_of_look(1, alpha=THRESHOLDS.alpha):.3g}"
    looks = look_text(scores) or f"p is multiplied by {cost} at this first look, which leaves a share for further ones"
    untested = dict.fromkeys(one.difference.reason for one in found if one.difference.reason)
    unknown = dict.fromkeys(one.improvement.reason for one in found if one.improvement.reason)
    left_out = left_out_texts(found)
    more = [f"and {len(left_out) - MOST_NAMED} more"] if len(left_out) > MOST_NAMED else []
    sentences = [
        f"Holm's correction over {counted(family.num_corrected, 'comparison')}",
        looks,
        *(f"No interval of a difference: {reason}" for reason in untested),
        *(f"No interval of P(improvement): {reason}" for reason in unknown),
        *([f"Not in the differences: {'; '.join([*left_out[:MOST_NAMED], *more])}"] if left_out else []),
    ]
    return " ".join(f"{sentence}." for sentence in sentences)


def _comparison_texts(one: Comparison, decision: str, units: Units) -> tuple[str, ...]:
    """Return a comparison's row for people, under `COMPARISON_TITLES`."""
    return (
        *(one.question.arm.name, against_text(one.question), decision),
        *(units.differences(one.difference), p_number(one.p_adjusted), share_text(one.improvement), needed_short(one)),
    )


def _comparison_cells(one: Comparison, decision: str) -> tuple[Cell, ...]:
    """Return a comparison's row for programs, under `COMPARISON_COLUMNS`."""
    return (
        *(one.question.arm.method, one.question.arm.setting),
        *(one.question.against.method, one.question.against.setting),
        one.measure,
        *_ends(one.difference),
        *(one.p_value, one.p_adjusted, one.p_sign_flip),
        *_ends(one.improvement),
        *(" ".join(map(str, one.num_pairs)), decision),
        math.nan if one.needed.more is None else one.needed.more,
        math.nan if one.needed.more is None else one.needed.at_least,
        one.difference.reason,
        "; ".join(one.left_out),
    )


def _score_table(statistics: StudyStatistics, units: Units, *, name: str, title: str, task: str) -> StudyTable:
    """Return the scores on a task, or over all of them without one, with spread and counts."""
    measures = statistics.measures
    shown = [key for key in measures if key != "drop"]
    found = ordered(statistics.arms, task=task)
    has_spread = not task
    return StudyTable(
        name=name,
        title=title,
        columns=("method", *(measures[key].title for key in shown), *(SPREAD_TITLES if has_spread else ())),
        rows=tuple(
            (
                named(summary, task),
                *(units.scores(summary.on(task)[key]) for key in shown),
                *(_spread_texts(summary, units) if has_spread else ()),
            )
            for summary in found
        ),
        full_columns=(
            *("method", "setting", "not_ranked"),
            *(f"{key}{end}" for key in measures for end in ("", "_low", "_high")),
            *("why_no_interval", "answers_not_scored", "problems_not_scored"),
            *(SPREAD_COLUMNS if has_spread else ()),
        ),
        full_rows=tuple(
            (
                *(summary.arm.method, summary.arm.setting, summary.not_ranked.get(task, "")),
                *(end for key in measures for end in _ends(summary.on(task)[key])),
                *(summary.on(task)[MAIN].reason, summary.num_errors, summary.num_unscored),
                *(_spread(summary) if has_spread else ()),
            )
            for summary in found
        ),
        note=score_note(statistics, task),
    )


def named(summary: ArmSummary, task: str = "") -> str:
    """Return the method's name, and why it is not ranked: `b (not ranked: 4 of 12 runs lost)`."""
    why = summary.not_ranked.get(task)
    return f"{summary.arm.name} (not ranked: {why})" if why else summary.arm.name


def score_note(statistics: StudyStatistics, task: str = "") -> str:
    """Return what the measures are, who is not ranked, what could not be scored, and why an interval is missing."""
    measures = [measure for key, measure in statistics.measures.items() if key != "drop"]
    meanings = "; ".join(f"{measure.title}: {measure.meaning}" for measure in measures)
    return " ".join([f"{meanings}.", *score_note_sentences(statistics, task)])


def score_note_sentences(statistics: StudyStatistics, task: str = "") -> list[str]:
    """Return the sentences of a table of scores beyond the meaning of its measures."""
    reasons = dict.fromkeys(one.on(task)[MAIN].reason for one in statistics.arms if one.on(task)[MAIN].reason)
    unranked = [one for one in statistics.arms if task in one.not_ranked]
    of_all = "Every method lost runs that another finished: there is no ranking"
    of_some = "Below the ranked ones stand methods that lack runs which others finished"
    ranks = [of_all if len(unranked) == len(statistics.arms) else of_some] if unranked else []
    failed = [one for one in statistics.arms if one.num_errors or one.num_unscored]
    counts = "; ".join(
        f"{one.arm.name} {counted(one.num_errors, 'answer')}, {counted(one.num_unscored, 'problem')}"
        for one in failed[:MOST_NAMED]
    )
    more = f"; and {len(failed) - MOST_NAMED} more methods" if len(failed) > MOST_NAMED else ""
    sentences = [
        *ranks,
        *(f"No interval: {reason}" for reason in reasons),
        *([f"Not scored in the last evaluations, over all tasks: {counts}{more}"] if failed else []),
    ]
    return [f"{sentence}." for sentence in sentences]


def _spread(summary: ArmSummary) -> tuple[float | int, ...]:
    return summary.seed_sd, summary.largest_drop, summary.num_runs, summary.num_lost


def _spread_texts(summary: ArmSummary, units: Units) -> tuple[str, ...]:
    all_runs = summary.num_runs + summary.num_lost
    runs = f"{summary.num_runs} of {all_runs}" if summary.num_lost else f"{summary.num_runs}"
    return units.score(summary.seed_sd), units.score(summary.largest_drop), runs


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
