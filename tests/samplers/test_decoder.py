"""klimb's own decoder against the transformers models that it stands in for."""

import dataclasses

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from klimb.samplers import LocalSampler
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.decoding_mode import decoding_mode, plain_arithmetic
from klimb.samplers.local import reason_against_own_decoder
from klimb.samplers.weights import llama_weights

CPU = torch.device("cpu")
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0}
SIZES |= {"attn_implementation": "eager"}
PROMPT_LENGTHS = (5, 1, 9)
NUM_STEPS = 6
CHUNK_LENGTHS = (3, 1, 4)
# Two orders of adding the same float32 numbers; logits lie between −10 and 10.
TOLERANCE = 1e-4
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}

KNOWN = {
    "grouped queries": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "one group a head": lambda: LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 4})),
    "one group for all": lambda: LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 1})),
    "a scale that is no power of two": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=12)),
    "tied head": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "stretched rotary": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROTARY)),
    "Qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "Mistral without window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
}


def made(build, *, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            # As they are made they are 1 and 0, and a mistake in them would not show.
            weight.data.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def sequences(num_vocab: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(num_vocab, (n + NUM_STEPS,), generator=generator).tolist() for n in PROMPT_LENGTHS]


@torch.no_grad()
def own_logits(model, dtype: torch.dtype = torch.float32, num_steps: int = NUM_STEPS) -> torch.Tensor:
    """`[steps + 1, sequences, vocab]` after the prompts and after each further token, in lanes of shuffled order."""
    decoder = LlamaDecoder(llama_weights(model), compute_dtype=dtype, num_positions=20)
    rows = sequences(model.config.vocab_size)
    states = decoder.read_prompts([row[:-NUM_STEPS] for row in rows])
    order = torch.tensor([2, 0, 1])
    cache = decoder.empty_cache(len(rows))
    cache.enter(torch.arange(len(rows)), states, order)
    logits = [states.logits]
    for step in range(num_steps):
        token_ids = torch.tensor([rows[i][step - NUM_STEPS] for i in order])
        logits.append(decoder.step(token_ids, states.lengths[order] + step, cache)[order.argsort()])
    return torch.stack(logits).float()


def expected_logits(model, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    rows = sequences(model.config.vocab_size)
    with decoding_mode(model, device=CPU, compute_dtype=dtype):
        full = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -NUM_STEPS - 1 :] for row in rows]
    return torch.stack(full, dim=1).float()


@pytest.mark.parametrize("kind", KNOWN)
def test_logits_equal_those_of_a_full_forward(kind: str):
    model = made(KNOWN[kind])
    assert reason_against_own_decoder(model, device=CPU, compute_dtype=torch.float32) == ""
    torch.testing.assert_close(own_logits(model), expected_logits(model), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def logits_of_chunks(model, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`[chunks, vocab]` after 3, 1 and 4 tokens behind the prompts, in lanes of shuffled order beside an empty one."""
    decoder = LlamaDecoder(llama_weights(model), compute_dtype=dtype, num_positions=20)
    rows = sequences(model.config.vocab_size)
    states = decoder.read_prompts([row[:-NUM_STEPS] for row in rows])
    lanes = torch.tensor([3, 0, 2])
    cache = decoder.empty_cache(4)
    cache.enter(lanes, states, torch.arange(3))
    chunks = [row[n : n + count] for row, n, count in zip(rows, PROMPT_LENGTHS, CHUNK_LENGTHS, strict=True)]
    return decoder.read_more(lanes, chunks, states.lengths, cache).float()


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_after_a_chunk_are_those_of_a_full_forward(kind: str, dtype: torch.dtype):
    model = made(KNOWN[kind])
    after = torch.tensor(CHUNK_LENGTHS), torch.arange(3)
    found, expected = logits_of_chunks(model, dtype), expected_logits(model, dtype)[after]
    if dtype == torch.float32:
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    else:
        assert (found - expected).abs().mean() < 0.2 * (expected - expected_logits(model)[after]).abs().mean()


@pytest.mark.parametrize("kind", ["grouped queries", "a scale that is no power of two", "biases", "Qwen2"])
def test_bfloat16_rounds_as_the_model_does_under_autocast(kind: str):
    model = made(KNOWN[kind])
    found, expected = own_logits(model, torch.bfloat16), expected_logits(model, torch.bfloat16)
    exact = expected_logits(model)
    # What is left is a sum that falls on the other side of a rounding now and then: far less than rounding itself.
    assert (found - expected).abs().mean() < 0.1 * (expected - exact).abs().mean()


ADAPTERS = {"LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}, "both": {}}
ADAPTERS["both"] = ADAPTERS["rsLoRA"] | ADAPTERS["DoRA"]


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_adapter_is_added_as_the_model_adds_it(dtype: torch.dtype, kind: str):
    base = made(KNOWN["biases"])
    plain = expected_logits(base, dtype)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **ADAPTERS[kind])
    adapted = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    for name, weight in adapted.named_parameters():
        if "magnitude" in name:
            weight.data.mul_(1 + torch.rand(weight.shape, generator=generator))
        elif "lora_" in name:
            weight.data.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    adapted.eval()
    expected = expected_logits(base, dtype)
    assert (expected - plain).abs().mean() > 0.5
    gap = (own_logits(base, dtype) - expected).abs()
    assert gap.max() < TOLERANCE if dtype == torch.float32 else gap.mean() < 0.02
    with adapted.disable_adapter():
        torch.testing.assert_close(own_logits(base), expected_logits(base), rtol=0, atol=TOLERANCE)


def test_a_long_prompt_in_blocks_of_queries_equals_one_block(monkeypatch: pytest.MonkeyPatch):
    model = made(KNOWN["grouped queries"])
    whole = own_logits(model)
    # Three prompts, four heads, nine positions: blocks of two queries.
    monkeypatch.setattr("klimb.samplers.decoder.MAX_SCORES", 3 * 4 * 9 * 2)
    torch.testing.assert_close(own_logits(model), whole, rtol=0, atol=TOLERANCE)


def test_the_models_weights_are_read_anew_each_time():
    model = made(KNOWN["tied head"])
    before = own_logits(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(-0.9)
    after = own_logits(model)
    assert (before - after).abs().max() > 0.1
    torch.testing.assert_close(after, expected_logits(model), rtol=0, atol=TOLERANCE)


OTHERS = {
    "query norms": (lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)), "k_norm"),
    "sliding window": (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)), "window of 4"),
    "other norm": (lambda: GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8)), "Gemma|activation|norm"),
    "factors that no name tells": (
        lambda: GraniteForCausalLM(GraniteConfig(**SIZES, residual_multiplier=0.5, logits_scaling=2.0)),
        "differs from its logits",
    ),
    "rotary that depends on length": (
        lambda: LlamaForCausalLM(
            LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
        ),
        "rotary embedding 'dynamic'",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_are_refused_with_the_reason(kind: str):
    build, reason = OTHERS[kind]
    found = reason_against_own_decoder(made(build), device=CPU, compute_dtype=torch.float32)
    assert any(part in found for part in reason.split("|")), found


def test_another_device_is_refused():
    model = made(KNOWN["grouped queries"])
    reason = reason_against_own_decoder(model, device=torch.device("cuda"), compute_dtype=torch.float32)
    assert "cuda" in reason


def test_fused_attention_is_refused_in_bfloat16_alone():
    model = LlamaForCausalLM(LlamaConfig(**SIZES | {"attn_implementation": "sdpa"})).eval()
    assert "'sdpa'" in reason_against_own_decoder(model, device=CPU, compute_dtype=torch.bfloat16)
    assert reason_against_own_decoder(model, device=CPU, compute_dtype=torch.float32) == ""


def test_a_layer_of_another_kind_is_refused():
    model = made(KNOWN["grouped queries"])

    class Odd(torch.nn.Linear):
        """Stands for a layer that computes something else."""

    model.model.layers[1].mlp.up_proj = Odd(32, 48, bias=False)
    assert "Odd" in reason_against_own_decoder(model, device=CPU, compute_dtype=torch.float32)


def test_a_weight_of_another_dtype_is_refused():
    model = made(KNOWN["grouped queries"]).double()
    assert "float64" in reason_against_own_decoder(model, device=CPU, compute_dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_a_lane_are_the_same_to_the_last_bit_alone_and_beside_others(tiny_policy, dtype):
    policy = dataclasses.replace(tiny_policy, compute_dtype=dtype)
    text = [3 + 7 * i % 80 for i in range(20)]
    with plain_arithmetic():
        decoder = LocalSampler(policy).own_decoder(64)
        found = []
        for num_lanes in (1, 2, 3, 8, 33):
            cache = decoder.empty_cache(num_lanes)
            for lane in range(num_lanes):
                decoder.read_more(torch.tensor([lane]), [text], torch.tensor([0]), cache)
            logits = decoder.step(torch.full((num_lanes,), 9), torch.full((num_lanes,), 20), cache)
            found += [logits[0], logits[-1]]
    assert all(torch.equal(each, found[0]) for each in found)
