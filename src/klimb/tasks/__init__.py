"""Prompts and verifiable rewards; knows no model."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.tasks.answers import VERIFIERS
    from klimb.tasks.arithmetic import ArithmeticSettings, arithmetic
    from klimb.tasks.catalogue import TASKS, OwnTask, TaskSettings, make_task
    from klimb.tasks.demonstrations import DEMONSTRATIONS, write_demonstrations
    from klimb.tasks.environment_problems import EnvironmentProblemSettings
    from klimb.tasks.environment_reward import EnvironmentReward, with_environment_reward
    from klimb.tasks.file import FileSettings, from_file
    from klimb.tasks.games import CalculatorSettings, GuessingSettings, SqlSettings
    from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, ScoreFunction, Task, chat
    from klimb.tasks.python_rewards import PythonReward, with_reward
    from klimb.tasks.reasoning_gym import ReasoningGymSettings, reasoning_gym
    from klimb.tasks.reward_model import ModelReward
    from klimb.tasks.rewards import RewardSettings, with_rewards
    from klimb.tasks.scorer import Scorer, ScoringError
    from klimb.tasks.settings import ScorerSettings, ScoringSettings
    from klimb.tasks.shaping import (
        FormatReward,
        FormatSettings,
        OverlongSettings,
        OverlongShaping,
        Shaping,
        apply_truncation,
        shape,
        with_shaping,
    )
    from klimb.tasks.truncation import Truncated, WrongIfCut

__all__ = [
    "DEMONSTRATIONS",
    "TASKS",
    "VERIFIERS",
    "ArithmeticSettings",
    "CalculatorSettings",
    "EnvironmentProblemSettings",
    "EnvironmentReward",
    "FileSettings",
    "FormatReward",
    "FormatSettings",
    "GuessingSettings",
    "ModelReward",
    "OverlongSettings",
    "OverlongShaping",
    "OwnTask",
    "Problem",
    "ProblemSet",
    "PythonReward",
    "ReasoningGymSettings",
    "Response",
    "RewardSettings",
    "Score",
    "ScoreFunction",
    "Scorer",
    "ScorerSettings",
    "ScoringError",
    "ScoringSettings",
    "Shaping",
    "SqlSettings",
    "Task",
    "TaskSettings",
    "Truncated",
    "WrongIfCut",
    "apply_truncation",
    "arithmetic",
    "chat",
    "from_file",
    "make_task",
    "reasoning_gym",
    "shape",
    "with_environment_reward",
    "with_reward",
    "with_rewards",
    "with_shaping",
    "write_demonstrations",
]

open_lazily(__name__)
