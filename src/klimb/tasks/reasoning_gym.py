"""Tasks of the package reasoning-gym, which is imported only when such a task is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from klimb.declarations import Count, Fraction, LongText, Parameters, Seed, ShortText, configurable, one_of
from klimb.tasks.answers import EXTRACTIONS
from klimb.tasks.protocol import MOST_UNUSABLE, QUESTION_SLOT, ProblemSet, QuestionTemplate, did_you_mean
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, as_written, with_reward


@configurable
@dataclass(frozen=True, kw_only=True)
class ReasoningGymSettings:
    """A generated task of the package `reasoning-gym`."""

    subject: ClassVar[str] = "dataset"

    kind: Literal["reasoning-gym"] = "reasoning-gym"
    """A dataset of reasoning-gym."""
    dataset: ShortText
    """Its name there, e.g. `leg_counting`."""
    parameters: Parameters = field(default_factory=dict)
    """Parameters of that dataset."""
    num_train: Count = 500
    """Training problems."""
    num_held_out: Count = 100
    """Problems kept out of training."""
    seed: Seed = 0
    """Of the generator."""
    extract: Annotated[str, one_of(EXTRACTIONS)] = "text"
    """What of the response is the answer: all, its last line, its last number, or what is in <answer>...</answer>."""
    reward: RewardOrTask = TASKS_OWN
    """`task` is the task's own reward; `python:module.function` calls yours, in a process of its own."""
    template: QuestionTemplate = QUESTION_SLOT
    """The user's message; {question} stands for the question."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        # A run file asks for at least one of each; from Python a side may stay empty.
        for name in ("num_train", "num_held_out"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.extract not in EXTRACTIONS:
            raise ValueError(f"extract must be one of {', '.join(EXTRACTIONS)}, got {self.extract!r}")

    def make_task(self) -> ProblemSet:
        """Return the problems, held-out ones from other seeds and with no question in common.

        The task's own reward is the dataset's score, from 0 to 1, which may give something for a partly right answer.

        Raises:
            ImportError: if the package is missing.
            ValueError: there is no such dataset or parameter, or too few different questions.
        """
        adapter = _load_adapter()
        return with_reward(adapter.reasoning_gym_problems(self), self.reward)


def check_dataset(name: str, *, setting: str, besides: str) -> None:
    """Return if reasoning-gym has a dataset of this name.

    Args:
        name: of the dataset.
        setting: that names it.
        besides: what the setting may be too.

    Raises:
        ImportError: if the package is missing.
        ValueError: there is none.
    """
    known = _load_adapter().DATASETS
    if name not in known:
        raise ValueError(
            f"{setting} names {name!r}, which is neither {besides!r} nor one of the {len(known)} datasets of "
            f"reasoning-gym{did_you_mean(name, [besides, *known])}"
        )


def _load_adapter() -> Any:
    try:
        return import_module("klimb.tasks.gym_problems")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "reasoning_gym":
            raise
        raise ImportError(
            "reasoning-gym tasks need a package that is not installed: pip install 'klimb[reasoning-gym]' "
            "(a C compiler must be there, for its dependency pycosat)"
        ) from error


def reasoning_gym(dataset: str, **settings: Any) -> ProblemSet:
    """Return problems of a reasoning-gym dataset, such as `chain_sum`; the others are `ReasoningGymSettings`."""
    return ReasoningGymSettings(**as_written(dataset=dataset, **settings)).make_task()
