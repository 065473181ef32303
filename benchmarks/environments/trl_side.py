"""The lock in TRL's GRPOTrainer, through its `environment_factory`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.environments.lock import Lock
from benchmarks.environments.talks import Talk

Draw = Callable[[Sequence[Sequence[int]]], list[list[int]]]
"""Prompts -> the turn that is drawn behind each."""


class Watched:
    """A trainer whose conversations are taken down.

    Attributes:
        talks: of each step, in the order of the rows, the samples of a row beside each other.
    """

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer
        self.talks: list[list[Talk]] = []
        self._generate, self._score = trainer._generate, trainer._calculate_rewards
        self._generated: tuple[Any, ...] = ()
        trainer._generate = self._keep_generated  # pyright: ignore[reportAttributeAccessIssue]
        trainer._calculate_rewards = self._keep_talks  # pyright: ignore[reportAttributeAccessIssue]

    def _keep_generated(self, *args: Any, **kwargs: Any) -> Any:
        self._generated = self._generate(*args, **kwargs)
        return self._generated

    def _keep_talks(self, *args: Any, **kwargs: Any) -> Any:
        rewards = self._score(*args, **kwargs)
        prompts, responses, masks, messages, *_ = self._generated
        self.talks.append(
            [
                Talk(
                    prompt_ids=tuple(prompt),
                    response_ids=tuple(response),
                    is_drawn=tuple(map(bool, mask)),
                    results=tuple(message["content"] for message in said if message["role"] == "tool"),
                    reward=float(reward),
                )
                for prompt, response, mask, said, reward in zip(
                    prompts, responses, masks, messages, rewards.sum(1).tolist(), strict=True
                )
            ]
        )
        return rewards


def make_trainer(
    model: Path, rows: Sequence[Mapping[str, Any]], output: str, *, draw: Draw | None = None, **settings: Any
) -> GRPOTrainer:
    """Return a trainer of the lock whose step has all rows, in their order.

    Args:
        model: folder of a model whose chat template TRL knows.
        rows: of the data set.
        output: folder for what it writes.
        draw: stands in for the model when turns are drawn.
        settings: of `GRPOConfig`.
    """
    usual = dict(
        output_dir=output,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        gradient_accumulation_steps=1,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        beta=0.0,
    )
    num_samples = settings["num_generations"]
    trainer = GRPOTrainer(
        model=str(model),
        args=GRPOConfig(**{**usual, "per_device_train_batch_size": len(rows) * num_samples, **settings}),
        train_dataset=Dataset.from_list([*map(dict, rows)]),
        environment_factory=Lock,
    )
    if draw is not None:
        trainer._generate_single_turn = (  # pyright: ignore[reportAttributeAccessIssue]
            lambda prompt_ids, *args, **kwargs: (draw(prompt_ids), None)
        )
    return trainer


def train_in_trl(
    model: Path, rows: Sequence[Mapping[str, Any]], *, draw: Draw | None = None, **settings: Any
) -> list[list[Talk]]:
    """Train, and return the conversations of each step."""
    with tempfile.TemporaryDirectory() as output:
        watched = Watched(make_trainer(model, rows, output, draw=draw, **settings))
        watched.trainer.train()
    return watched.talks
