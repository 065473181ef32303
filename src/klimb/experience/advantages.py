"""Rewards in, advantages out: how much better a response did than its baseline. Pure functions of numbers.

Samples without a reward must be taken out first; a baseline never averages an invented number.
All statistics are computed in float64, and rewards that are all equal give exactly 0, never rounding dust.

Which token a reward is credited to. Pure functions of numbers, [batch, time], in float64 inside.

The reward R of a response stands at its last token; every token may also be charged for leaving the reference:

    r_t = [t is the last token]·R − κ·(log μ_t − log ref_t)
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

STD_FLOOR = 1e-6
"""Added to a standard deviation before dividing; the value verl and the DAPO code use."""


def group_mean(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Reward minus the mean reward of its group: A_i = R_i − mean_g(R).

    Args:
        rewards: one finite number a response.
        group_ids: responses to the same prompt, drawn together, share one.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: arXiv 2505.17508 section 5 (no division by the standard deviation); Dr. GRPO, arXiv 2503.20783.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-mean")
    return _centred(values, groups).to(rewards.dtype)


def group_z_score(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Centred reward over the group's sample standard deviation: A_i = (R_i − mean_g) / (std_g + 1e-6).

    The deviation divides by G − 1, as the released GRPO codes do.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: GRPO, arXiv 2402.03300 section 4.1.2.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-z-score")
    centred = _centred(values, groups)
    variance = _group_sum(centred**2, groups) / (_group_sum(torch.ones_like(values), groups) - 1)
    return (centred / (variance.sqrt() + STD_FLOOR)).to(rewards.dtype)


def leave_one_out(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Reward minus the mean reward of the *other* responses of its group: A_i = G/(G − 1) · (R_i − mean_g(R)).

    The baseline does not depend on the response itself, so it leaves the gradient unbiased.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: RLOO, arXiv 2402.14740.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="leave-one-out")
    sizes = _group_sum(torch.ones_like(values), groups)
    return (_centred(values, groups) * sizes / (sizes - 1)).to(rewards.dtype)


def batch_z_score(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Reward centred and scaled over the whole batch: A_i = (R_i − mean) / (std + 1e-6). Groups play no part.

    Raises:
        ValueError: the batch has one response only, or a reward is not finite.

    Source: REINFORCE++, arXiv 2501.03262.
    """
    values, _ = _checked(rewards, group_ids, smallest_group=1, name="batch-z-score")
    if len(values) < 2:
        raise ValueError("batch-z-score: one response has no spread; draw at least 2 responses a batch")
    if values.max() == values.min():
        return torch.zeros_like(rewards)
    return ((values - values.mean()) / (values.std() + STD_FLOOR)).to(rewards.dtype)


def group_mean_batch_z_score(
    rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]
) -> Float[Tensor, " batch"]:
    """Reward minus its group's mean, over the standard deviation of those differences in the whole batch.

    Their mean over the batch is 0 as it stands, so a group of equal rewards keeps its exact 0.

    Raises:
        ValueError: a group has one response only, or a reward is not finite.

    Source: REINFORCE++-baseline, arXiv 2501.03262.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-mean-batch-z-score")
    centred = _centred(values, groups)
    return (centred / (centred.std() + STD_FLOOR)).to(rewards.dtype)


def no_baseline(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Return the reward itself: A_i = R_i.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="no-baseline")
    return rewards.clone()


def zero(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """A_i = 0 whatever the reward: behaviour cloning, where only the divergence teaches.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="zero")
    return torch.zeros_like(rewards)


def batch_mean(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """Reward minus the mean reward of the batch: A_i = R_i − mean(R). Groups play no part.

    Raises:
        ValueError: the batch has one response only, or a reward is not finite.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=1, name="batch-mean")
    if len(values) < 2:
        raise ValueError("batch-mean: the mean of one response is that response; use at least 2 responses a batch")
    return _centred(values, torch.zeros_like(groups)).to(rewards.dtype)


def group_soft_value(
    rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable], *, temperature: float = 1.0
) -> Float[Tensor, " batch"]:
    """Reward minus the soft value of its group: A_i = R_i − V, V = β·log mean_g exp(R/β), β the temperature.

    From samples of the anchor, V estimates the optimal value of the objective E_π[R] − β·KL(π‖anchor). The log of a
    mean is biased downwards: by about var(exp(R/β))/(2·G·mean²)·β for groups of G.

    Raises:
        ValueError: a group has one response only, a reward is not finite, or the temperature is not positive.

    Source: A*-PO, arXiv 2505.20686; OAPL, arXiv 2602.19362.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=2, name="group-soft-value")
    return (values - _soft_value(values, groups, temperature)).to(rewards.dtype)


def batch_soft_value(
    rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable], *, temperature: float = 1.0
) -> Float[Tensor, " batch"]:
    """Reward minus the soft value of the batch: A_i = R_i − β·log mean exp(R/β). Groups play no part.

    Raises:
        ValueError: the batch has one response only, a reward is not finite, or the temperature is not positive.
    """
    values, groups = _checked(rewards, group_ids, smallest_group=1, name="batch-soft-value")
    if len(values) < 2:
        raise ValueError("batch-soft-value: the value of one response is its reward; use at least 2 responses a batch")
    return (values - _soft_value(values, torch.zeros_like(groups), temperature)).to(rewards.dtype)


def thumbs(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """+1 for a desirable response and −1 for an undesirable one: R > 0.5 is desirable.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="thumbs")
    return torch.where(rewards > 0.5, 1.0, -1.0).to(rewards.dtype)


def ones(rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable]) -> Float[Tensor, " batch"]:
    """A_i = 1 whatever the reward: cloning by weight.

    Raises:
        ValueError: a reward is not finite.
    """
    _checked(rewards, group_ids, smallest_group=1, name="ones")
    return torch.ones_like(rewards)


AdvantageFunction = Callable[[Float[Tensor, " batch"], Sequence[Hashable]], Float[Tensor, " batch"]]


ADVANTAGES: Mapping[str, AdvantageFunction] = MappingProxyType(
    {
        function.__name__.replace("_", "-"): function
        for function in (
            group_mean,
            group_z_score,
            leave_one_out,
            batch_mean,
            batch_z_score,
            group_mean_batch_z_score,
            group_soft_value,
            batch_soft_value,
            no_baseline,
            thumbs,
            ones,
            zero,
        )
    }
)
"""Every advantage by the name that recipes and run files use; soft values at temperature 1."""


NEEDS_GROUPS = frozenset(
    {"group-mean", "group-z-score", "leave-one-out", "group-mean-batch-z-score", "group-soft-value"}
)
"""The names whose baseline compares responses to one prompt, so that at least two are needed."""


_SOFT_VALUES = {"group-soft-value": group_soft_value, "batch-soft-value": batch_soft_value}


TAKES_OFFSET = frozenset({"group-mean", "leave-one-out", "batch-mean", "no-baseline", *_SOFT_VALUES})
"""The names that are a reward minus a baseline in units of the reward, so that the baseline can be moved."""


def compute_advantages(
    rewards: Float[Tensor, " batch"],
    group_ids: Sequence[Hashable],
    *,
    kind: str,
    offset: float = 0.0,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """A_i = R_i − (V_i + offset) with V of the kind named, or what that kind is without a baseline.

    Args:
        rewards: one finite number a response.
        group_ids: responses to the same prompt share one.
        kind: a name in `ADVANTAGES`.
        offset: δ, added to the baseline. Negative: every response gets −δ more, so that what is about average is
            learned from (AsymRE, arXiv 2506.20520).
        temperature: β of the soft values; the other kinds have none.

    Raises:
        ValueError: an unknown kind, an offset for a kind without a baseline in units of the reward, or what the kind
            itself refuses.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"unknown advantages {kind!r}; there are {', '.join(ADVANTAGES)}")
    if not math.isfinite(offset) or (offset != 0 and kind not in TAKES_OFFSET):
        raise ValueError(
            f"{kind}: offset {offset} moves a baseline in units of the reward, and must be finite; "
            f"those that have one are {', '.join(sorted(TAKES_OFFSET))}"
        )
    if kind in _SOFT_VALUES:
        advantages = _SOFT_VALUES[kind](rewards, group_ids, temperature=temperature)
    else:
        advantages = ADVANTAGES[kind](rewards, group_ids)
    return advantages - offset if offset != 0 else advantages


def _checked(
    rewards: Float[Tensor, " batch"], group_ids: Sequence[Hashable], *, smallest_group: int, name: str
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    if len(rewards) != len(group_ids):
        raise ValueError(f"{name}: {len(rewards)} rewards for {len(group_ids)} group ids; give one each")
    if not bool(rewards.isfinite().all()):
        row = int((~rewards.isfinite()).nonzero()[0])
        raise ValueError(
            f"{name}: reward number {row} is {float(rewards[row])}; take samples without a finite reward out first"
        )
    small = [group for group, size in Counter(group_ids).items() if size < smallest_group]
    if small:
        raise ValueError(
            f"{name}: group {small[0]!r} has 1 response, and its baseline is that response; "
            "draw at least 2 responses a prompt, or use batch-z-score"
        )
    numbers: dict[Hashable, int] = {}
    groups = [numbers.setdefault(group, len(numbers)) for group in group_ids]
    return rewards.double(), torch.tensor(groups, dtype=torch.int64, device=rewards.device)


def _group_sum(values: Float[Tensor, " batch"], groups: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    return torch.zeros_like(values).index_add_(0, groups, values)[groups]


def _centred(values: Float[Tensor, " batch"], groups: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    means = _group_sum(values, groups) / _group_sum(torch.ones_like(values), groups)
    highest = torch.zeros_like(values).scatter_reduce_(0, groups, values, "amax", include_self=False)[groups]
    lowest = torch.zeros_like(values).scatter_reduce_(0, groups, values, "amin", include_self=False)[groups]
    # Three times 0.1 has a mean that is not 0.1; an even group must give 0, not a direction made of rounding.
    return torch.where(highest == lowest, 0.0, values - means)


def _soft_value(
    values: Float[Tensor, " batch"], groups: Int[Tensor, " batch"], temperature: float
) -> Float[Tensor, " batch"]:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"the temperature of a soft value must be finite and > 0, got {temperature}")
    highest = torch.zeros_like(values).scatter_reduce_(0, groups, values, "amax", include_self=False)[groups]
    tilted = _group_sum(((values - highest) / temperature).exp(), groups)
    return highest + temperature * (tilted / _group_sum(torch.ones_like(values), groups)).log()


def token_rewards(
    rewards: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch time"],
    *,
    log_mu: Float[Tensor, "batch time"] | None = None,
    log_ref: Float[Tensor, "batch time"] | None = None,
    kl_in_reward: float = 0.0,
) -> Float[Tensor, "batch time"]:
    """Return the reward of every token, r_t as above; 0 where the mask is False.

    Args:
        rewards: one finite number a response.
        mask: True where a token counts; every row has one.
        log_mu: in nats, needed if `kl_in_reward` is not 0.
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
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, columns, -1).max(dim=1).values
    values = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    if kl_in_reward != 0:
        if log_mu is None or log_ref is None:
            raise ValueError(f"token_rewards: kl_in_reward is {kl_in_reward}, and log_mu or log_ref is missing")
        values = torch.where(mask, -kl_in_reward * (log_mu.double() - log_ref.double()), 0.0)
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
    if counted.numel() < 2 or counted.max() == counted.min():
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
