"""A study as one page of HTML: what it says, the evidence, how it was made.

How the numbers of a study are made, for the reader of its page.
"""

from collections.abc import Mapping
from typing import Any

from klimb.findings.study.analysis import StudyStatistics
from klimb.findings.study.scores import RunResult
from klimb.findings.study.verdicts import budget_text, counted, units_of, verdicts
from klimb.ui.pages.frame import drawings, html_page, tooltip_script, values_of
from klimb.ui.pages.study_charts import comparisons_table, learning_charts, profile_charts, scores_table, table
from klimb.ui.tables import study_tables

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
        "The mean of the middle half of the runs of all tasks and seeds. Its interval comes from drawing the runs "
        "again, with replacement, within each task (Agarwal et al. 2021, arXiv 2108.13264).",
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
        "the chance of any such mistake in a table below 5 %; a verdict rests on the corrected p.",
    ),
    (
        "Not distinguishable",
        "The data leave open whether there is a difference. The number of further seeds is what would find the "
        "difference seen here four times out of five, were it the true one; it is as uncertain as that difference.",
    ),
    (
        "P(improvement)",
        "The chance that a run of the one has more than a run of the other, averaged over tasks; 0.5 means neither. "
        "Its interval comes from drawing the runs of both again.",
    ),
    (
        "Lost runs",
        "Runs that failed or did not finish are in no number, and a pair of runs counts only if both finished.",
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
        comparisons=comparisons_table(tables["comparisons"], statistics.main),
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
