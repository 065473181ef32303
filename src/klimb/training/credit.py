"""From one reward a response to an advantage a token, with the critic where there is one."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Batch, generalised_advantages, rewards_to_go, token_rewards, whitened
from klimb.experience.turn_rewards import spread_over_tokens, turn_rewards
from klimb.policies import Policy
from klimb.training.critic import Critic
from klimb.training.minibatches import for_each_portion, score_batch
from klimb.training.settings import CreditSettings, MicroBatchTokens


def assign_advantages(
    policy: Policy,
    critic: Critic | None,
    batch: Batch,
    credits: Float[Tensor, " batch"],
    settings: CreditSettings,
    *,
    turn_credits: Sequence[Sequence[float]] = (),
    max_tokens: MicroBatchTokens,
    generator: torch.Generator,
    is_of_policy: bool = True,
) -> tuple[Batch, dict[str, float]]:
    """Return the batch with its advantages, and metrics.

    With `response` the credit of a response is the advantage of each of its tokens, with `turn` that of a turn is the
    advantage of its tokens. Else it is the reward of its last token, less what its turns have at theirs, from which
    each token's advantage is made; the critic is trained here, on this batch, after its values were used.

    Args:
        policy: gives the features of the critic.
        critic: the value of each prefix; None where no value is learned.
        batch: whose advantages are not known yet.
        credits: one number a response: its reward less the baseline, which is 0 with `no-baseline`.
        settings: which token it is credited to.
        turn_credits: with `turn`, for each response a number for each turn that the policy drew.
        max_tokens: that go through the policy at once.
        generator: orders the critic's minibatches.
        is_of_policy: whether log_mu is the policy's own, of the weights that drew; else the KL in the reward, which is
            the policy's, is taken with the policy as it is now.
    """
    if settings.kind == "response":
        return replace(batch, advantages=credits.float()), {}
    if settings.kind == "turn":
        return replace(batch, advantages=_over_tokens(batch, turn_credits, at_ends=False).float()), {}
    is_read = settings.kl_in_reward > 0 and not is_of_policy
    rewards = token_rewards(
        _over_tokens(batch, turn_rewards(batch.samples, credits.tolist()), at_ends=True)
        if _has_turns(batch)
        else credits,
        batch.mask,
        log_prox=score_batch(policy, batch, max_tokens=max_tokens) if is_read else batch.log_mu,
        log_ref=batch.log_ref,
        kl_in_reward=settings.kl_in_reward,
    )
    metrics: dict[str, float] = {}
    if critic is None:
        advantages = rewards_to_go(rewards, batch.mask, discount=settings.discount)
    else:
        features = _compute_features(policy, batch, max_tokens=max_tokens)
        values = torch.zeros(batch.mask.shape).masked_scatter(batch.mask, critic.values(features))
        advantages, returns = generalised_advantages(
            rewards, values, batch.mask, discount=settings.discount, gae_lambda=settings.gae_lambda
        )
        metrics = critic.fit(features, returns[batch.mask], generator=generator)
    if settings.whiten:
        advantages = whitened(advantages, batch.mask)
    return replace(batch, advantages=advantages.float()), metrics


def _has_turns(batch: Batch) -> bool:
    """Return whether a response of the batch is of several turns, or one of several of a conversation."""
    return any(sample.turns or sample.episode for sample in batch.samples)


def _over_tokens(batch: Batch, by_turn: Sequence[Sequence[float]], *, at_ends: bool) -> Float[Tensor, "batch time"]:
    """Return each turn's number at its tokens, or at the last of them."""
    spread = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, (sample, numbers) in enumerate(zip(batch.samples, by_turn, strict=True)):
        tokens = spread_over_tokens(sample, numbers, at_ends=at_ends)[: spread.shape[1]]
        spread[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64)
    return spread


@torch.no_grad()
def _compute_features(
    policy: Policy, batch: Batch, *, max_tokens: MicroBatchTokens
) -> Float[Tensor, "tokens features"]:
    """Return the state that each counted token was predicted from, in the order of the mask."""
    features: dict[int, Tensor] = {}

    def read(rows: Sequence[int]) -> None:
        part = batch.select(rows).to(policy.device)
        states = policy.predicting_states(part.prompts, part.prompt_index, part.response_ids, part.mask).cpu()
        lengths = [int(count) for count in part.mask.sum(dim=1)]
        features.update(zip(rows, states.split(lengths), strict=True))

    for_each_portion(policy, batch, max_tokens=max_tokens, work=read)
    return torch.cat([features[row] for row in range(len(batch))])
