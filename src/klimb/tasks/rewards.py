"""Several rewards of a run: the tables `[rewards.NAME]`, and the sum that they make. Read without what scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, MaxLen, MinLen

from klimb.declarations import Matching, configurable, require, require_known
from klimb.own_parts import LOCATION, is_object
from klimb.tasks.environment_reward import ENVIRONMENTS_OWN, EnvironmentReward
from klimb.tasks.judge.reward import JudgeReward
from klimb.tasks.judge.settings import JUDGE, JudgeSettings
from klimb.tasks.protocol import ProblemSet, ScoreFunction
from klimb.tasks.python_rewards import TASKS_OWN, PythonReward
from klimb.tasks.reward_model import MODEL_PREFIX, ModelReward
from klimb.tasks.several_rewards import CombinedScore, WeightedReward

RewardName = Annotated[str, MinLen(1), MaxLen(60), Matching(r"^[A-Za-z0-9_-]+$", "letters, digits, - and _")]


RewardScale = Literal["none", "group", "batch"]


RewardDevice = Annotated[str, Matching(r"^(auto|cpu|mps|cuda(:\d{1,3})?)$", "auto, cpu, mps, cuda or cuda:0")]


RewardSource = Annotated[
    str,
    MaxLen(4_000),
    Matching(
        rf"^({TASKS_OWN}|{ENVIRONMENTS_OWN}|{JUDGE})$|{LOCATION.pattern}|^{MODEL_PREFIX}[^\x00-\x1f\x7f]+$",
        f"{TASKS_OWN!r}, {ENVIRONMENTS_OWN!r}, {JUDGE!r}, 'python:module.function' or '{MODEL_PREFIX}FOLDER'",
    ),
]


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """One of several rewards; the reward of an answer is their weighted sum."""

    reward: RewardSource
    """`task` is the task's own reward, `environment` that of the environment, `python:module.function` one of yours,
    `model:FOLDER` a sequence classifier with one label, which is shown the conversation and the answer in its own chat
    template, `judge` a model that is asked over HTTP, as the table `judge` says."""
    weight: Annotated[float, Ge(-1_000_000), Le(1_000_000)] = 1.0
    """It is multiplied by this; 0 only logs it."""
    scale: RewardScale = "none"
    """Before the weight: its values as they are, or centred and divided by their standard deviation over the answers to
    a prompt or over the batch. Advantages are made of that sum; the reward that is recorded and evaluated is not
    scaled."""
    device: RewardDevice = "auto"
    """Where a reward model computes; `auto` takes a GPU if there is one."""
    judge: JudgeSettings | None = None
    """Who judges and by what, where `reward` is `judge`."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.weight), "weight", self.weight, "finite")
        require_known("scale", self.scale, get_args(RewardScale))
        if self.device != "auto" and not self.reward.startswith(MODEL_PREFIX):
            raise ValueError(
                f"device = {self.device!r} is that of a reward model, and reward = {self.reward!r} is none; "
                "leave it out"
            )
        if (self.reward == JUDGE) != (self.judge is not None):
            raise ValueError(
                "reward = 'judge' needs a table `judge` with a url, a model and a rubric"
                if self.judge is None
                else f"the table `judge` does nothing with reward = {self.reward!r}; leave it out, or set reward = "
                f"{JUDGE!r}"
            )
        if self.scale != "none" and self.weight == 0:
            raise ValueError(f"scale = {self.scale!r} does nothing with weight = 0; leave one of them out")


def with_rewards(task: ProblemSet, rewards: Mapping[str, RewardSettings]) -> ProblemSet:
    """Return the task whose score is the weighted sum of these rewards, each a part of it by its name.

    Raises:
        ValueError: a folder holds no reward model, or a judge's rubric cannot be read.
    """
    parts = tuple(
        WeightedReward(
            name=name,
            weight=settings.weight,
            score=_score_of(settings, task, key=f"rewards.{name}.reward"),
            is_of_task=settings.reward == TASKS_OWN,
        )
        for name, settings in rewards.items()
    )
    # What the program that is running holds is no other process's to load: then all are asked here.
    is_here = any(is_object(settings.reward) for settings in rewards.values())
    trusted = is_here or (task.trusted and all(each.is_of_task for each in parts))
    return replace(task, score=CombinedScore(parts), trusted=trusted)


def _score_of(settings: RewardSettings, task: ProblemSet, *, key: str) -> ScoreFunction:
    if settings.reward == TASKS_OWN:
        return task.score
    if settings.reward == ENVIRONMENTS_OWN:
        return EnvironmentReward()
    if settings.reward.startswith(MODEL_PREFIX):
        return ModelReward.of_folder(settings.reward.removeprefix(MODEL_PREFIX), device=settings.device, key=key)
    if settings.judge is not None:
        return JudgeReward.of_settings(settings.judge)
    return PythonReward(settings.reward)
