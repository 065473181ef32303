"""Prompts and verifiable rewards; knows no model."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.tasks.answers import VERIFIERS
    from klimb.tasks.arithmetic import arithmetic
    from klimb.tasks.catalogue import TASKS, make_task, reasoning_gym
    from klimb.tasks.file import from_file
    from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, ScoreFunction, Task, chat
    from klimb.tasks.python_rewards import PythonReward, with_reward
    from klimb.tasks.scorer import Scorer, ScoringError
    from klimb.tasks.shaping import FormatReward, OverlongShaping, Shaping, shape, with_shaping

__all__ = [
    "TASKS",
    "VERIFIERS",
    "FormatReward",
    "OverlongShaping",
    "Problem",
    "ProblemSet",
    "PythonReward",
    "Response",
    "Score",
    "ScoreFunction",
    "Scorer",
    "ScoringError",
    "Shaping",
    "Task",
    "arithmetic",
    "chat",
    "from_file",
    "make_task",
    "reasoning_gym",
    "shape",
    "with_reward",
    "with_shaping",
]

open_lazily(__name__)
