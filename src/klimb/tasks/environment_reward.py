"""The reward that an environment gives itself, alone or beside that of a task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from klimb.tasks.batches import passes_batches_on
from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, ScoreFunction, without_score

ENVIRONMENTS_OWN = "environment"
"""Name of the environment's own reward where a run file names rewards, and of the part that it is of a sum."""


@dataclass(frozen=True)
class EnvironmentReward:
    """What the environment says a conversation was worth: its `get_reward`, else the sum of its turns' rewards."""

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score; without a reward where the environment gave none."""
        value = response.environment_reward
        if value is None:
            return Score(reward=None, reason="the environment gave no reward", applies=False)
        if not math.isfinite(value):
            return Score(reward=None, reason=f"the environment's reward is {value}, expected a finite number")
        return Score(reward=value, parts={ENVIRONMENTS_OWN: value}, reason=f"the environment's reward is {value:g}")


@passes_batches_on
@dataclass(frozen=True)
class WithEnvironmentReward:
    """A task's score and the environment's reward added up, as TRL adds `get_reward` to the reward functions."""

    score: ScoreFunction

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the sum for one response."""
        return self.change(self.score(problem, response), response)

    def change(self, score: Score, response: Response) -> Score:
        """Return the sum of the task's score and the environment's reward."""
        value = response.environment_reward
        if value is None or score.reward is None:
            return score
        if not math.isfinite(value):
            return Score(reward=None, reason=f"the environment's reward is {value}, expected a finite number")
        return replace(
            score,
            reward=score.reward + value,
            parts={**(score.parts or {"task": score.reward}), ENVIRONMENTS_OWN: value},
            reason=f"{score.reason}; the environment's reward is {value:g}",
        )


def with_environment_reward(task: ProblemSet) -> ProblemSet:
    """Return the task with what its environment gives; alone, where the task has no score of its own."""
    if task.score is without_score:
        return replace(task, score=EnvironmentReward(), trusted=True)
    if isinstance(task.score, EnvironmentReward):
        return task
    return replace(task, score=WithEnvironmentReward(task.score))
