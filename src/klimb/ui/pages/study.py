"""A study as one page of HTML: what it says, the evidence, how it was made.

How the numbers of a study are made, for the reader of its page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.scores import Arm, RunResult
from klimb.findings.study.verdicts import budget_text, counted, units_of, verdicts
from klimb.ui.pages.frame import drawings, html_page, tooltip_script, values_of
from klimb.ui.study_charts import difference_intervals, learning_charts, profile_charts, score_intervals
from klimb.ui.svg import strips
from klimb.ui.tables import StudyTable, score_note_sentences, study_tables

EXPLANATIONS = (
    (
        "Last and best",
        "Last is the score at the moment when the budget is spent. A run goes on to the end of the step that spends "
        "it, further in methods with larger steps, so the score is read off the straight line between the evaluations "
        "before and after. The best one on the way was chosen by its own score and is optimistic: it needs a further "
        "set of problems to be believed. Every run is evaluated on the same held-out problems.",
    ),
    (
        "Interquartile mean",
        "The mean of the middle half of the runs of all tasks and seeds (Agarwal et al. 2021, arXiv 2108.13264), each "
        "run weighing one over the finished runs of its task. Its interval is Student's t with the variance of a "
        "trimmed mean, within each task (Tukey and McLaughlin 1963); it speaks of these held-out problems. Below "
        "three runs of one task there is none.",
    ),
    (
        "Differences",
        "Two methods are compared run by run of the same seed and problem by problem. The interval and p come from a "
        "t test that counts both as samples: the variance of the mean difference has a part for the seeds and one for "
        "the problems (two-way random effects, Satterthwaite's degrees of freedom). Tasks count equally.",
    ),
    (
        "Many comparisons",
        "Among twenty comparisons of equal methods one will look different at 5 % by chance. Holm's correction keeps "
        "the chance of any such mistake in a table below 5 %; a verdict rests on the corrected p. The highest of all "
        "was chosen by the data: it is corrected over all pairs of methods.",
    ),
    (
        "Many looks",
        "Whoever adds seeds until something tells finds something where nothing is. All analyses of a study at which "
        "further runs have finished share the 5 %: the first takes two thirds, each further one a third of the one "
        "before. The corrected p contains it, and the study's folder keeps the list (looks.json).",
    ),
    (
        "Not distinguishable",
        "The data leave open whether there is a difference. The difference seen is not the true one, so the number of "
        "further seeds is for the smallest that is still likely (the lower end of a one-sided 80 % interval): were "
        "that the true one, they would find it four times out of five. Where even its sign may be chance, no number "
        "is said. More problems are asked for only where they are shown to differ so much that seeds would not help.",
    ),
    (
        "P(improvement)",
        "The chance that a run of the one has more than a run of the other, averaged over tasks; 0.5 means neither. "
        "Its interval is Newcombe's for Mann and Whitney's U (2006, method 5) with Student's t; below three runs of a "
        "task in either method there is none.",
    ),
    (
        "Lost runs",
        "Runs that failed or did not finish are in no number, and a pair of runs counts only if both finished. A "
        "method that lost a run which another finished is not ranked and never said to be ahead of that one: what is "
        "left may be its better runs.",
    ),
)
"""Heading and text."""


GENERATOR = "klimb compare"


SECTIONS = (
    ("verdicts", "What it says"),
    ("scores", "Scores"),
    ("differences", "Differences"),
    ("curves", "Learning curves"),
    ("profiles", "Performance profiles"),
    ("tables", "Further tables"),
    ("runs", "Runs"),
    ("method", "How the numbers are made"),
    ("settings", "Settings"),
)


def study_page(statistics: StudyStatistics, *, reports: Mapping[str, str] | None = None) -> str:
    """Return the whole page.

    Args:
        statistics: what is shown.
        reports: folder of a run -> address of its own report, relative to the page.
    """
    scores, tables = statistics.scores, {made.name: made for made in study_tables(statistics)}
    learning = [
        (task, drawings(f"curves-{at}", learning_charts(statistics, task=task))) for at, task in enumerate(scores.tasks)
    ]
    profiles = drawings("profiles", profile_charts(statistics))
    return html_page(
        "study.html",
        title=f"Study {scores.name}",
        generator=GENERATOR,
        scripts=[tooltip_script()],
        data={"charts": values_of([*(drawing for _, found in learning for drawing in found), *profiles])},
        scores=scores,
        matrix=_matrix(statistics),
        titles=SECTIONS,
        verdicts=verdicts(statistics),
        main=scores_table(tables["main"], statistics),
        measures=[one for one in statistics.measures.values() if one.title in tables["main"].columns],
        comparisons=comparisons_table(tables["comparisons"], statistics),
        learning=learning,
        profiles=profiles,
        further=[
            table(made, notes=[made.note]) for name, made in tables.items() if name not in ("main", "comparisons")
        ],
        lost=statistics.failed,
        runs=[_run(run, statistics, reports or {}) for run in scores.runs],
        explanations=EXPLANATIONS,
        facts=[*([("Command", scores.command)] if scores.command else []), *scores.facts],
    )


def _matrix(statistics: StudyStatistics) -> str:
    """`2 methods × 1 task × 3 seeds; 1,000 tokens each; baseline grpo`."""
    scores = statistics.scores
    parts = [
        counted(len(scores.methods), "method"),
        *([counted(len(scores.settings), "setting")] if len(scores.settings) > 1 else []),
        counted(len(scores.tasks), "task"),
        counted(len(scores.seeds), "seed"),
    ]
    return f"{' × '.join(parts)}; {budget_text(scores)} each; baseline {scores.baseline}"


def _run(run: RunResult, statistics: StudyStatistics, reports: Mapping[str, str]) -> dict[str, Any]:
    units, measures = units_of(statistics.scores), statistics.measures
    numbers = [units.score(measures[key].score(run)) for key in ("last", "best")] if run.is_scored else ["–", "–"]
    steps = run.evaluations[-1].step if run.evaluations else 0
    return {
        "name": f"{run.task}, {run.arm.name}",
        "address": reports.get(run.folder),
        "cells": [str(run.seed), run.status, *numbers, f"{run.budget_spent:,.0f}", f"{steps:,}"],
    }


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
    intervals = score_intervals(statistics, key=MAIN)
    pictures = dict(zip((row.label for row in intervals.rows), strips(intervals), strict=True))
    arms = [Arm(str(row[0]), str(row[1])) for row in made.full_rows]
    marked = [arm.method == statistics.scores.baseline for arm in arms]
    # The measures' meanings stand below the table.
    notes = [f"{made.title}. The picture shows the last score.", *score_note_sentences(statistics)]
    return table(made, pictures=[pictures.get(row[0], "") for row in made.rows], marked=marked, notes=notes)


def comparisons_table(made: StudyTable, statistics: StudyStatistics) -> dict[str, Any] | None:
    """Return the comparisons with their intervals around zero; None without any."""
    family = statistics.main
    if not family.comparisons:
        return None
    note = (
        "Hollow: not distinguishable. The intervals are not corrected for the number of comparisons; the verdicts are."
    )
    pictures = strips(difference_intervals(statistics, family))
    return table(made, pictures=pictures, notes=[f"{made.title}. {made.note} {note}"])
