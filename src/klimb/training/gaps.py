"""The gap between sampler and trainer: out of the update's first pass where that tells, else from a few rows."""

from collections.abc import Sequence

import torch

from klimb.experience import Batch, Sample
from klimb.samplers import sampler_trainer_gap
from klimb.training.scoring import score_samples
from klimb.training.settings import LoopSettings
from klimb.training.state import RunState
from klimb.training.step import StepOutcome


def comes_with_the_update(state: RunState, settings: LoopSettings) -> bool:
    """True if the update's first pass is over rows that were just drawn, by the very weights that drew them."""
    is_recorded = settings.log_mu == "sampler" and settings.collect.sampling.is_plain
    # Schedule-Free updates at y and samples at x.
    return is_recorded and not settings.sources.lag and state.optimizer.settings.kind == "adamw"


def gap_of_first_step(outcome: StepOutcome, part: Batch, *, policy_version: int) -> dict[str, float]:
    """The gap on the rows of the first optimizer step that this version of the policy drew; empty if there are none.

    Args:
        outcome: of the first step that went through the policy since that version.
        part: its minibatch.
        policy_version: optimizer steps that the weights had seen before.
    """
    if outcome.seen is None:
        return {}
    is_fresh = [sample.source == "rollout" and sample.policy_version == policy_version for sample in part.samples]
    mask = outcome.seen.mask & torch.tensor(is_fresh)[:, None]
    return sampler_trainer_gap(part.log_mu, outcome.seen.log_pi, mask) if mask.any() else {}


def measured_gap(state: RunState, used: Sequence[Sample], settings: LoopSettings) -> dict[str, float]:
    """The gap on a few rows, which costs a pass over them.

    Where it decides, they are spread evenly over the batch; else they are the next neighbours at each step, which share
    their prompt and so cost least. Only the sampler's log-probabilities of the unaltered model can be compared:
    `log_mu` if the sampling is plain, else `log_ref` where the sampler recorded it there.
    """
    count = min(settings.num_gap_rows, len(used))
    if settings.log_mu == "auto":
        rows = used[:: -(-len(used) // count)]
    else:
        rows = [used[(state.step * count + offset) % len(used)] for offset in range(count)]
    recorded = [sample.log_mu if settings.collect.sampling.is_plain else sample.log_ref for sample in rows]
    if None in recorded:
        return {}
    scored = score_samples(state.policy, rows, max_tokens=settings.update.step.micro_batch_tokens)
    return gap_between(recorded, scored)


def gap_between(recorded: Sequence[Sequence[float] | None], scored: Sequence[Sequence[float]]) -> dict[str, float]:
    """The gap between what the sampler recorded of each response and what the trainer says of it."""
    log_model = torch.tensor([[value for values in recorded for value in values or ()]], dtype=torch.float64)
    log_pi = torch.tensor([[value for values in scored for value in values]], dtype=torch.float64)
    return sampler_trainer_gap(log_model, log_pi, torch.ones_like(log_pi, dtype=torch.bool))
