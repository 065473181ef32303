"""Which token a reward is credited to. Pure functions of numbers, [batch, time], in float64 inside.

The reward R of a response stands at its last token, or some of it at the last tokens of its turns; every token may also
be charged for leaving the reference:

    r_t = [t is the last token]·R − κ·(log prox_t − log ref_t), prox the policy before the batch
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.experience.advantages import STD_FLOOR, are_equal


def token_rewards(
    rewards: Float[Tensor, "batch ..."],
    mask: Bool[Tensor, "batch time"],
    *,
    log_prox: Float[Tensor, "batch time"] | None = None,
    log_ref: Float[Tensor, "batch time"] | None = None,
    kl_in_reward: float = 0.0,
) -> Float[Tensor, "batch time"]:
    """Return the reward of every token, r_t as above; 0 where the mask is False.

    Args:
        rewards: one finite number a response, or one a token: [batch, time].
        mask: True where a token counts; every row has one.
        log_prox: of prox, in nats, needed if `kl_in_reward` is not 0. It is log_mu where the
            policy itself drew.
        log_ref: likewise.
        kl_in_reward: κ, in units of the reward per nat.

    Raises:
        ValueError: a row without a token, a reward that is not finite, or a missing log-probability.

    Source: arXiv 2009.01325 (κ·log(π/ref) in the reward); REINFORCE++, arXiv 2501.03262.
    """
    if not bool(mask.any(dim=1).all()):
        raise ValueError("token_rewards: a response has no token; leave it out")
    if not bool(rewards.isfinite().all()):
        raise ValueError("token_rewards: a reward is not finite; leave such responses out")
    values = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    if kl_in_reward != 0:
        if log_prox is None or log_ref is None:
            raise ValueError(f"token_rewards: kl_in_reward is {kl_in_reward}, and log_prox or log_ref is missing")
        values = torch.where(mask, -kl_in_reward * (log_prox.double() - log_ref.double()), 0.0)
    if rewards.ndim == 2:
        return values + torch.where(mask, rewards.double(), 0.0)
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, columns, -1).max(dim=1).values
    values[torch.arange(len(rewards), device=mask.device), last] += rewards.double()
    return values


def rewards_to_go(
    rewards: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, discount: float = 1.0
) -> Float[Tensor, "batch time"]:
    """G_t = r_t + γ·G_{t+1} over the counted tokens; 0 elsewhere."""
    return _backward_sums(rewards, mask, decay=discount)


def generalised_advantages(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    discount: float = 1.0,
    gae_lambda: float = 1.0,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Advantages A_t = Σ_k (γλ)^k·δ_{t+k} with δ_t = r_t + γ·V_{t+1} − V_t, and the returns A_t + V_t to fit V to.

    V_t is the value of the prompt with the tokens before t, and 0 behind the last token: a response ends there, cut
    off or not. At λ = 1 this is `rewards_to_go` − V.

    Source: arXiv 1506.02438, equation 16.
    """
    known = torch.where(mask, values.double(), 0.0)
    deltas = torch.where(mask, rewards.double() + discount * _next_counted(known, mask) - known, 0.0)
    advantages = _backward_sums(deltas, mask, decay=discount * gae_lambda)
    return advantages, torch.where(mask, advantages + known, 0.0)


def whitened(advantages: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """Return (A − mean) / (std + 1e-6) over all counted tokens; 0 where they are all equal, and where nothing counts.

    Source: REINFORCE++, arXiv 2501.03262 (global advantage normalisation).
    """
    counted = advantages[mask].double()
    if counted.numel() < 2 or are_equal([float(counted.min()), float(counted.max())]):
        return torch.zeros_like(advantages)
    scaled = (advantages.double() - counted.mean()) / (counted.std() + STD_FLOOR)
    return torch.where(mask, scaled, 0.0).to(advantages.dtype)


def explained_variance(predicted: Float[Tensor, " tokens"], returns: Float[Tensor, " tokens"]) -> float:
    """1 − var(returns − predicted) / var(returns): 1 is perfect, 0 as good as a constant; 0 for equal returns."""
    variance = returns.double().var(correction=0)
    if float(variance) == 0:
        return 0.0
    return float(1 - (returns.double() - predicted.double()).var(correction=0) / variance)


def _backward_sums(
    terms: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, decay: float
) -> Float[Tensor, "batch time"]:
    """S_t = terms_t + decay·S_{t+1}, tokens that don't count being passed over."""
    sums = torch.zeros_like(terms)
    following = torch.zeros(len(terms), dtype=terms.dtype, device=terms.device)
    for column in range(terms.shape[1] - 1, -1, -1):
        counts = mask[:, column]
        here = terms[:, column] + decay * following
        sums[:, column] = torch.where(counts, here, 0.0)
        following = torch.where(counts, here, following)
    return sums


def _next_counted(values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """At each column the value at the next counted one; 0 behind the last."""
    shifted = torch.zeros_like(values)
    following = torch.zeros(len(values), dtype=values.dtype, device=values.device)
    for column in range(values.shape[1] - 1, -1, -1):
        shifted[:, column] = following
        following = torch.where(mask[:, column], values[:, column], following)
    return shifted
