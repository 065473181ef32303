"""The sections of a run file that say more than the settings they extend, or what the workbench alone reads."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, StringConstraints

from klimb.declarations import Count, CountOrZero, LongText, OwnName, PathText, ShortText, configurable
from klimb.tasks.protocol import QuestionTemplate
from klimb.training.settings import (
    CloningSettings,
    EvaluationSettings,
    FeedbackSettings,
    RolloutSettings,
    TrainingSettings,
)
from klimb.workbench.config.bounds import SECTION, Loggers, OwnCallbacks, OwnFindings, RunName, in_plain_words


@configurable
@dataclass(frozen=True, kw_only=True)
class SamplingConfig(RolloutSettings):
    """How much is sampled per collection, and the behaviour policy it is drawn from."""

    sampler: Literal["local"] | OwnName = "local"
    """Who draws: klimb's own sampler, or a function of your own: of the policy and max_batch, returning a
    `klimb.samplers.Sampler`."""
    max_batch: Annotated[int, Ge(1), Le(100_000)] = 128
    """Answers generated at the same time."""


@configurable
@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingSettings):
    """How long and in which portions it trains."""

    num_threads: Annotated[int, Ge(0), Le(4_096)] = 0
    """CPU threads; 0 leaves PyTorch's choice."""


@configurable
@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(EvaluationSettings):
    """How the held-out problems are answered."""

    at_ends: bool = True
    """Evaluate before the first step and after the last one."""
    num_problems: Count = 100
    """Held-out problems at most."""
    greedy: bool = True
    """Before and after, also answer each problem once with the likeliest tokens."""


@configurable
@dataclass(frozen=True, kw_only=True)
class CloningConfig(CloningSettings):
    """A warm-up by behaviour cloning before the first collection."""

    path: PathText
    """JSONL, Parquet or CSV file with one example per row: a prompt and a response, or `messages`, a conversation whose
    assistant's turns are imitated, with the `tools` that it is offered."""
    prompt: ShortText = "prompt"
    """Column that holds what is asked."""
    response: ShortText = "response"
    """Column that holds the answer to imitate."""
    template: Literal["task"] | QuestionTemplate = "task"
    """The user's message; {question} stands for the prompt's column. `task` is the task's own, or `{question}` where
    all prompts have its words already."""
    system_prompt: LongText = "task"
    """System message; `task` is what all prompts of the run begin with, `none` is no such message."""


Condition = Annotated[
    str, StringConstraints(max_length=2_000), in_plain_words("a condition such as \"reward >= 0.5 and model = 'm'\"")
]


@configurable
@dataclass(frozen=True, kw_only=True)
class StoreSection:
    """Samples that this run did not draw."""

    path: PathText
    """A store that `klimb import` made, a run's folder, or one of its Parquet files; or `python:module.name`: a
    function of your own, of the seed (and the policy, if it has that argument), that returns the samples."""
    where: Condition = ""
    """Take only samples for which this holds: SQL over their columns, e.g. `reward is not null`."""
    held_out_fraction: Annotated[float, Ge(0), Le(0.5)] = 0.0
    """Share of the prompts that is not trained on, with all rows of the same users: the run ends by saying whether they
    tell the trained model from the untrained one. 0 holds none out."""


@configurable
@dataclass(frozen=True, kw_only=True)
class FeedbackSection(FeedbackSettings, StoreSection):
    """Samples that people rated, and what else they said of them."""


class RunSection(BaseModel):
    """Where the results go."""

    model_config = SECTION

    name: RunName = "run"
    """Name of the run; letters, digits, dot, dash and underscore."""
    folder: PathText = "runs"
    """Folder in which the run's own folder is made."""
    save_rollouts: bool = True
    """Keep every sampled answer as Parquet."""
    save_model: bool = True
    """Write the trained model as a Hugging Face folder."""
    report: bool = True
    """Draw the curves and write report.html at the end."""
    loggers: Loggers = ("tensorboard",)
    """Where else each step's metrics go; [] for nowhere."""
    callbacks: OwnCallbacks = ()
    """Your own code that is called as the run goes on, and may stop it."""
    log_completions: CountOrZero = 0
    """Answers of each step that the loggers get as a table: prompt, answer, reward and its parts, advantage; 0 for
    none."""
    findings: OwnFindings = ()
    """Rules of your own, whose findings stand in the report among the others."""
