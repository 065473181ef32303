"""Every comparison of a study: two arms on one measure, paired by seed and problem, corrected for their number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from klimb.findings.statistics import Interval, probability_of_improvement
from klimb.findings.statistics.pairing import (
    PairedTest,
    SeedsNeeded,
    holm,
    paired_bootstrap,
    paired_test,
    seeds_needed,
    sign_flip_p,
)
from klimb.findings.statistics.runs import Array
from klimb.findings.study.scores import Arm, Measure, StudyScores
from klimb.findings.study.thresholds import THRESHOLDS

Decision = Literal["higher", "lower", "open", "untested"]
"""`open`: not distinguishable. `untested`: fewer than two pairs on a task, or pairs that do not differ at all."""


@dataclass(frozen=True)
class Question:
    """Is there a difference between `arm` and `against`?"""

    arm: Arm
    against: Arm


@dataclass(frozen=True)
class Comparison:
    """The answer to a question.

    Args:
        question: who is compared with whom.
        measure: key of the measure.
        difference: mean over tasks of the paired differences, `arm` minus `against`, with its 95 % t interval over
            seeds and problems, not corrected for the number of comparisons.
        bootstrap: the same difference with the interval of drawing seeds and problems again.
        p_value: two-sided p of the t test.
        p_adjusted: Holm's, over all comparisons of the family; this one decides.
        p_sign_flip: p of the sign-flip test over the pairs.
        improvement: probability that a run of `arm` has more than a run of `against`.
        num_pairs: pairs of runs of each task, in the order of the study's tasks.
        decision: what can be said at 5 %.
        needed: for an open question, how many more seeds would tell.
    """

    question: Question
    measure: str
    difference: Interval
    bootstrap: Interval
    p_value: float
    p_adjusted: float
    p_sign_flip: float
    improvement: Interval
    num_pairs: tuple[int, ...]
    decision: Decision
    needed: SeedsNeeded


@dataclass(frozen=True)
class Family:
    """Comparisons whose p-values are corrected together."""

    title: str
    comparisons: tuple[Comparison, ...]


def family(
    scores: StudyScores, *, title: str, measure: Measure, questions: Sequence[Question], tasks: Sequence[str]
) -> Family:
    """Answers the questions on these tasks together, and corrects them for their number.

    Questions of which some task has no pair of runs are left out.
    """
    cases = [_case(scores, question, measure=measure, tasks=tasks) for question in questions]
    answered = [case for case in cases if case is not None]
    adjusted = holm([case.test.p_value for case in answered])
    alpha = _next_alpha(adjusted)
    return Family(
        title,
        tuple(_answer(case, p_adjusted=p, alpha=alpha) for case, p in zip(answered, adjusted, strict=True)),
    )


def questions_against_baseline(scores: StudyScores) -> tuple[Question, ...]:
    """Every method against the baseline under the same setting."""
    arms = frozenset(scores.arms)
    asked = [Question(arm, Arm(scores.baseline, arm.setting)) for arm in scores.arms if arm.method != scores.baseline]
    return tuple(question for question in asked if question.against in arms)


def questions_between_settings(scores: StudyScores) -> tuple[Question, ...]:
    """Every method under each further setting against itself under the study's first setting."""
    arms, first = frozenset(scores.arms), scores.settings[0]
    asked = [Question(arm, Arm(arm.method, first)) for arm in scores.arms if arm.setting != first]
    return tuple(question for question in asked if question.against in arms)


def decision_of(test: PairedTest, *, p_adjusted: float) -> Decision:
    """`higher` or `lower` where the corrected p is below 5 %."""
    if not math.isfinite(p_adjusted):
        return "untested"
    if p_adjusted >= THRESHOLDS.alpha:
        return "open"
    return "higher" if test.difference.value > 0 else "lower"


def paired_table(scores: StudyScores, question: Question, *, measure: Measure, task: str) -> Array:
    """Differences [seed, problem] on a task, over the seeds that both have finished.

    Problems that some run could not score are left out; where the runs' problems do not match, there is one column:
    the differences of the runs' means.
    """
    others = {run.seed: run for run in scores.scored(question.against, task=task)}
    pairs = [(run, others[run.seed]) for run in scores.scored(question.arm, task=task) if run.seed in others]
    rows = [(measure.of_run(run), measure.of_run(other)) for run, other in pairs]
    if len({values.size for row in rows for values in row}) == 1:
        table = np.stack([values - other for values, other in rows])
        complete = table[:, np.isfinite(table).all(axis=0)]
        if complete.size:
            return complete
    means = [measure.score(run) - measure.score(other) for run, other in pairs]
    return np.array([[mean] for mean in means if math.isfinite(mean)], dtype=np.float64).reshape(-1, 1)


def strata_of(scores: StudyScores, arm: Arm, *, measure: Measure, tasks: Sequence[str]) -> tuple[Array, ...]:
    """Of each task the scores of the arm's finished runs, those that are numbers."""
    found = [[measure.score(run) for run in scores.scored(arm, task=task)] for task in tasks]
    return tuple(np.array([score for score in row if math.isfinite(score)], dtype=np.float64) for row in found)


@dataclass(frozen=True)
class _Case:
    """A question with the data that answer it."""

    question: Question
    measure: str
    tables: tuple[Array, ...]
    test: PairedTest
    improvement: Interval


def _case(scores: StudyScores, question: Question, *, measure: Measure, tasks: Sequence[str]) -> _Case | None:
    tables = tuple(paired_table(scores, question, measure=measure, task=task) for task in tasks)
    if not tables or not all(len(table) for table in tables):
        return None
    improvement = probability_of_improvement(
        strata_of(scores, question.arm, measure=measure, tasks=tasks),
        strata_of(scores, question.against, measure=measure, tasks=tasks),
    )
    return _Case(question, measure.key, tables, paired_test(tables), improvement)


def _answer(case: _Case, *, p_adjusted: float, alpha: float) -> Comparison:
    decision = decision_of(case.test, p_adjusted=p_adjusted)
    has_pairs = all(len(table) >= 2 for table in case.tables)
    return Comparison(
        question=case.question,
        measure=case.measure,
        difference=case.test.difference,
        bootstrap=paired_bootstrap(case.tables),
        p_value=case.test.p_value,
        p_adjusted=p_adjusted,
        p_sign_flip=sign_flip_p(case.tables) if has_pairs else math.nan,
        improvement=case.improvement,
        num_pairs=tuple(len(table) for table in case.tables),
        decision=decision,
        needed=seeds_needed(case.test, alpha=alpha) if decision == "open" else SeedsNeeded(None),
    )


def _next_alpha(adjusted: Sequence[float]) -> float:
    """Return what p the best of the open comparisons would have to fall below: 5 % over their number."""
    num_open = sum(p >= THRESHOLDS.alpha for p in adjusted)
    return THRESHOLDS.alpha / max(1, num_open)
