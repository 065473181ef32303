"""The inner loop on one batch: epochs, minibatches, and a guard against steps that are not finite."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from klimb.experience import Batch, write_samples
from klimb.losses import Loss
from klimb.policies import Policy
from klimb.training.minibatches import minibatches
from klimb.training.optimizers import Optimizer
from klimb.training.step import StepOutcome, StepSettings, log_probs_now, merged_metrics, optimizer_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """What is done with one batch.

    Attributes:
        num_epochs: passes over the batch.
        num_minibatches: optimiser steps a pass; fewer when there are fewer groups.
        step: of each of them.
        max_skipped_steps: this many steps in a row that are not finite end the run; 0 and 1 mean the first one.
    """

    num_epochs: int = 1
    num_minibatches: int = 1
    step: StepSettings = field(default_factory=StepSettings)
    max_skipped_steps: int = 5

    def __post_init__(self) -> None:
        for name, least in (("num_epochs", 1), ("num_minibatches", 1), ("max_skipped_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")


class NonFiniteError(ValueError):
    """Too many steps in a row had a loss or a gradient that was not finite."""


class NonFiniteGuard:
    """Counts steps that were not finite, keeps their batches, and ends the run when they do not stop.

    Attributes:
        num_in_a_row: since the last good step.
    """

    def __init__(self, folder: Path, *, max_in_a_row: int) -> None:
        self.num_in_a_row = 0
        self._folder = folder
        self._max_in_a_row = max(1, max_in_a_row)

    def watch(self, outcome: StepOutcome, batch: Batch, *, name: str) -> None:
        """Takes note of one step.

        Raises:
            NonFiniteError: it was one too many.
        """
        if not outcome.not_finite:
            self.num_in_a_row = 0 if outcome.num_tokens else self.num_in_a_row
            return
        self.num_in_a_row += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.parquet"
        write_samples(path, batch.samples)
        logger.warning("the %s is not finite: step skipped, its samples are in %s", outcome.not_finite, path)
        if self.num_in_a_row >= self._max_in_a_row:
            raise NonFiniteError(
                f"{self.num_in_a_row} steps in a row had a {outcome.not_finite} that is not finite; the samples of the "
                f"last one are in {path}. Lower the learning rate, or look there for an extreme reward or log_mu"
            )


def update(
    policy: Policy,
    optimizer: Optimizer,
    objective: Loss,
    batch: Batch,
    *,
    settings: UpdateSettings,
    generator: torch.Generator,
    on_outcome: Callable[[StepOutcome, Batch, str], None],
) -> dict[str, float]:
    """Trains on one batch at the gradient point; returns the merged metrics.

    Args:
        policy: the model.
        optimizer: of its parameters.
        objective: log-probabilities in, loss and metrics out.
        batch: what to train on.
        settings: epochs, minibatches and steps.
        generator: orders the minibatches.
        on_outcome: sees each step's outcome, its minibatch and its name (`e0-m3`) before the next one.
    """
    outcomes: list[StepOutcome] = []
    steps_before = optimizer.num_steps
    with optimizer.gradient_point():
        if objective.needs_log_prox:
            log_prox = log_probs_now(policy, batch, max_tokens=settings.step.micro_batch_tokens)
            batch = replace(batch, log_prox=log_prox)
        for epoch in range(settings.num_epochs):
            portions = minibatches(batch, num_minibatches=settings.num_minibatches, generator=generator)
            for number, rows in enumerate(portions):
                part = batch.select(rows)
                outcome = optimizer_step(policy, optimizer, objective, part, settings=settings.step)
                outcomes.append(outcome)
                on_outcome(outcome, part, f"e{epoch}-m{number}")
    return merged_metrics(outcomes) | {
        "num_optimizer_steps": float(optimizer.num_steps - steps_before),
        "num_skipped_steps": float(sum(bool(outcome.not_finite) for outcome in outcomes)),
        "num_tokens_trained": float(sum(outcome.num_tokens for outcome in outcomes)),
    }
