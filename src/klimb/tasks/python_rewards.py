"""Rewards of your own: `python:module.function`.

The function is called as `f(prompt=..., response=..., answer=..., metadata=...)`: three strings and a dict; one that
has a parameter `messages` also gets the whole conversation before the response.
It returns a number, a bool, or a dict of named parts, whose sum is the reward. A part named `correct` counts like the
others and also says whether the answer is right (if it is above 0); so does a bool. An answer that was cut off at the
token limit is then wrong, its part `correct` at most 0: the scorer sees to it, unless `scoring.truncated` is
`as-written`. A reward without such a verdict is not touched. None says that it judges no such response.

What its parameters are named says how it is called. `f(prompts, responses, answers, metadatas)` gets lists of all
responses to one problem and returns a list. `f(completions, ...)` is one of TRL's and gets what TRL gives it: see
`klimb.tasks.reward_calls`. Either may be `async def`; so may a function of one response, many of which then wait at
the same time.
It runs in a process of its own (see `klimb.tasks.Scorer`), whose import path starts with the working directory: with
`my_reward.py` there, `python:my_reward.reward` is found.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen

from klimb.declarations import Matching
from klimb.experience.samples import MOST_REWARD
from klimb.own_parts import LOCATION, PREFIX, is_object, is_own, load_function
from klimb.tasks.batches import Batches, BatchLimits, Scored, score_alone
from klimb.tasks.environment_reward import ENVIRONMENTS_OWN, EnvironmentReward
from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, Task, did_you_mean, environment_of
from klimb.tasks.reward_calls import RewardCall, read_call

RewardFunction = Callable[..., object]


TASKS_OWN = "task"
"""The reward that a task comes with."""


RewardOrTask = Annotated[
    str,
    MaxLen(200),
    Matching(
        rf"^({TASKS_OWN}|{ENVIRONMENTS_OWN})$|{LOCATION.pattern}",
        f"{TASKS_OWN!r}, {ENVIRONMENTS_OWN!r} or 'python:module.function'",
    ),
]


@dataclass(frozen=True)
class PythonReward:
    """Scores with the function at `location`, which is imported at the first use and not before."""

    location: str

    def __post_init__(self) -> None:
        if not is_own(self.location):
            raise ValueError(f"a reward of your own is written python:module.function, got {self.location!r}")

    @property
    def batches(self) -> Batches:
        """What the function is given at once: its parameters say it."""
        return load_call(self.location).batches

    def prepare(self) -> None:
        """Import the function."""
        load_call(self.location)

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score; without a reward, and with the reason, if the function returned none that can be used."""
        return score_alone(self, problem, response)

    def score_batch(
        self, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
    ) -> list[Scored]:
        """Return the scores; in the place of one what the function raised for it."""
        returned = load_call(self.location)(problems, responses, limits)
        return [each if isinstance(each, Exception) else as_score(each, self.location) for each in returned]


def with_reward(task: Task, reward: str | RewardFunction) -> ProblemSet:
    """Return the task with its problems scored by `reward`: `python:module.function`, or such a function itself.

    The reward `task` is the one that the task has, `environment` that of the environment alone.
    """
    problems = {"train": tuple(task.train), "held_out": tuple(task.held_out), "environment": environment_of(task)}
    if reward == TASKS_OWN:
        return ProblemSet(name=task.name, score=task.score, trusted=task.trusted, **problems)
    if reward == ENVIRONMENTS_OWN:
        return ProblemSet(name=task.name, score=EnvironmentReward(), trusted=True, **problems)
    location = reward if isinstance(reward, str) else location_of(reward)
    score, is_here = PythonReward(location), is_object(location)
    if is_here:
        score.prepare()  # of what no process of its own will import, this says now what is wrong with it
    return ProblemSet(
        name=f"{task.name} with {location}",
        score=score,
        trusted=is_here,
        **problems,
    )


def location_of(function: RewardFunction) -> str:
    """Return `python:module.function` for a function at the top of a module.

    Raises:
        ValueError: for a lambda, a nested function, or one of the script being run: no other process can import those.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<unnamed>")
    if module in (None, "__main__") or not name.isidentifier():
        raise ValueError(
            f"the reward function {name} cannot be imported by the process that runs it; "
            "define it with `def` at the top of a module of its own, such as my_reward.py, "
            f"and name it '{PREFIX}my_reward.{name if name.isidentifier() else 'reward'}'"
        )
    return f"{PREFIX}{module}.{name}"


def as_written(**settings: Any) -> dict[str, Any]:
    """Return settings as a run file writes them: a path as text, a reward function as `python:module.function`."""
    written = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    return {name: location_of(value) if callable(value) else value for name, value in written.items()}


def load_call(location: str) -> RewardCall:
    """Return how the function at `python:module.function` is called.

    Raises:
        ValueError: naming what is missing, or what its parameters should be.
    """
    return _read_once(load_reward(location), location)


@cache
def _read_once(function: RewardFunction, location: str) -> RewardCall:
    return read_call(function, location)


def load_reward(location: str) -> RewardFunction:
    """Return the function at `python:module.function`.

    Raises:
        ValueError: naming what is missing, and the nearest name there is.
    """
    if not is_own(location):
        raise ValueError(f"a reward of your own is written python:module.function, got {location!r}")
    if is_object(location):
        return load_function(location, setting="task.reward", expected="a reward function")
    return _import_reward(location)


@cache
def _import_reward(location: str) -> RewardFunction:
    module_name, _, function_name = location.removeprefix(PREFIX).rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        files = [path.stem for path in Path.cwd().glob("*.py")]
        raise ValueError(
            f"{location}: there is no module {module_name!r} in {os.getcwd()} or among the installed packages"
            f"{did_you_mean(module_name, files)}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, member in vars(module).items() if inspect.isfunction(member)]
        raise ValueError(
            f"{location}: module {module_name!r} has no function {function_name!r}{did_you_mean(function_name, names)}"
        )
    return function


def as_score(returned: object, location: str) -> Score:
    """Return the score that a reward function's return value means."""
    if isinstance(returned, Mapping):
        return score_of_parts(returned, location)
    if returned is None:
        return Score(reward=None, reason=f"{location} returned None, expected {EXPECTED}", applies=False)
    number = as_number(returned)
    if number is None:
        return unusable(location, returned, f"a number {WITHIN}" if is_beyond(returned) else EXPECTED)
    if is_bool(returned):
        says = bool(returned)
        return Score(reward=number, correct=says, parts={"correct": number}, reason=f"{location} says {says}")
    return Score(reward=number, parts={"reward": number}, reason=f"{location} gives {number:g}")


def score_of_parts(returned: Mapping[object, object], location: str) -> Score:
    """Return the score with the sum of the parts as reward."""
    parts: dict[str, float] = {}
    for name, part in returned.items():
        number = as_number(part)
        if not isinstance(name, str) or number is None:
            expected = f"parts {WITHIN}" if is_beyond(part) else "parts that are finite numbers with a name"
            return unusable(location, {name: part}, expected)
        parts[name] = number
    if not parts:
        return unusable(location, returned, "at least one part")
    total = math.fsum(parts.values())
    if abs(total) > MOST_REWARD:
        return unusable(location, returned, f"parts whose sum is {WITHIN}")
    reason = ", ".join(f"{name} {number:g}" for name, number in parts.items())
    correct = parts["correct"] > 0 if "correct" in parts else None
    return Score(reward=total, correct=correct, parts=parts, reason=f"{location} gives {reason}")


WITHIN = f"within ±{MOST_REWARD:g}"


EXPECTED = "a finite number, a bool or a dict of parts"


def is_bool(returned: object) -> bool:
    """Return whether it is a bool: Python's, or one of NumPy or torch, which are no numbers to Python."""
    return isinstance(_held(returned), bool)


def _held(returned: object) -> object:
    """Return what a tensor or array without dimensions holds; anything else as it is."""
    is_single = getattr(returned, "shape", None) == () and callable(getattr(returned, "item", None))
    return returned.item() if is_single else returned  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]


def is_beyond(returned: object) -> bool:
    """Return whether it is a number, and too large for a reward."""
    if not isinstance(returned, Real):
        return False
    try:
        return MOST_REWARD < abs(float(returned)) < math.inf
    except OverflowError:
        return True


def as_number(returned: object) -> float | None:
    """Return a real number or bool as float; None for what is not one, not finite, or no usable reward for its size.

    A tensor or array without dimensions is the number that it holds.
    """
    if is_bool(returned):
        return float(bool(returned))
    returned = _held(returned)
    if not isinstance(returned, Real | Decimal):
        return None
    try:
        number = float(returned)
    except (OverflowError, ValueError):  # the second of a Decimal that signals
        return None
    return number if math.isfinite(number) and abs(number) <= MOST_REWARD else None


def unusable(location: str, returned: object, expected: str) -> Score:
    """Return a score without a reward, whose reason names the function, what it returned and what it should."""
    what = f"{type(returned).__name__} {returned!r}"[:80]
    return Score(reward=None, reason=f"{location} returned {what}, expected {expected}")
