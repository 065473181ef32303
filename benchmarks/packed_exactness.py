"""What klimb's own forward passes cost in exactness: distances from float32, and from what the sampler recorded.

    python benchmarks/packed_exactness.py

Answers of several prompts of different lengths are drawn in bfloat16. Printed are the mean distance of the sampler's
log-probabilities from the trainer's, for transformers' forward pass and for klimb's; then for each pass and dtype how
far log-probabilities and the gradient of a random weighting are from transformers' in float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from klimb.experience import SamplingSettings
from klimb.policies import Policy, load_policy
from klimb.samplers import LocalSampler

QUESTIONS = ("1+2", "33+45", "7+7", "123+9", "1250-111")
NUM_SAMPLES, NUM_TOKENS = 4, 12


@dataclass(frozen=True)
class Answers:
    """Drawn answers as the trainer takes them, with what the sampler recorded."""

    prompts: list[tuple[int, ...]]
    index: Tensor
    ids: Tensor
    mask: Tensor
    log_model: Tensor

    @classmethod
    def drawn_from(cls, policy: Policy) -> "Answers":
        """Return the same ones at every call."""
        prompts = [policy.render([{"role": "user", "content": f"What is {question}?"}]) for question in QUESTIONS]
        groups = LocalSampler(policy).sample(
            prompts,
            num_samples=NUM_SAMPLES,
            settings=SamplingSettings(max_new_tokens=NUM_TOKENS),
            generator=torch.Generator().manual_seed(1),
        )
        flat = [answer for group in groups for answer in group]
        lengths = torch.tensor([len(answer.response_ids) for answer in flat])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids, log_model = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(mask.shape)
        ids[mask] = torch.tensor([token for answer in flat for token in answer.response_ids])
        log_model[mask] = torch.tensor([value for answer in flat for value in answer.log_model])
        return cls(prompts, torch.arange(len(prompts)).repeat_interleave(NUM_SAMPLES), ids, mask, log_model)


def scored(policy: Policy, answers: Answers, *, packs: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the counted tokens, and the gradient of a random weighting of them as one vector."""
    policy.packs_rows, policy.compute_dtype = packs, dtype
    for parameter in policy.trainable().values():
        parameter.grad = None
    log_pi = policy.log_probs(answers.prompts, answers.index, answers.ids, answers.mask, with_entropy=True).log_pi
    weights = torch.randn(len(answers.ids), 1, generator=torch.Generator().manual_seed(0))
    (weights * log_pi).sum().backward()
    gradient = torch.cat(
        [parameter.grad.flatten() for parameter in policy.trainable().values() if parameter.grad is not None]
    )
    return log_pi.detach()[answers.mask], gradient


def main() -> None:
    """Print both tables."""
    policy = load_policy("smollm2-135m", dtype="bfloat16", device="cpu")
    answers = Answers.drawn_from(policy)
    expected, gradient = scored(policy, answers, packs=False, dtype=torch.float32)
    print("| pass | log π from float32, nats | gradient from float32, relative | log μ of the sampler, nats |")
    print("| :-- | --: | --: | --: |")
    for name, packs, dtype in (
        ("transformers, bfloat16", False, torch.bfloat16),
        ("klimb, bfloat16", True, torch.bfloat16),
        ("klimb, float32", True, torch.float32),
    ):
        log_pi, found = scored(policy, answers, packs=packs, dtype=dtype)
        distance = float((found - gradient).norm() / gradient.norm())
        gap = float((log_pi - answers.log_model[answers.mask]).abs().mean())
        shown_gap = f"{gap:.1e}" if dtype == torch.bfloat16 else "–"
        print(f"| {name} | {float((log_pi - expected).abs().mean()):.1e} | {distance:.1e} | {shown_gap} |")


if __name__ == "__main__":
    main()
