"""The whole analysis of a study: each arm's scores with intervals, every comparison, and the curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from klimb.findings.statistics import Interval, Profile, iqm, performance_profile
from klimb.findings.statistics.runs import Array
from klimb.findings.study.comparing import (
    Family,
    Question,
    family,
    lost_text,
    questions_against_baseline,
    questions_between_settings,
    strata_of,
)
from klimb.findings.study.scores import Arm, Measure, RunResult, StudyScores, measures_of

NUM_THRESHOLDS = 61


NUM_POSITIONS = 21
"""Points of a curve where the runs of an arm were not evaluated equally often."""


MAIN = "last"


@dataclass(frozen=True)
class Curve:
    """Interquartile mean over seeds of an arm's score on a task, against the budget spent."""

    task: str
    arm: Arm
    spent: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ArmSummary:
    """What the runs of an arm reached.

    Args:
        arm: the method with its setting.
        num_runs: finished runs over all tasks; only they count below.
        num_lost: runs that failed, stopped or were not begun.
        not_ranked: task, or empty for all of them -> why the arm has no rank there: it lost runs that another finished.
        num_errors: answers of the finished runs' last evaluations that could not be scored.
        num_unscored: problems in them of which no answer could be.
        scores: measure -> interquartile mean over all tasks and seeds.
        by_task: task -> measure -> interquartile mean over the seeds.
        seed_sd: standard deviation over seeds of the last score, pooled over tasks; nan below two seeds.
        largest_drop: most that a run lost between its best score on the way and its last.
        profile: share of runs whose last score is above each threshold; None without a finished run on each task.
    """

    arm: Arm
    num_runs: int
    num_lost: int
    not_ranked: Mapping[str, str]
    num_errors: int
    num_unscored: int
    scores: Mapping[str, Interval]
    by_task: Mapping[str, Mapping[str, Interval]]
    seed_sd: float
    largest_drop: float
    profile: Profile | None

    def on(self, task: str = "") -> Mapping[str, Interval]:
        """Return its measures on a task; over all of them without one."""
        return self.by_task[task] if task else self.scores

    def is_ranked(self, task: str = "") -> bool:
        """Return True if it has a score there, and lost no run that another arm finished."""
        return math.isfinite(self.on(task)[MAIN].value) and task not in self.not_ranked


def ordered(arms: Iterable[ArmSummary], *, task: str = "") -> tuple[ArmSummary, ...]:
    """Return the ranked arms, the highest last score first, then those that lost runs, then those without a score."""

    def place(summary: ArmSummary) -> tuple[bool, bool, float]:
        score = summary.on(task)[MAIN].value
        return not summary.is_ranked(task), not math.isfinite(score), -score if math.isfinite(score) else 0.0

    return tuple(sorted(arms, key=place))


@dataclass(frozen=True)
class StudyStatistics:
    """All that is said of a study.

    Args:
        scores: what it is computed from.
        measures: the measures by key.
        arms: summaries in the study's order.
        main: the comparisons of the last score over all tasks: against the baseline and between settings.
        leader: the ranked arm with the highest mean of the last score against the other ranked ones, corrected over
            all pairs of them, since the data chose it; None below two ranked arms.
        others: the questions of `main` on each further measure, by its key, each corrected by itself.
        by_task: the questions of `main` on each task alone, each corrected by itself; empty if there is one task.
        curves: of each task and arm.
    """

    scores: StudyScores
    measures: Mapping[str, Measure]
    arms: tuple[ArmSummary, ...]
    main: Family
    leader: Family | None
    others: Mapping[str, Family]
    by_task: Mapping[str, Family]
    curves: tuple[Curve, ...]

    @property
    def has_tested(self) -> bool:
        """True if some comparison has a p: nothing can be found where none has."""
        families = [self.main, *([self.leader] if self.leader else []), *self.others.values(), *self.by_task.values()]
        return any(math.isfinite(one.p_value) for found in families for one in found.comparisons)

    @property
    def failed(self) -> tuple[RunResult, ...]:
        """Runs that are in no number."""
        return tuple(run for run in self.scores.runs if not run.is_scored)

    @property
    def ranked(self) -> tuple[ArmSummary, ...]:
        """The arms that have a score and lost no run, the highest interquartile mean of the last score first."""
        return tuple(summary for summary in ordered(self.arms) if summary.is_ranked())

    @property
    def unranked(self) -> tuple[ArmSummary, ...]:
        """The others: those with a score, then those without."""
        return tuple(summary for summary in ordered(self.arms) if not summary.is_ranked())


def analyse(scores: StudyScores) -> StudyStatistics:
    """Every number of a study.

    Raises:
        ValueError: no run finished, or the baseline is none of the methods.
    """
    if scores.baseline not in scores.methods:
        raise ValueError(f"baseline {scores.baseline!r} is none of the methods {', '.join(scores.methods)}")
    if not any(run.is_scored for run in scores.runs):
        raise ValueError(f"none of the {len(scores.runs)} runs of study {scores.name!r} finished; nothing to compare")
    measures = measures_of(scores)
    questions = [*questions_against_baseline(scores), *questions_between_settings(scores)]
    main = _family(scores, measures[MAIN], questions)
    thresholds = _thresholds(scores, measures[MAIN])
    tasks = scores.tasks
    return StudyStatistics(
        scores=scores,
        measures=measures,
        arms=tuple(_summary(scores, arm, measures=measures, thresholds=thresholds) for arm in scores.arms),
        main=main,
        leader=_leader(scores, measures[MAIN]),
        others={key: _family(scores, measure, questions) for key, measure in measures.items() if key != MAIN},
        by_task={task: _family(scores, measures[MAIN], questions, task=task) for task in tasks}
        if len(tasks) > 1
        else {},
        curves=tuple(
            _curve(scores, arm, task=task) for task in tasks for arm in scores.arms if scores.scored(arm, task=task)
        ),
    )


def _family(scores: StudyScores, measure: Measure, questions: Sequence[Question], *, task: str = "") -> Family:
    tasks = (task,) if task else scores.tasks
    where = "over all tasks" if len(tasks) > 1 else f"on {' '.join(tasks)}"
    return family(scores, title=f"{measure.title}, {where}", measure=measure, questions=questions, tasks=tasks)


def _leader(scores: StudyScores, measure: Measure) -> Family | None:
    whole = [arm for arm in scores.arms if not scores.lost(arm, tasks=scores.tasks)]
    means = {arm: _mean_over_tasks(strata_of(scores, arm, measure=measure, tasks=scores.tasks)) for arm in whole}
    known = sorted((arm for arm in whole if math.isfinite(means[arm])), key=lambda arm: -means[arm])
    if len(known) < 2:
        return None
    # The data chose the first, so it is one of all pairs that was asked.
    questions = [Question(arm, other) for arm, other in combinations(known, 2)]
    title = f"{measure.title}: {known[0].name} against all others"
    return family(scores, title=title, measure=measure, questions=questions, tasks=scores.tasks, shown=len(known) - 1)


def _mean_over_tasks(strata: Sequence[Array]) -> float:
    return float(np.mean([row.mean() for row in strata])) if all(row.size for row in strata) else math.nan


def _summary(scores: StudyScores, arm: Arm, *, measures: Mapping[str, Measure], thresholds: Array) -> ArmSummary:
    strata = {key: strata_of(scores, arm, measure=measure, tasks=scores.tasks) for key, measure in measures.items()}
    runs = [run for run in scores.runs if run.arm == arm]
    num_scored = sum(run.is_scored for run in runs)
    drops = np.concatenate(strata["drop"])
    is_whole = all(row.size for row in strata[MAIN])
    places = {"": scores.tasks, **{task: (task,) for task in scores.tasks}}
    lost = {place: lost_text(scores, arm, tasks=tasks) for place, tasks in places.items()}
    last = [run.evaluations[-1] for run in runs if run.is_scored]
    bounds = (0.0, 1.0) if scores.is_accuracy else None
    return ArmSummary(
        arm=arm,
        num_runs=num_scored,
        num_lost=len(runs) - num_scored,
        not_ranked={place: text for place, text in lost.items() if text},
        num_errors=sum(point.num_errors for point in last),
        num_unscored=sum(not math.isfinite(value) for point in last for value in point.problems),
        scores={key: _iqm(rows, bounds) for key, rows in strata.items()},
        by_task={
            task: {key: _iqm([rows[at]], bounds) for key, rows in strata.items()}
            for at, task in enumerate(scores.tasks)
        },
        seed_sd=pooled_sd(strata[MAIN]),
        largest_drop=float(drops.max()) if drops.size else math.nan,
        profile=performance_profile(strata[MAIN], thresholds=thresholds) if is_whole else None,
    )


def _iqm(rows: Sequence[Array], bounds: tuple[float, float] | None) -> Interval:
    """Unknown unless every task has a run: an arm without its hard task would look better than it is."""
    if all(row.size for row in rows):
        return iqm(rows, bounds=bounds)
    return Interval(math.nan, reason="no run of a task finished")


def pooled_sd(strata: Sequence[Array]) -> float:
    """Root of the variances within tasks, weighted by their degrees of freedom; nan without any."""
    freedom = sum(len(row) - 1 for row in strata if len(row) > 1)
    if not freedom:
        return math.nan
    squares = math.fsum(float(((row - row.mean()) ** 2).sum()) for row in strata if len(row) > 1)
    return math.sqrt(squares / freedom)


def _thresholds(scores: StudyScores, measure: Measure) -> Array:
    """From just below the lowest to the highest score of any run."""
    found = np.concatenate(
        [row for arm in scores.arms for row in strata_of(scores, arm, measure=measure, tasks=scores.tasks)]
    )
    margin = 0.02 * max(float(np.ptp(found)), 1e-9)
    return np.linspace(float(found.min()) - margin, float(found.max()) + margin, NUM_THRESHOLDS)


def _curve(scores: StudyScores, arm: Arm, *, task: str) -> Curve:
    runs = scores.scored(arm, task=task)
    kind = scores.budget_kind
    paths = [(np.array([point.spent(kind) for point in run.evaluations]), _means(run)) for run in runs]
    if len({spent.size for spent, _ in paths}) == 1:
        at = np.median(np.stack([spent for spent, _ in paths]), axis=0)
    else:
        at = np.linspace(0.0, min(float(spent[-1]) for spent, _ in paths), NUM_POSITIONS)
    heights = np.stack([np.interp(at, spent, means) for spent, means in paths])
    found = [_iqm([column[np.isfinite(column)]], (0.0, 1.0) if scores.is_accuracy else None) for column in heights.T]
    return Curve(
        task=task,
        arm=arm,
        spent=at,
        value=np.array([interval.value for interval in found]),
        low=np.array([interval.low for interval in found]),
        high=np.array([interval.high for interval in found]),
    )


def _means(run: RunResult) -> Array:
    return np.array([point.mean for point in run.evaluations], dtype=np.float64)
