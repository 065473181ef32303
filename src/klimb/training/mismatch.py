"""The gap between sampler and trainer: out of the update's first pass where that tells, else from a few rows.

How far the sampler's log-probabilities are from the trainer's, for the same tokens and the same weights.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.experience import Batch, Sample
from klimb.training.minibatches import score_samples
from klimb.training.settings import LoopSettings
from klimb.training.state import RunState
from klimb.training.update import StepOutcome


def sampler_trainer_mismatch(
    log_model: Float[Tensor, "batch time"], log_pi: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
) -> dict[str, float]:
    """Mean and largest |Δ| and the k3 estimate of KL(sampler‖trainer), in nats per token, over the counted tokens.

    With Δ = log_pi − log_model: `mismatch_mean_abs` = mean |Δ|, `mismatch_max_abs` = max |Δ| and
    `mismatch_k3` = mean(exp Δ − 1 − Δ).
    All three are 0 in exact arithmetic at equal weights; what is left is rounding: other batch shapes, other kernels.
    k3 estimates that KL when the tokens were drawn from `log_model` itself (plain settings); otherwise it is the same
    average over the tokens that were drawn. A nan or inf at a counted token shows in the result.

    Args:
        log_model: the sampler's log-probabilities under the policy itself, at its temperature with nothing cut off,
            or on the recorded support.
        log_pi: the trainer's, scored at the same weights before any update.
        mask: True counts. Masked positions may hold anything.

    Raises:
        ValueError: no token is counted.
    """
    if not mask.any():
        raise ValueError("mask counts no token; the gap needs at least one")
    delta = log_pi.detach()[mask].double() - log_model.detach()[mask].double()
    return {
        "mismatch_mean_abs": delta.abs().mean().item(),
        "mismatch_max_abs": delta.abs().max().item(),
        # expm1 keeps the digits that exp(Δ) − 1 loses at the usual Δ of 1e-3.
        "mismatch_k3": (torch.expm1(delta) - delta).mean().item(),
    }


def is_measured_in_update(state: RunState, settings: LoopSettings) -> bool:
    """Return True if the update's first pass is over rows that were just drawn, by the very weights that drew them."""
    is_recorded = settings.training.log_mu == "sampler" and settings.draws_from_policy
    # Schedule-Free updates at y and samples at x.
    return is_recorded and not settings.sampling.lag and state.optimizer.settings.kind != "schedule-free"


def mismatch_of_first_step(outcome: StepOutcome, part: Batch, *, policy_version: int) -> dict[str, float]:
    """Read the gap off the rows of the first optimizer step that this version of the policy drew; empty if none.

    Args:
        outcome: of the first step that went through the policy since that version.
        part: its minibatch.
        policy_version: optimizer steps that the weights had seen before.
    """
    inputs = outcome.inputs
    if inputs is None:
        return {}
    is_fresh = [
        sample.source == "rollout"
        and sample.policy_version == policy_version
        # A loss without a ratio scores all tokens, and log_mu is that of the support.
        and (sample.support is None or part.support is not None)
        for sample in part.samples
    ]
    mask = inputs.mask & torch.tensor(is_fresh)[:, None]
    return sampler_trainer_mismatch(part.log_mu, inputs.log_pi, mask) if mask.any() else {}


def measure_mismatch(state: RunState, used: Sequence[Sample], settings: LoopSettings) -> dict[str, float]:
    """Return the gap on a few rows, which costs a pass over them.

    Where it decides, they are spread evenly over the batch; else they are the next neighbours at each step, which share
    their prompt and so cost least. Only the sampler's log-probabilities of the policy itself can be compared:
    `log_mu` if that is what it draws from, else `log_ref` where the sampler recorded it there.
    """
    count = min(settings.training.num_mismatch_rows, len(used))
    if settings.training.log_mu == "auto":
        rows = used[:: -(-len(used) // count)]
    else:
        rows = [used[(state.step * count + offset) % len(used)] for offset in range(count)]
    recorded = [sample.log_mu if settings.draws_from_policy else sample.log_ref for sample in rows]
    if None in recorded:
        return {}
    scored = score_samples(state.policy, rows, max_tokens=settings.training.micro_batch_tokens)
    return mismatch_between(recorded, scored)


def mismatch_between(recorded: Sequence[Sequence[float] | None], scored: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the gap between what the sampler recorded of each response and what the trainer says of it."""
    log_model = torch.tensor([[value for values in recorded for value in values or ()]], dtype=torch.float64)
    log_pi = torch.tensor([[value for values in scored for value in values]], dtype=torch.float64)
    return sampler_trainer_mismatch(log_model, log_pi, torch.ones_like(log_pi, dtype=torch.bool))
