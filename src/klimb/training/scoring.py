"""Log-probabilities of samples under the present weights, without gradient."""

from collections.abc import Sequence

import torch

from klimb.experience import Sample, collate
from klimb.policies import Policy
from klimb.training.minibatches import MicroBatchTokens, micro_batches_for


@torch.no_grad()
def score_samples(
    policy: Policy, samples: Sequence[Sample], *, max_tokens: MicroBatchTokens
) -> list[tuple[float, ...]]:
    """Log-probability in nats of each response token at temperature 1, one tuple a sample."""
    batch = collate(samples, torch.zeros(len(samples)), allow_absent_log_mu=True)
    scored: dict[int, tuple[float, ...]] = {}
    for rows in micro_batches_for(policy, batch, range(len(samples)), max_tokens=max_tokens):
        part = batch.select(rows).to(policy.device)
        log_pi = policy.log_probs(part.prompts, part.prompt_index, part.response_ids, part.mask).log_pi.tolist()
        for row, values in zip(rows, log_pi, strict=True):
            scored[row] = tuple(values[: len(samples[row].response_ids)])
    return [scored[row] for row in range(len(samples))]
