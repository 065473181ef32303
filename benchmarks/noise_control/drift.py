"""Where a policy went: its entropy and its KL from where it began, exact over the vocabulary, over fixed contexts.

Computed from the logits of the transformers model, so that nothing of klimb's own arithmetic is in the measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.noise_control.cells import NUM_TOKENS, TEMPERATURES
from klimb.policies import Policy
from klimb.tasks import Problem

NUM_CONTEXTS = 64


@dataclass(frozen=True)
class Drift:
    """Means over the contexts in nats: entropy before and after, and KL(after ‖ before), at each temperature."""

    before: dict[float, float]
    after: dict[float, float]
    kl: dict[float, float]


@dataclass(frozen=True)
class Contexts:
    """Prompts of one length, each with a response of the first policy whose tokens are predicted one by one."""

    ids: Int[Tensor, "contexts time"]
    prompt_length: int
    logits_before: Float[Tensor, "contexts tokens vocab"]

    def drift(self, policy: Policy) -> Drift:
        """Return how far the policy is from the first one."""
        logits = predict(policy, self.ids, self.prompt_length)
        before: dict[float, float] = {}
        after: dict[float, float] = {}
        kl: dict[float, float] = {}
        for temperature in TEMPERATURES:
            old = (self.logits_before / temperature).log_softmax(-1)
            new = (logits / temperature).log_softmax(-1)
            before[temperature] = float(-(old.exp() * old).sum(-1).mean())
            after[temperature] = float(-(new.exp() * new).sum(-1).mean())
            kl[temperature] = float((new.exp() * (new - old)).sum(-1).mean())
        return Drift(before, after, kl)


@torch.no_grad()
def predict(
    policy: Policy, ids: Int[Tensor, "contexts time"], prompt_length: int
) -> Float[Tensor, "contexts tokens vocab"]:
    """Return the logits from which the tokens behind the prompts are predicted, in float64."""
    return policy.causal_lm(input_ids=ids, use_cache=False).logits[:, prompt_length - 1 : -1].double()


@torch.no_grad()
def draw_contexts(policy: Policy, problems: Sequence[Problem]) -> Contexts:
    """Draw `NUM_CONTEXTS` responses from the model's own distribution, end tokens not heeded.

    Raises:
        ValueError: the prompts are not of one length.
    """
    prompts = [policy.render(problems[number % len(problems)].messages) for number in range(NUM_CONTEXTS)]
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1:
        raise ValueError(f"expected prompts of one length, got {sorted(lengths)} tokens; take problems alike")
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([list(prompt) for prompt in prompts])
    for _ in range(NUM_TOKENS):
        probabilities = policy.causal_lm(input_ids=ids, use_cache=False).logits[:, -1].double().softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    length = lengths.pop()
    return Contexts(ids, length, predict(policy, ids, length))
