"""How far the sampler's log-probabilities are from the trainer's, for the same tokens and the same weights."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sampler_trainer_gap(
    log_model: Float[Tensor, "batch time"], log_pi: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
) -> dict[str, float]:
    """Mean and largest |Δ| and the k3 estimate of KL(sampler‖trainer), in nats per token, over the counted tokens.

    With Δ = log_pi − log_model: `gap_mean_abs` = mean |Δ|, `gap_max_abs` = max |Δ|, `gap_k3` = mean(exp Δ − 1 − Δ).
    All three are 0 in exact arithmetic at equal weights; what is left is rounding: other batch shapes, other kernels.
    k3 estimates that KL when the tokens were drawn from `log_model` itself (plain settings); otherwise it is the same
    average over the tokens that were drawn. A nan or inf at a counted token shows in the result.

    Args:
        log_model: the sampler's log-probabilities under the untempered, untruncated model.
        log_pi: the trainer's, scored at the same weights before any update.
        mask: True counts. Masked positions may hold anything.

    Raises:
        ValueError: no token is counted.
    """
    if not mask.any():
        raise ValueError("mask counts no token; the gap needs at least one")
    delta = log_pi.detach()[mask].double() - log_model.detach()[mask].double()
    return {
        "gap_mean_abs": delta.abs().mean().item(),
        "gap_max_abs": delta.abs().max().item(),
        # expm1 keeps the digits that exp(Δ) − 1 loses at the usual Δ of 1e-3.
        "gap_k3": (torch.expm1(delta) - delta).mean().item(),
    }
