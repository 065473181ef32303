"""LocalSampler's errors, other architectures, and what it leaves as it was."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from tests.samplers.test_local import PROMPTS, TOLERANCE, assert_log_probs_are_exact, seeded
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from klimb.experience.samples import SamplingSettings
from klimb.samplers import Completion, LocalSampler
from klimb.samplers.decoding_mode import decoding_mode

SETTINGS = SamplingSettings(max_new_tokens=10)
SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "pad_token_id": 0}


def stand_in(model: torch.nn.Module) -> SimpleNamespace:
    return SimpleNamespace(
        model=model, device=torch.device("cpu"), compute_dtype=torch.float32, end_ids=(7, 8, 9), temperature=1.0
    )


def sample(policy, prompts=PROMPTS, *, num_samples=2, settings=SETTINGS, **options):
    return LocalSampler(policy, **options).sample(
        prompts, num_samples=num_samples, settings=settings, generator=seeded()
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)),
        lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=4, attn_implementation="eager")),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    ],
    ids=["sliding window", "softcap and mixed windows", "query norms", "learned positions"],
)
def test_other_architectures_are_exact_too(build):
    torch.manual_seed(0)
    policy = stand_in(build().eval())
    for prompt, group in zip(PROMPTS, sample(policy), strict=True):
        for completion in group:
            assert_log_probs_are_exact(policy, prompt, completion, SETTINGS, TOLERANCE)


def test_a_state_space_model_is_refused():
    policy = stand_in(MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4)))
    with pytest.raises(ValueError, match=r"LocalSampler needs a model that takes past_key_values.*mamba"):
        sample(policy)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_fewer_than_one_sample_is_an_error(tiny_policy, num_samples):
    with pytest.raises(ValueError, match=f"num_samples must be >= 1, got {num_samples}"):
        sample(tiny_policy, num_samples=num_samples)


def test_an_empty_prompt_is_an_error_that_names_it(tiny_policy):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        sample(tiny_policy, [(1, 2), ()])


def test_a_prompt_that_leaves_no_room_is_an_error(tiny_policy):
    # The tiny model's context is 256.
    sample(tiny_policy, [(5,) * 246], num_samples=1)
    with pytest.raises(ValueError, match=r"prompt 0 has 247 tokens and max_new_tokens is 10.*context of 256"):
        sample(tiny_policy, [(5,) * 247])


@pytest.mark.parametrize("token", [-1, 10_000])
def test_a_token_outside_the_vocabulary_is_an_error(tiny_policy, token):
    with pytest.raises(ValueError, match="another tokenizer"):
        sample(tiny_policy, [(1, token)])


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"compact_fraction": 0.0}, {"max_prefill_tokens": 0}], ids=str)
def test_impossible_options_are_errors(tiny_policy, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be"):
        LocalSampler(tiny_policy, **options)


def test_a_completion_with_a_missing_log_prob_is_an_error():
    with pytest.raises(ValueError, match="equally long"):
        Completion(response_ids=(1, 2), log_mu=(0.0,), log_model=(0.0, 0.0), finish_reason="length")


def test_broken_weights_raise_and_leave_the_model_as_it_was(tiny_policy):
    tiny_policy.model.train()
    with torch.no_grad():
        tiny_policy.model.model.norm.weight[0] = math.nan
    with pytest.raises(FloatingPointError, match="define no distribution"):
        sample(dataclasses.replace(tiny_policy, compute_dtype=torch.bfloat16))
    assert all(module.training for module in tiny_policy.model.modules())
    assert all(weight.requires_grad for weight in tiny_policy.model.parameters())


def test_modes_and_frozen_weights_are_restored_one_by_one(tiny_policy):
    model = tiny_policy.model.train()
    model.model.layers[0].eval()
    model.model.layers[1].requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    sample(dataclasses.replace(tiny_policy, compute_dtype=torch.bfloat16))
    assert modes == [module.training for module in model.modules()]
    assert flags == [weight.requires_grad for weight in model.parameters()]


def test_sampling_inside_a_callers_autocast_leaves_no_weight_without_gradient(tiny_policy):
    policy = dataclasses.replace(tiny_policy, compute_dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sample(policy)
        policy.model(input_ids=torch.tensor([[1, 2, 3]])).logits.float().sum().backward()
    assert all(weight.grad is not None for weight in policy.model.parameters())


def test_weights_updated_inside_a_callers_autocast_are_the_ones_sampled(tiny_policy):
    policy = dataclasses.replace(tiny_policy, compute_dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        sample(policy)
        for weight in policy.model.parameters():
            weight.mul_(-0.5)
        inside = sample(policy)
    assert inside == sample(policy)


def test_float32_stays_float32_inside_a_callers_autocast(tiny_policy):
    alone = sample(tiny_policy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sample(tiny_policy) == alone


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_a_model_that_trains_with_checkpointing_and_dropout_is_sampled_without_either(tiny_policy):
    expected = sample(tiny_policy)
    tiny_policy.model.config.attention_dropout = 0.5
    tiny_policy.model.gradient_checkpointing_enable()
    tiny_policy.model.train()
    assert sample(tiny_policy) == expected


def test_a_frozen_weight_is_cast_once_and_not_at_every_token():
    layer = torch.nn.Linear(8, 8).requires_grad_(False)
    with decoding_mode(layer, device=torch.device("cpu"), compute_dtype=torch.bfloat16):
        before = layer(torch.ones(1, 8))
        # A cast that is kept does not see a change of the weight; one that is made anew does.
        layer.weight.data.fill_(100)
        assert torch.equal(layer(torch.ones(1, 8)), before)
    assert not torch.equal(layer(torch.ones(1, 8)).bfloat16(), before)
