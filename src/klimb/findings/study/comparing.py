"""Every comparison of a study: two arms on one measure, paired by seed and problem, corrected for their number."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from klimb.findings.statistics import Interval, probability_of_improvement
from klimb.findings.statistics.pairing import (
    PairedTest,
    SeedsNeeded,
    holm,
    level_of_look,
    paired_test,
    seeds_needed,
    sign_flip_p,
)
from klimb.findings.statistics.runs import Array
from klimb.findings.study.scores import Arm, Measure, RunResult, StudyScores
from klimb.findings.study.thresholds import THRESHOLDS

Decision = Literal["higher", "lower", "open", "untested"]
"""`open`: not distinguishable. `untested`: the difference's `reason` says why."""


@dataclass(frozen=True)
class Question:
    """Is there a difference between `arm` and `against`?"""

    arm: Arm
    against: Arm


@dataclass(frozen=True)
class PairedTable:
    """Differences [seed, problem] on a task, and what was left out of them.

    Attributes:
        differences: one column where runs are compared by their means.
        scale: the largest score whose difference was taken.
        left_out: in words, what the differences do not hold; empty where they hold everything.
    """

    differences: Array
    scale: float = 0.0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The answer to a question.

    Args:
        question: who is compared with whom.
        measure: key of the measure.
        difference: mean over tasks of the paired differences, `arm` minus `against`, with its 95 % t interval over
            seeds and problems, not corrected for the number of comparisons.
        p_value: two-sided p of the t test.
        p_adjusted: Holm's, over all comparisons of the family, and corrected for the looks; this one decides.
        p_sign_flip: p of the sign-flip test over the pairs.
        improvement: probability that a run of `arm` has more than a run of `against`.
        num_pairs: pairs of runs of each task, in the order of the study's tasks.
        decision: what can be said at 5 %.
        needed: for an open question, how many more seeds would tell.
        left_out: in words, the runs and problems that are not in the difference; empty where all are.
    """

    question: Question
    measure: str
    difference: Interval
    p_value: float
    p_adjusted: float
    p_sign_flip: float
    improvement: Interval
    num_pairs: tuple[int, ...]
    decision: Decision
    needed: SeedsNeeded
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Comparisons whose p-values are corrected together; there may be more of them than are shown."""

    title: str
    comparisons: tuple[Comparison, ...]
    num_corrected: int


def family(
    scores: StudyScores,
    *,
    title: str,
    measure: Measure,
    questions: Sequence[Question],
    tasks: Sequence[str],
    shown: int | None = None,
) -> Family:
    """Answers the questions on these tasks together, and corrects them for their number and for the looks.

    Questions of which some task has no pair of runs are left out.

    Args:
        scores: the study's runs.
        title: of the family.
        measure: what is compared.
        questions: all of them are tested.
        tasks: they count alike.
        shown: only so many of the first questions are in the family's comparisons; all without it.
    """
    cases = [_case(scores, question, measure=measure, tasks=tasks) for question in questions]
    answered = [case for case in cases if case is not None]
    looked = THRESHOLDS.alpha / level_of_look(scores.look, alpha=THRESHOLDS.alpha)
    adjusted = [min(1.0, looked * p) if math.isfinite(p) else p for p in holm([case.test.p_value for case in answered])]
    alpha = _next_alpha(adjusted, look=scores.look + 1)
    among = frozenset(questions if shown is None else questions[:shown])
    return Family(
        title,
        tuple(
            _answer(scores, case, p_adjusted=p, alpha=alpha)
            for case, p in zip(answered, adjusted, strict=True)
            if case.question in among
        ),
        num_corrected=sum(math.isfinite(p) for p in adjusted),
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


def paired_table(scores: StudyScores, question: Question, *, measure: Measure, task: str) -> PairedTable:
    """Differences [seed, problem] on a task, over the seeds that both have finished.

    Problems that some run could not score are left out; where the runs' problems are not the same, there is one
    column: the differences of the runs' means.
    """
    others = {run.seed: run for run in scores.scored(question.against, task=task)}
    pairs = [(run, others[run.seed]) for run in scores.scored(question.arm, task=task) if run.seed in others]
    if not pairs:
        return PairedTable(np.empty((0, 1)))
    rows = [(measure.of_run(run), measure.of_run(other)) for run, other in pairs]
    scale = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) for row in rows for values in row)
    if len({values.size for row in rows for values in row}) == 1 and _have_same_problems(pairs):
        known = np.isfinite(np.array(rows)).all(axis=(0, 1))
        if known.any():
            left_out = _unscored_text(task, int((~known).sum()), known.size)
            return PairedTable(np.stack([_minus(values, other)[known] for values, other in rows]), scale, left_out)
    means = [(measure.score(run), measure.score(other)) for run, other in pairs]
    complete = np.array([row for row in means if np.isfinite(row).all()], dtype=np.float64).reshape(-1, 2)
    left_out = (f"{task}: the problems are not the same in all runs, which are compared by their means",)
    is_of_runs = all(values.size == 1 for row in rows for values in row)
    return PairedTable(_minus(complete[:, :1], complete[:, 1:]), scale, () if is_of_runs else left_out)


def _minus(values: Array, other: Array) -> Array:
    """Return the difference; one beyond the largest number is infinite, and the test says so."""
    with np.errstate(over="ignore"):
        return values - other


def _have_same_problems(pairs: Sequence[tuple[RunResult, RunResult]]) -> bool:
    return len({point.problem_ids for pair in pairs for run in pair for point in run.evaluations}) == 1


def _unscored_text(task: str, number: int, total: int) -> tuple[str, ...]:
    return (f"{task}: {number} of {total} problems, which some run could not score",) if number else ()


def strata_of(scores: StudyScores, arm: Arm, *, measure: Measure, tasks: Sequence[str]) -> tuple[Array, ...]:
    """Of each task the scores of the arm's finished runs, those that are numbers."""
    found = [[measure.score(run) for run in scores.scored(arm, task=task)] for task in tasks]
    return tuple(np.array([score for score in row if math.isfinite(score)], dtype=np.float64) for row in found)


def lost_text(scores: StudyScores, arm: Arm, *, tasks: Sequence[str]) -> str:
    """Return `4 of 12 runs lost`, if others finished theirs of the same task and seed; else nothing.

    Runs that are still to come are `not finished`.
    """
    number = scores.lost(arm, tasks=tasks)
    rest = [run for run in scores.runs if run.arm == arm and run.task in tasks and not run.is_scored]
    word = "not finished" if all(run.status in ("missing", "interrupted") for run in rest) else "lost"
    return f"{number} of {scores.num_cells(arm, tasks=tasks)} runs {word}" if number else ""


@dataclass(frozen=True)
class _Case:
    """A question with the data that answer it."""

    question: Question
    measure: Measure
    tasks: tuple[str, ...]
    tables: tuple[PairedTable, ...]
    test: PairedTest
    lost: str = ""

    @property
    def differences(self) -> tuple[Array, ...]:
        return tuple(table.differences for table in self.tables)


def _case(scores: StudyScores, question: Question, *, measure: Measure, tasks: Sequence[str]) -> _Case | None:
    tables = tuple(paired_table(scores, question, measure=measure, task=task) for task in tasks)
    if not tables or not all(len(table.differences) for table in tables):
        return None
    test = paired_test([table.differences for table in tables], scale=max(table.scale for table in tables))
    reason = _why_not_to_be_told(scores, question, test, measure=measure, tasks=tasks)
    if reason:
        test = PairedTest(test.difference.without_ends(reason), math.nan, test.parts)
    return _Case(question, measure, tuple(tasks), tables, test, lost=reason)


def _why_not_to_be_told(
    scores: StudyScores, question: Question, test: PairedTest, *, measure: Measure, tasks: Sequence[str]
) -> str:
    """Return why no test can be believed: two scales, or the better one of the two lost runs, perhaps its bad ones."""
    for task in tasks:
        runs = [run for arm in (question.arm, question.against) for run in scores.scored(arm, task=task)]
        if len({run.evaluations[-1].is_accuracy for run in runs}) > 1:
            return f"on {task} some runs are scored right or wrong and others by rewards, which are no one scale"
    if not math.isfinite(test.p_value) or test.difference.value == 0:
        return ""
    is_ahead = (test.difference.value > 0) == measure.more_is_better
    better, worse = (question.arm, question.against) if is_ahead else (question.against, question.arm)
    number = scores.lost(better, tasks=tasks, against=worse)
    total = scores.num_cells(better, tasks=tasks)
    kept = f"{better.name} lost {number} of {total} runs that {worse.name} finished: those left may be its better ones"
    return kept if number else ""


def _answer(scores: StudyScores, case: _Case, *, p_adjusted: float, alpha: float) -> Comparison:
    decision, question = decision_of(case.test, p_adjusted=p_adjusted), case.question
    can_flip = min(map(len, case.differences)) >= 2 and math.isfinite(case.test.difference.value)
    return Comparison(
        question=question,
        measure=case.measure.key,
        difference=case.test.difference.within((-1.0, 1.0) if scores.is_accuracy else None),
        p_value=case.test.p_value,
        p_adjusted=p_adjusted,
        p_sign_flip=sign_flip_p(case.differences) if can_flip else math.nan,
        improvement=_improvement(scores, case),
        num_pairs=tuple(map(len, case.differences)),
        decision=decision,
        needed=seeds_needed(case.test, alpha=alpha) if decision == "open" else SeedsNeeded(None),
        left_out=tuple(_left_out(scores, case)),
    )


def _improvement(scores: StudyScores, case: _Case) -> Interval:
    ours, theirs = (
        strata_of(scores, arm, measure=case.measure, tasks=case.tasks)
        for arm in (case.question.arm, case.question.against)
    )
    found = probability_of_improvement(ours, theirs)
    return found.without_ends(case.lost) if case.lost else found


def _left_out(scores: StudyScores, case: _Case) -> Iterator[str]:
    question = case.question
    for arm, other in ((question.arm, question.against), (question.against, question.arm)):
        number = scores.lost(arm, tasks=case.tasks, against=other)
        if number:
            yield f"{number} of {scores.num_cells(arm, tasks=case.tasks)} pairs, of which {arm.name} lost its run"
    for table in case.tables:
        yield from table.left_out


def _next_alpha(adjusted: Sequence[float], *, look: int) -> float:
    """Return what p the best of the open comparisons would have to fall below at the next look."""
    num_open = sum(p >= THRESHOLDS.alpha for p in adjusted)
    return level_of_look(look, alpha=THRESHOLDS.alpha) / max(1, num_open)
