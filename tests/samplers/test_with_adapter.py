"""LocalSampler on a policy with a LoRA adapter."""

import pytest
import torch
from tests.samplers.test_local import PROMPTS, TOLERANCE, assert_log_probs_are_exact, seeded

from klimb.experience.samples import SamplingSettings
from klimb.policies import load_policy
from klimb.policies.adapters import LoraSettings
from klimb.samplers import LocalSampler


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", TOLERANCE), ("bfloat16", 0.1)])
def test_the_adapter_is_sampled_and_frozen_weights_stay_frozen(tiny_model_path, dtype, tolerance):
    policy = load_policy(str(tiny_model_path), dtype=dtype, device="cpu", lora=LoraSettings())
    settings = SamplingSettings(max_new_tokens=8)
    plain = LocalSampler(policy).sample(PROMPTS, num_samples=2, settings=settings, generator=seeded())
    generator = seeded(5)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    trained = set(policy.trainable())
    changed = LocalSampler(policy).sample(PROMPTS, num_samples=2, settings=settings, generator=seeded())
    assert changed != plain
    assert set(policy.trainable()) == trained
    for prompt, group in zip(PROMPTS, changed, strict=True):
        for completion in group:
            assert_log_probs_are_exact(policy, prompt, completion, settings, tolerance)
