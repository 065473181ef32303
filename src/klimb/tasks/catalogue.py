"""Tasks by kind, for configurations: klimb's, and those of the user's own."""

from __future__ import annotations

import inspect
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from klimb.declarations import OWN_KIND, Fraction, OwnName, Parameters, Seed, configurable
from klimb.own_parts import is_object, is_own, load_function, load_part
from klimb.tasks.arithmetic import ArithmeticSettings
from klimb.tasks.environment_problems import EnvironmentProblemSettings
from klimb.tasks.file import FileSettings
from klimb.tasks.games.calculator import CalculatorSettings
from klimb.tasks.games.guessing import GuessingSettings
from klimb.tasks.games.sql import SqlSettings
from klimb.tasks.protocol import (
    MOST_UNUSABLE,
    ProblemSet,
    ScoreFunction,
    Task,
    did_you_mean,
    environment_of,
)
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, as_written, with_reward
from klimb.tasks.reasoning_gym import ReasoningGymSettings


class TaskSettings(Protocol):
    """What a task is made from: the table `[task]` of a run file.

    Attributes:
        subject: the setting that `KIND:SUBJECT` gives; empty where there is none.
    """

    subject: ClassVar[str]

    @property
    def kind(self) -> str:
        """Its name in a file."""
        ...

    @property
    def reward(self) -> str:
        """The name of its reward, or where one's own is."""
        ...

    @property
    def max_unusable_fraction(self) -> float:
        """Share of the problems that may be left out because the model cannot be asked them."""
        ...

    def make_task(self) -> ProblemSet:
        """Return the problems with their reward."""
        ...


TASKS: Mapping[str, type[TaskSettings]] = {
    settings.kind: settings
    for settings in (
        ArithmeticSettings,
        ReasoningGymSettings,
        FileSettings,
        CalculatorSettings,
        GuessingSettings,
        SqlSettings,
        EnvironmentProblemSettings,
    )
}
"""Every task by its kind. A run file's `[task]` takes each of them, and one of the user's own."""


@configurable
@dataclass(frozen=True, kw_only=True)
class OwnTask:
    """A task of your own."""

    subject: ClassVar[str] = ""

    kind: OwnName
    """Where it is: a function of (seed, and what `parameters` names) that returns a `klimb.tasks.ProblemSet`, or such a
    set itself."""
    parameters: Parameters = field(default_factory=dict)
    """What your function is told besides the seed, by name."""
    seed: Seed = 0
    """Handed to your function, which should draw the problems and the split from it alone."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls another, in a process of its own."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def make_task(self) -> ProblemSet:
        """Return the problems that the function gives, with their reward.

        Raises:
            ValueError: there is no such function, it takes other arguments or raises, or what it returns is no task.
        """
        part = load_part(self.kind, setting="task.kind")
        if isinstance(part, Task) and not isinstance(part, type):
            task = self._check_task(self._as_problem_set(part))
        else:
            task = self._check_task(self._call(self._load()))
        # A function of the program that is running is no other process's to import.
        return with_reward(scored_where_it_can(task) if is_object(self.kind) else task, self.reward)

    def _as_problem_set(self, task: Task) -> ProblemSet:
        if self.parameters:
            raise ValueError(f"task.parameters are told to a function, and {self.kind!r} is a task already")
        parts: dict[str, Any] = {"name": task.name, "score": task.score, "trusted": task.trusted}
        parts["environment"] = environment_of(task)
        return ProblemSet(train=tuple(task.train), held_out=tuple(task.held_out), **parts)

    def _call(self, function: Callable[..., object]) -> object:
        try:
            return function(seed=self.seed, **self.parameters)
        # The user's own code, which may raise anything.
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"task.kind = {self.kind!r}: the function raised {type(error).__name__}: {error} "
                f"({Path(frame.filename).name}, line {frame.lineno})"
            ) from error

    def _load(self) -> Callable[..., object]:
        """Return the function, which takes what it will be called with."""
        expected = "a function that returns a klimb.tasks.ProblemSet"
        function = load_function(self.kind, setting="task.kind", expected=expected)
        if "seed" in self.parameters:
            raise ValueError("task.parameters.seed: write it as task.seed, which your function gets as its seed")
        signature = inspect.signature(function)
        try:
            signature.bind(seed=self.seed, **self.parameters)
        except TypeError as error:
            raise ValueError(
                f"task.kind = {self.kind!r} is called with {', '.join(('seed', *self.parameters))} (task.seed and "
                f"task.parameters) by name, but its signature is {signature}: {error}"
            ) from error
        return function

    def _check_task(self, task: object) -> ProblemSet:
        """Return the task if it is one."""
        here = f"task.kind = {self.kind!r}"
        if not isinstance(task, ProblemSet):
            raise ValueError(
                f"{here}: the function returned {type(task).__name__}, expected a klimb.tasks.ProblemSet(name=…, "
                "train=…, held_out=…, score=…)"
            )
        counts = Counter(problem.problem_id for problem in (*task.train, *task.held_out))
        repeated = next((name for name, count in counts.items() if count > 1), None)
        if repeated is not None:
            raise ValueError(
                f"{here}: {counts[repeated]} problems have the problem_id {repeated!r}; each needs its own, and none "
                "may be in both train and held_out"
            )
        return task


def make_task(kind: str, **settings: Any) -> ProblemSet:
    """Return a task by kind and settings.

    Args:
        kind: `arithmetic`, `reasoning-gym:DATASET`, `file:PATH`, `calculator`, `guessing`, `sql`, `environment` or
            `python:module.function`; what follows the colon of the first ones may also be given as the setting
            `dataset` or `path`.
        settings: of the task, by name.

    Raises:
        ValueError: naming an unknown kind or setting, and the nearest known one.
    """
    given = as_written(**{**task_table(kind), **settings})
    row = OwnTask if is_own(kind) else TASKS[given["kind"]]
    signature = inspect.signature(row)
    for name in settings:
        if name not in signature.parameters:
            raise ValueError(
                f"the settings of task {kind!r} are {', '.join(signature.parameters)}; got {name!r}"
                f"{did_you_mean(name, signature.parameters)}"
            )
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(f"task {kind!r}: {error}; write it as {_in_short(given['kind'])}") from error
    return row(**given).make_task()


def task_table(task: str) -> dict[str, str]:
    """Return the table that `KIND`, `KIND:SUBJECT` or `python:module.function` stands for: its kind, and a key.

    Raises:
        ValueError: there is no such kind, or it takes nothing behind a colon.
    """
    if is_own(task):
        return {"kind": task}
    kind, _, subject = task.partition(":")
    if kind not in TASKS:
        raise ValueError(f"tasks are {', '.join((*TASKS, OWN_KIND))}; got {kind!r}{did_you_mean(kind, TASKS)}")
    key = TASKS[kind].subject
    if subject and not key:
        ways = ", ".join(_in_short(name) for name in TASKS)
        raise ValueError(f"task {task!r}: {kind!r} takes nothing behind a colon; use {ways}")
    return {"kind": kind, key: subject} if subject else {"kind": kind}


def _in_short(kind: str) -> str:
    subject = TASKS[kind].subject
    return f"{kind}:{subject.upper()}" if subject else kind


def scored_where_it_can(task: ProblemSet) -> ProblemSet:
    """Return the task, scored in this process where its score function cannot be sent to another.

    A function of the program that is running, a lambda or a closure cannot. What it raises costs that response alone,
    as there, but nothing can end it when it hangs.
    """
    return task if task.trusted or _can_be_sent(task.score) else replace(task, trusted=True)


def _can_be_sent(score: ScoreFunction) -> bool:
    try:
        return b"__main__" not in pickle.dumps(score)
    # Whatever pickle says of an object that it cannot take.
    except Exception:
        return False
