"""What the runs of a study scored: plain data, read by the statistics, tables, figures and the page.

What is read off a run: its last and best score, its speed of learning, what it lost on the way.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from klimb.findings.evaluations import pass_at_k

RunStatus = Literal["finished", "failed", "interrupted", "missing"]
"""`failed` ended by an error, `interrupted` was stopped and can go on, `missing` was not begun."""


BudgetKind = Literal["tokens", "seconds"]


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation of a run on the held-out problems.

    `problems` holds the mean over the samples of each problem, in the order that all runs of the task share; nan
    where no sample of a problem could be scored. `num_samples` is the number of samples per problem. `problem_ids`
    names the problems in the same order; empty where they have no names.
    """

    when: Literal["before", "during", "after"]
    step: int
    num_tokens: int
    seconds: float
    mean: float
    problems: tuple[float, ...]
    pass_at: Mapping[int, float] = field(default_factory=dict)
    num_samples: int = 1
    num_errors: int = 0
    is_accuracy: bool = True
    greedy: float | None = None
    length_mean: float = math.nan
    truncated_fraction: float = math.nan
    problem_ids: tuple[str, ...] = ()

    def spent(self, kind: BudgetKind) -> float:
        """Budget used up to this evaluation: generated tokens, or seconds of training."""
        return float(self.num_tokens) if kind == "tokens" else self.seconds


@dataclass(frozen=True)
class RunResult:
    """One run: a cell of the matrix tasks × methods × settings × seeds.

    Args:
        task: name of the task.
        method: name of the method.
        setting: name of the settings laid over the method, such as the optimizer; empty if the study has none.
        seed: the run's seed; runs of one task with the same seed are paired.
        status: how it ended. Only finished runs enter the statistics.
        budget_spent: generated tokens or seconds of training, as the study counts.
        evaluations: in order of training.
        failure: last line of the error of a failed run.
        folder: where the run is, relative to the study's folder.
    """

    task: str
    method: str
    setting: str
    seed: int
    status: RunStatus
    budget_spent: float
    evaluations: tuple[EvaluationPoint, ...]
    failure: str = ""
    folder: str = ""

    @property
    def arm(self) -> "Arm":
        """What is compared: the method with its setting."""
        return Arm(self.method, self.setting)

    @property
    def is_scored(self) -> bool:
        """True if the run finished and its last evaluation is a finite number."""
        return self.status == "finished" and bool(self.evaluations) and math.isfinite(self.evaluations[-1].mean)


@dataclass(frozen=True, order=True)
class Arm:
    """A method under a setting."""

    method: str
    setting: str = ""

    @property
    def name(self) -> str:
        """`grpo`, or `grpo (schedule-free)` where the study has settings."""
        return f"{self.method} ({self.setting})" if self.setting else self.method


@dataclass(frozen=True)
class StudyScores:
    """All runs of a study.

    Args:
        name: the study's name.
        baseline: method the others are compared with, within each setting.
        budget_kind: what every run had the same amount of.
        budget: that amount.
        runs: every cell of the matrix, also those that failed or are missing.
        command: the command that makes this study.
        facts: label and value of what a reader must know: model, commit, machine, date.
        notes: sentences a reader must know before the numbers.
        study_file: the study's TOML text.
        earlier_looks: number of seeds at each earlier analysis of these runs, when fewer of them had finished.
    """

    name: str
    baseline: str
    budget_kind: BudgetKind
    budget: float
    runs: tuple[RunResult, ...]
    command: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    study_file: str = ""
    earlier_looks: tuple[int, ...] = ()

    @property
    def look(self) -> int:
        """Which look at the growing study this is, from 1."""
        return len(self.earlier_looks) + 1

    @property
    def is_accuracy(self) -> bool:
        """True if every scored run's last evaluation is an accuracy."""
        return all(run.evaluations[-1].is_accuracy for run in self.runs if run.is_scored)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the study's order."""
        return _distinct(run.task for run in self.runs)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the study's order."""
        return _distinct(run.method for run in self.runs)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings, in the study's order; one empty name if there are none."""
        return _distinct(run.setting for run in self.runs)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Methods with their settings: all methods of the first setting, then of the next."""
        present = {run.arm for run in self.runs}
        ordered = [Arm(method, setting) for setting in self.settings for method in self.methods]
        return tuple(arm for arm in ordered if arm in present)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of any run, in ascending order."""
        return tuple(sorted({run.seed for run in self.runs}))

    def scored(self, arm: Arm, *, task: str) -> tuple[RunResult, ...]:
        """Finished runs of an arm on a task, by seed."""
        found = [run for run in self.runs if run.task == task and run.arm == arm and run.is_scored]
        return tuple(sorted(found, key=lambda run: run.seed))

    def lost(self, arm: Arm, *, tasks: Sequence[str], against: Arm | None = None) -> int:
        """Count the runs of an arm that did not finish, though another arm's run of that task and seed did.

        Args:
            arm: whose runs.
            tasks: on these tasks alone.
            against: only this other arm counts; any other without it.
        """
        known = [run for run in self.runs if run.is_scored and run.task in tasks]
        own = {(run.task, run.seed) for run in known if run.arm == arm}
        others = {(run.task, run.seed) for run in known if run.arm != arm and against in (None, run.arm)}
        return len(others - own)

    def num_cells(self, arm: Arm, *, tasks: Sequence[str]) -> int:
        """Count the runs that an arm was to have on these tasks."""
        return sum(run.arm == arm and run.task in tasks for run in self.runs)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without repetition, in the order of their first appearance."""
    return tuple(dict.fromkeys(names))


Values = NDArray[np.float64]
"""A value of each problem; nan where a problem has none. One value only, where a run has one for all its problems."""


@dataclass(frozen=True)
class Measure:
    """A number of a run, as the mean over its problems.

    Args:
        key: short name, for files and columns.
        title: name for people.
        meaning: what it is, in one sentence.
        of_run: value of each problem; the run has at least one evaluation.
        more_is_better: false for what a run lost.
    """

    key: str
    title: str
    meaning: str
    of_run: Callable[[RunResult], Values]
    more_is_better: bool = True

    def score(self, run: RunResult) -> float:
        """Mean over the problems that have a value."""
        return _mean(self.of_run(run))


def measures_of(scores: StudyScores) -> Mapping[str, Measure]:
    """List the measures of a study by key: `last`, `best`, `auc`, `drop`, and `pass@k` for the largest k all runs have.

    All are taken at equal budget: a run goes on to the end of the step that spends it, and what that brings beyond the
    budget differs between methods by the size of their steps.
    """
    unit = "generated tokens" if scores.budget_kind == "tokens" else "training time"
    found = [
        Measure(
            "last",
            "last",
            "mean score when the budget is spent: on the straight line between the evaluations before and after",
            lambda run: at_budget(run, scores=scores),
        ),
        Measure(
            "best",
            "best on the way",
            "highest mean score up to there; optimistic, because the evaluation itself chose it",
            lambda run: best_on_the_way(run, scores=scores),
        ),
        Measure(
            "auc",
            "over the budget",
            f"score averaged over the budget of {unit} (normalised area under the curve): who learns faster has more",
            lambda run: area_under_curve(run, scores=scores),
        ),
        Measure(
            "drop",
            "lost since best",
            "best score on the way minus last score",
            lambda run: np.array([_mean(best_on_the_way(run, scores=scores)) - _mean(at_budget(run, scores=scores))]),
            more_is_better=False,
        ),
    ]
    k = largest_k(scores)
    if k > 1:
        found.append(pass_measure(scores, k=k))
    return {measure.key: measure for measure in found}


def pass_measure(scores: StudyScores, *, k: int) -> Measure:
    """Share of problems of which at least one of k samples is right, estimated without bias, when the budget is spent.

    Between two evaluations it is their weighted mean, as for the score.
    """
    meaning = f"chance that at least one of {k} samples is right when the budget is spent (unbiased estimate)"
    return Measure(
        f"pass@{k}",
        f"pass@{k}",
        meaning,
        lambda run: at_budget(run, scores=scores, values=lambda point: pass_values(point, k=k)),
    )


def largest_k(scores: StudyScores) -> int:
    """Largest k of which every evaluation that `last` is taken from has a pass@k, in all scored runs; 0 if none is."""
    shared = [
        frozenset(point.pass_at)
        for run in scores.runs
        if run.is_scored
        for point, _ in around_budget(run, scores=scores)
    ]
    return max(frozenset.intersection(*shared), default=0) if shared else 0


def around_budget(run: RunResult, *, scores: StudyScores) -> tuple[tuple[EvaluationPoint, float], ...]:
    """Return the evaluations around the end of the budget with their weights, which sum to one.

    The first at or after the end and the one before it, weighted so that their mean number of tokens (or seconds) is
    the budget; the last one alone where the run ended before.
    """
    points, kind = run.evaluations, scores.budget_kind
    after = next((at for at, point in enumerate(points) if point.spent(kind) >= scores.budget), len(points) - 1)
    late = points[after].spent(kind)
    if after == 0 or late <= scores.budget:
        return ((points[after], 1.0),)
    early = points[after - 1].spent(kind)
    share = (scores.budget - early) / (late - early)
    return ((points[after - 1], 1 - share), (points[after], share))


def at_budget(
    run: RunResult, *, scores: StudyScores, values: Callable[[EvaluationPoint], Values] | None = None
) -> Values:
    """Return what `values` gives when the budget is spent; the score of each problem by default."""
    found = [((values or values_of)(point), weight) for point, weight in around_budget(run, scores=scores)]
    if len({row.size for row, _ in found}) > 1:
        found = [(np.array([_mean(row)]), weight) for row, weight in found]
    return np.stack([weight * row for row, weight in found]).sum(axis=0)


def best_on_the_way(run: RunResult, *, scores: StudyScores) -> Values:
    """Return the highest of the evaluations within the budget and the score at its end; the earliest of equals.

    The evaluation before training counts too.
    """
    within = [values_of(point) for point in run.evaluations if point.spent(scores.budget_kind) <= scores.budget]
    rows = [*within, at_budget(run, scores=scores)]
    return max(rows, key=lambda row: mean if math.isfinite(mean := _mean(row)) else -math.inf)


def values_of(point: EvaluationPoint) -> Values:
    """Return the mean of each problem, or the evaluation's mean where problems are not told apart."""
    return np.array(point.problems if point.problems else (point.mean,), dtype=np.float64)


def _mean(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def pass_values(point: EvaluationPoint, *, k: int) -> Values:
    """pass@k of each problem, `1 - C(n-c, k) / C(n, k)` with c of n samples right.

    Where samples of the evaluation could not be scored, n differs by problem and is not recorded; then there is one
    value: the evaluation's own pass@k.
    """
    is_countable = point.is_accuracy and point.num_errors == 0 and point.num_samples >= k and point.problems
    if not is_countable:
        return np.array([point.pass_at[k]], dtype=np.float64)
    number = point.num_samples
    return np.array([pass_at_k(number, round(mean * number), k) for mean in point.problems], dtype=np.float64)


def area_under_curve(run: RunResult, *, scores: StudyScores) -> Values:
    """Score of each problem averaged over the budget: `(1/B) ∫₀ᴮ score(b) db`, straight lines between evaluations.

    Before the first and after the last evaluation the nearest one's score stands.
    """
    spent = np.array([point.spent(scores.budget_kind) for point in run.evaluations])
    rows = [values_of(point) for point in run.evaluations]
    same = len({row.size for row in rows}) == 1
    curve = np.stack(rows) if same else np.array([[point.mean] for point in run.evaluations])
    inner = spent[(spent > 0) & (spent < scores.budget)]
    at = np.unique(np.concatenate([[0.0], inner, [scores.budget]]))
    heights = np.stack([np.interp(at, spent, column) for column in curve.T], axis=1)
    steps = np.diff(at)[:, None]
    return (steps * (heights[1:] + heights[:-1]) / 2).sum(axis=0) / scores.budget
