"""The tables of a study: scores of every arm, and every comparison."""

import math
from collections.abc import Callable, Mapping

from klimb.workbench.study.comparing import Family
from klimb.workbench.study.resampling import Interval
from klimb.workbench.study.statistics import MAIN, ArmSummary, StudyStatistics
from klimb.workbench.study.table_formats import StudyTable, slug
from klimb.workbench.study.wording import (
    Units,
    against_text,
    decision_text,
    needed_short,
    p_number,
    share_text,
    units_of,
)

SPREAD_TITLES = ("sd of seeds", "largest loss", "runs")
SPREAD_COLUMNS = ("seed_sd", "largest_drop", "num_runs", "num_lost")


def study_tables(statistics: StudyStatistics) -> tuple[StudyTable, ...]:
    """The main table, the comparisons, each task alone, the other measures' comparisons."""
    units = units_of(statistics.scores)
    leader = [comparison_table(statistics.leader, units, name="leader")] if statistics.leader else []
    return (
        main_table(statistics, units),
        *(task_table(statistics, task, units) for task in statistics.scores.tasks),
        comparison_table(statistics.main, units, name="comparisons"),
        *leader,
        *(
            comparison_table(family, units, name=f"comparisons-{slug(task)}")
            for task, family in statistics.by_task.items()
        ),
        *(
            comparison_table(
                family, units, name=f"comparisons-{slug(key)}", more_is_better=statistics.measures[key].more_is_better
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
        title=f"Interquartile means {over}, {units.name}, with 95 % bootstrap intervals",
        scores_of=lambda summary: summary.scores,
        has_spread=True,
    )


def task_table(statistics: StudyStatistics, task: str, units: Units) -> StudyTable:
    """The same on one task."""
    return _score_table(
        statistics,
        units,
        name=f"task-{slug(task)}",
        title=f"Interquartile means on {task}, {units.name}, with 95 % bootstrap intervals",
        scores_of=lambda summary: summary.by_task[task],
        has_spread=False,
    )


def comparison_table(family: Family, units: Units, *, name: str, more_is_better: bool = True) -> StudyTable:
    """Every comparison of a family."""
    found = family.comparisons
    rows = tuple(
        (
            one.question.arm.name,
            against_text(one.question),
            decision_text(one, more_is_better=more_is_better),
            units.differences(one.difference),
            p_number(one.p_adjusted),
            share_text(one.improvement),
            needed_short(one),
        )
        for one in found
    )
    full_rows = tuple(
        (
            *(one.question.arm.method, one.question.arm.setting),
            *(one.question.against.method, one.question.against.setting),
            one.measure,
            *_ends(one.difference),
            *(one.bootstrap.low, one.bootstrap.high),
            *(one.p_value, one.p_adjusted, one.p_sign_flip),
            *_ends(one.improvement),
            " ".join(map(str, one.num_pairs)),
            decision_text(one, more_is_better=more_is_better),
            math.nan if one.needed.more is None else one.needed.more,
        )
        for one in found
    )
    return StudyTable(
        name=name,
        title=f"Paired differences: {family.title}{f', {units.of_differences.strip()}' if units.is_percent else ''}",
        columns=(
            "method",
            "against",
            "verdict",
            "difference [95 %]",
            "p, Holm",
            "P(improvement)",
            "what would tell",
        ),
        rows=rows,
        full_columns=(
            *("method", "setting", "against_method", "against_setting", "measure"),
            *("difference", "low", "high", "bootstrap_low", "bootstrap_high"),
            *("p", "p_holm", "p_sign_flip"),
            *("improvement", "improvement_low", "improvement_high", "pairs_by_task", "verdict", "more_seeds_needed"),
        ),
        full_rows=full_rows,
        num_texts=3,
        note=f"Holm's correction over {len(found)} comparisons.",
    )


def _score_table(
    statistics: StudyStatistics,
    units: Units,
    *,
    name: str,
    title: str,
    scores_of: Callable[[ArmSummary], Mapping[str, Interval]],
    has_spread: bool,
) -> StudyTable:
    measures = statistics.measures
    shown = [key for key in measures if key != "drop"]
    known = [summary for summary in statistics.arms if math.isfinite(scores_of(summary)[MAIN].value)]
    ordered = sorted(known, key=lambda summary: -scores_of(summary)[MAIN].value)
    rest = [summary for summary in statistics.arms if summary not in known]
    found = [*ordered, *rest]
    return StudyTable(
        name=name,
        title=title,
        columns=("method", *(measures[key].title for key in shown), *(SPREAD_TITLES if has_spread else ())),
        rows=tuple(
            (
                summary.arm.name,
                *(units.scores(scores_of(summary)[key]) for key in shown),
                *(_spread_texts(summary, units) if has_spread else ()),
            )
            for summary in found
        ),
        full_columns=(
            *("method", "setting"),
            *(f"{key}{end}" for key in measures for end in ("", "_low", "_high")),
            *(SPREAD_COLUMNS if has_spread else ()),
        ),
        full_rows=tuple(
            (
                *(summary.arm.method, summary.arm.setting),
                *(end for key in measures for end in _ends(scores_of(summary)[key])),
                *(_spread(summary) if has_spread else ()),
            )
            for summary in found
        ),
        note="; ".join(f"{measures[key].title}: {measures[key].meaning}" for key in shown) + ".",
    )


def _spread(summary: ArmSummary) -> tuple[float | int, ...]:
    return summary.seed_sd, summary.largest_drop, summary.num_runs, summary.num_lost


def _spread_texts(summary: ArmSummary, units: Units) -> tuple[str, ...]:
    all_runs = summary.num_runs + summary.num_lost
    runs = f"{summary.num_runs} of {all_runs}" if summary.num_lost else f"{summary.num_runs}"
    return units.score(summary.seed_sd), units.score(summary.largest_drop), runs


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
