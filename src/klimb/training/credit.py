"""From one reward a response to an advantage a token, with the critic where there is one."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Batch, generalised_advantages, rewards_to_go, token_rewards, whitened
from klimb.policies import Policy
from klimb.training.critic import Critic
from klimb.training.minibatches import micro_batches_for
from klimb.training.settings import CreditSettings, MicroBatchTokens


def assign_advantages(
    policy: Policy,
    critic: Critic | None,
    batch: Batch,
    settings: CreditSettings,
    *,
    max_tokens: MicroBatchTokens,
    generator: torch.Generator,
) -> tuple[Batch, dict[str, float]]:
    """Return the batch with an advantage a token, and metrics; the batch itself with `response`.

    The rewards are the batch's own advantages [batch], which `no-baseline` leaves as they are. The critic is fitted
    here, to this batch, after its values were used.
    """
    if settings.kind == "response":
        return batch, {}
    rewards = token_rewards(
        batch.advantages, batch.mask, log_mu=batch.log_mu, log_ref=batch.log_ref, kl_in_reward=settings.kl_in_reward
    )
    metrics: dict[str, float] = {}
    if critic is None:
        advantages = rewards_to_go(rewards, batch.mask, discount=settings.discount)
    else:
        features = _features(policy, batch, max_tokens=max_tokens)
        values = torch.zeros(batch.mask.shape).masked_scatter(batch.mask, critic.values(features))
        advantages, returns = generalised_advantages(
            rewards, values, batch.mask, discount=settings.discount, gae_lambda=settings.gae_lambda
        )
        metrics = critic.fit(features, returns[batch.mask], generator=generator)
    if settings.whiten:
        advantages = whitened(advantages, batch.mask)
    return replace(batch, advantages=advantages.float()), metrics


@torch.no_grad()
def _features(policy: Policy, batch: Batch, *, max_tokens: MicroBatchTokens) -> Float[Tensor, "tokens features"]:
    """Return the state that each counted token was predicted from, in the order of the mask."""
    features: dict[int, Tensor] = {}
    for rows in micro_batches_for(policy, batch, range(len(batch)), max_tokens=max_tokens):
        part = batch.select(rows).to(policy.device)
        states = policy.predicting_states(part.prompts, part.prompt_index, part.response_ids, part.mask).cpu()
        lengths = [int(count) for count in part.mask.sum(dim=1)]
        features |= dict(zip(rows, states.split(lengths), strict=True))
    return torch.cat([features[row] for row in range(len(batch))])
