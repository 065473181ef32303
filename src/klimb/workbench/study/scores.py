"""What the runs of a study scored: plain data, read by the statistics, tables, figures and the page."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

RunStatus = Literal["finished", "failed", "interrupted", "missing"]
"""`failed` ended by an error, `interrupted` was stopped and can go on, `missing` was not begun."""

BudgetKind = Literal["tokens", "seconds"]


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation of a run on the held-out problems.

    `problems` holds the mean over the samples of each problem, in the order that all runs of the task share; nan
    where no sample of a problem could be scored. `num_samples` is the number of samples per problem.
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


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names without repetition, in the order of their first appearance."""
    return tuple(dict.fromkeys(names))
