"""The update: epochs and minibatches over one batch, and in each one step of the optimizer.

A minibatch goes through the model in micro-batches that give one gradient. A step that is not finite is skipped and
counted; too many of them in a row end the run.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from klimb.experience import Batch, Sample, write_samples
from klimb.findings.metrics.of_losses import CLIP_FRACTIONS
from klimb.losses import Inputs, Loss
from klimb.policies import Policy, gradients_in_place
from klimb.training.late_writes import LateWrites
from klimb.training.minibatches import micro_batches_for, minibatches, score_batch, try_pass
from klimb.training.optimizers import Optimizer
from klimb.training.settings import ESS_METRICS, EssScaling, MicroBatchTokens, TrainingSettings


@dataclass(frozen=True)
class StepOutcome:
    """What came of one step.

    Attributes:
        metrics: of the objective over the whole minibatch, and of the gradient. Empty when nothing was computed.
        num_tokens: response tokens that went through the model.
        not_finite: what was not finite, so that the step was not taken; empty otherwise.
        inputs: what the objective was given, on the CPU: log_pi is from before the step, and the mask counts the rows
            that went through the policy, which end where the loss was not finite. None if none did.
    """

    metrics: dict[str, float]
    num_tokens: int
    not_finite: str = ""
    inputs: Inputs | None = None


def optimizer_step(
    policy: Policy,
    optimizer: Optimizer,
    objective: Loss,
    batch: Batch,
    *,
    micro_batch_tokens: MicroBatchTokens = "auto",
) -> StepOutcome:
    """Take one step on a minibatch; call it at the gradient point.

    `micro_batch_tokens` prompt and response tokens go through the model at once, with their padding where the policy
    does not pack rows: it changes memory and speed, the gradient stays the same up to rounding (gradient
    accumulation). A pass that runs out of memory is halved, and the minibatch begun again.

    The loss of the minibatch is the sum of those of its micro-batches, each divided by the minibatch's normaliser.
    With beta = 0 and no entropy bonus, rows whose advantage is exactly 0 have no gradient: they stay in the normaliser
    and skip the model, and the metrics are then over the other rows. No such row left means no step. A loss or a
    gradient that is not finite means no step either, and the outcome says so.

    An objective that needs numbers of the whole minibatch sees it first, which costs one more forward pass.
    """
    if objective.needs_minibatch:
        objective, batch = prepare_minibatch(policy, objective, batch, max_tokens=micro_batch_tokens)
    is_idle = (batch.advantages.reshape(len(batch), -1) == 0).all(dim=1)
    learns_from_all = objective.beta > 0 or objective.needs_entropy
    rows = [row for row in range(len(batch)) if learns_from_all or not bool(is_idle[row])]
    if not rows:
        return StepOutcome({}, 0)
    loss, inputs = _accumulate(policy, optimizer, objective, batch, rows, max_tokens=micro_batch_tokens)
    if not math.isfinite(loss):
        optimizer.zero_grad()
        return StepOutcome({"loss": loss}, int(inputs.mask.sum()), not_finite="loss", inputs=inputs)
    grad_norm = float(nn.utils.clip_grad_norm_(policy.trainable().values(), optimizer.settings.max_grad_norm))
    metrics = {"loss": loss, "grad_norm": grad_norm, "learning_rate": optimizer.learning_rate}
    if not math.isfinite(grad_norm):
        optimizer.zero_grad()
        return StepOutcome(metrics, int(inputs.mask.sum()), not_finite="gradient", inputs=inputs)
    metrics |= _measure(objective, inputs, [sample.source for sample in batch.samples])
    scale = _learning_rate_scale(metrics, optimizer.settings.ess_scaling)
    metrics["learning_rate"] *= scale
    optimizer.step(scale=scale)
    optimizer.zero_grad()
    metrics["zero_advantage_fraction"] = float(is_idle.double().mean())
    return StepOutcome(metrics, int(inputs.mask.sum()), inputs=inputs)


def _learning_rate_scale(metrics: Mapping[str, float], ess_scaling: EssScaling) -> float:
    """√(ESS/n) of the minibatch; 1 where an objective without a ratio measures none."""
    return 1.0 if ess_scaling == "none" else math.sqrt(metrics.get(ESS_METRICS[ess_scaling], 1.0))


def prepare_minibatch(
    policy: Policy, objective: Loss, batch: Batch, *, max_tokens: MicroBatchTokens
) -> tuple[Loss, Batch]:
    """Return the objective that knows this minibatch, and the minibatch with the advantages to call it with."""
    log_pi = score_batch(policy, batch, max_tokens=max_tokens)
    prepared, inputs = objective.prepare(Inputs.of(batch, log_pi, groups=batch.groups))
    return prepared, replace(batch, advantages=inputs.advantages)


def _accumulate(
    policy: Policy,
    optimizer: Optimizer,
    objective: Loss,
    batch: Batch,
    rows: Sequence[int],
    *,
    max_tokens: MicroBatchTokens,
) -> tuple[float, Inputs]:
    """Leave the gradient of these rows in the parameters; return the loss and what the policy says of them.

    It ends where a loss is not finite. Where a pass does not fit into memory, all begins again with smaller ones.
    """
    while True:
        optimizer.zero_grad()
        inputs, loss, fits = _make_empty_inputs(objective, batch), 0.0, True
        for portion in micro_batches_for(policy, batch, rows, max_tokens=max_tokens):
            part_loss = try_pass(policy, batch, portion, partial(_backward, policy, objective, batch, portion, inputs))
            if part_loss is None:
                fits = False
                break
            loss += part_loss
            if not math.isfinite(part_loss):
                break
        if fits:
            return loss, inputs


def _make_empty_inputs(objective: Loss, batch: Batch) -> Inputs:
    """Return the inputs of a whole minibatch of which nothing went through the policy yet; `_backward` fills them."""
    return Inputs.of(
        batch,
        torch.zeros(batch.mask.shape),
        mask=torch.zeros_like(batch.mask),
        entropy=torch.zeros(batch.mask.shape),
        normalizer=objective.normalizer(batch.mask),
    )


def _backward(policy: Policy, objective: Loss, batch: Batch, rows: Sequence[int], whole: Inputs) -> float:
    """Add the gradient of these rows' share of the loss; write what the policy says of them into `whole`."""
    part = batch.select(rows).to(policy.device)
    with gradients_in_place():
        scored = policy.log_probs(
            part.prompts, part.prompt_index, part.response_ids, part.mask, with_entropy=True, support=part.support
        )
        entropy = scored.entropy if objective.needs_entropy else None
        out = objective(Inputs.of(part, scored.log_pi, entropy=entropy, normalizer=whole.normalizer))
        if bool(out.loss.isfinite()):
            out.loss.backward()
    width = part.mask.shape[1]
    whole.log_pi[rows, :width] = scored.log_pi.detach().float().cpu()
    whole.mask[rows, :width] = part.mask.cpu()
    if scored.entropy is not None and whole.entropy is not None:
        whole.entropy[rows, :width] = scored.entropy.detach().float().cpu()
    return float(out.loss.detach())


@torch.no_grad()
def _measure(objective: Loss, inputs: Inputs, sources: Sequence[str]) -> dict[str, float]:
    """Return the objective's metrics over the whole minibatch at once: quantiles and sample sizes do not average.

    Where more than this step's rollouts are in it, also over each source's rows, as `replay/w_p99`.
    """
    metrics = dict(objective(inputs).metrics)
    if set(sources) != {"rollout"}:
        for source in dict.fromkeys(sources):
            rows = [row for row, other in enumerate(sources) if other == source]
            metrics |= {f"{source}/{name}": value for name, value in objective(inputs.select(rows)).metrics.items()}
    return metrics


def _measure_start(outcomes: Sequence[StepOutcome]) -> dict[str, float]:
    """Return the share of units that the clip touched before the first step on the batch; empty without a clip."""
    first = next((outcome.metrics for outcome in outcomes if outcome.metrics), {})
    touched = [first[name] for name in CLIP_FRACTIONS if name in first]
    return {"clip_at_start_fraction": sum(touched)} if touched else {}


def merge_metrics(outcomes: Sequence[StepOutcome]) -> dict[str, float]:
    """Merge metrics of several optimiser steps: `num_…` added up, `…_max` the largest, others token-weighted means."""
    computed = [outcome for outcome in outcomes if outcome.num_tokens > 0 and not outcome.not_finite]
    names = dict.fromkeys(name for outcome in computed for name in outcome.metrics)
    merged: dict[str, float] = {}
    for name in names:
        values = [(outcome.metrics[name], outcome.num_tokens) for outcome in computed if name in outcome.metrics]
        if name.rpartition("/")[2].startswith("num_"):
            merged[name] = sum(value for value, _ in values)
        elif name.endswith("_max"):
            merged[name] = max(value for value, _ in values)
        else:
            merged[name] = sum(value * tokens for value, tokens in values) / sum(tokens for _, tokens in values)
    return merged


logger = logging.getLogger(__name__)


class NonFiniteError(ValueError):
    """Too many steps in a row had a loss or a gradient that was not finite."""


class NonFiniteGuard:
    """Counts steps that were not finite, keeps their batches, and ends the run when they do not stop.

    Attributes:
        num_in_a_row: since the last good step.
    """

    def __init__(self, folder: Path, *, max_in_a_row: int, writes: LateWrites | None = None) -> None:
        self.num_in_a_row = 0
        self._writes = writes or LateWrites()
        self._folder = folder
        self._max_in_a_row = max(1, max_in_a_row)

    def watch(self, outcome: StepOutcome, batch: Batch, *, name: str) -> None:
        """Take note of one step.

        Raises:
            NonFiniteError: it was one too many.
        """
        if not outcome.not_finite:
            self.num_in_a_row = 0 if outcome.num_tokens else self.num_in_a_row
            return
        self.num_in_a_row += 1
        path = self._folder / f"{name}.parquet"
        self._writes.do(f"the samples of the skipped step {name} are", lambda: _write(path, batch.samples))
        logger.warning("the %s is not finite: step skipped, its samples are in %s", outcome.not_finite, path)
        if self.num_in_a_row >= self._max_in_a_row:
            raise NonFiniteError(
                f"{self.num_in_a_row} steps in a row had a {outcome.not_finite} that is not finite; the samples of the "
                f"last one are in {path}. Lower the learning rate, or look there for an extreme reward or log_mu"
            )


def _write(path: Path, samples: Sequence[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_samples(path, samples)


def _measure_idle_rows(outcomes: Sequence[StepOutcome], num_rows: Sequence[int]) -> dict[str, float]:
    """Return `zero_advantage_fraction` over the rows of all minibatches, those included that had nothing to learn."""
    name = "zero_advantage_fraction"
    shares = [
        (outcome.metrics.get(name, 1.0), count)
        for outcome, count in zip(outcomes, num_rows, strict=True)
        if not outcome.not_finite
    ]
    total = sum(count for _, count in shares)
    return {name: sum(share * count for share, count in shares) / total} if total else {}


def update(
    policy: Policy,
    optimizer: Optimizer,
    objective: Loss,
    batch: Batch,
    *,
    settings: TrainingSettings,
    generator: torch.Generator,
    on_outcome: Callable[[StepOutcome, Batch, str], None],
) -> dict[str, float]:
    """Train on one batch at the gradient point; return the merged metrics.

    Args:
        policy: the model.
        optimizer: of its parameters.
        objective: log-probabilities in, loss and metrics out.
        batch: what to train on.
        settings: epochs, minibatches and portions.
        generator: orders the minibatches.
        on_outcome: sees each step's outcome, its minibatch and its name (`e0-m3`) before the next one.
    """
    outcomes: list[StepOutcome] = []
    num_rows: list[int] = []
    steps_before = optimizer.num_steps
    with optimizer.gradient_point():
        if objective.needs_log_prox:
            log_prox = score_batch(policy, batch, max_tokens=settings.micro_batch_tokens)
            batch = replace(batch, log_prox=log_prox)
        for epoch in range(settings.num_epochs):
            portions = minibatches(batch, num_minibatches=settings.num_minibatches, generator=generator)
            for number, rows in enumerate(portions):
                part = batch.select(rows)
                outcome = optimizer_step(
                    policy, optimizer, objective, part, micro_batch_tokens=settings.micro_batch_tokens
                )
                outcomes.append(outcome)
                num_rows.append(len(rows))
                on_outcome(outcome, part, f"e{epoch}-m{number}")
    return (
        merge_metrics(outcomes)
        | _measure_start(outcomes)
        | _measure_idle_rows(outcomes, num_rows)
        | {
            "num_optimizer_steps": float(optimizer.num_steps - steps_before),
            "num_skipped_steps": float(sum(bool(outcome.not_finite) for outcome in outcomes)),
            "num_tokens_trained": float(sum(outcome.num_tokens for outcome in outcomes)),
        }
    )
