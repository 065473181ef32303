"""klimb's own forward pass of the decoder against plain transformers models, one full row at a time."""

import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from klimb.policies import load_policy
from klimb.policies import policy as policy_module
from klimb.policies.llama.attention import QUERY_CHUNK, Rotation
from klimb.policies.llama.ops import rms_norm_of_sum
from klimb.policies.llama.packed import can_pack, packed_hidden
from klimb.policies.llama.rows import pack_rows

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": None,
}


def model_of(config_class, model_class, **changes):
    """A random float64 model whose norms are computed in float64 too, unlike transformers' own."""
    torch.manual_seed(0)
    config = config_class(**{**SIZES, **changes}, attn_implementation="sdpa")
    model = model_class(config).double().eval()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.forward = types.MethodType(plain_norm, module)
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.2)
    return model


def plain_norm(norm, x):
    return norm.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon))


MODELS = {
    "grouped": lambda: model_of(LlamaConfig, LlamaForCausalLM),
    "one-key-head": lambda: model_of(LlamaConfig, LlamaForCausalLM, num_key_value_heads=1),
    "ungrouped": lambda: model_of(LlamaConfig, LlamaForCausalLM, num_key_value_heads=4),
    "odd-scale": lambda: model_of(LlamaConfig, LlamaForCausalLM, head_dim=6),
    "biases": lambda: model_of(LlamaConfig, LlamaForCausalLM, attention_bias=True, mlp_bias=True),
    "llama3-angles": lambda: model_of(
        LlamaConfig,
        LlamaForCausalLM,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "qwen2": lambda: model_of(Qwen2Config, Qwen2ForCausalLM),
    "mistral": lambda: model_of(MistralConfig, MistralForCausalLM, sliding_window=None),
    "adapter": lambda: with_adapter(model_of(LlamaConfig, LlamaForCausalLM)),
}


def with_adapter(model):
    """LoRA on some of the layers, with an effect."""
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"])).double().eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return adapted.get_base_model()


def example(prompt_lengths=(3, 7, 1), rows=((1, 6), (0, 1), (2, 4), (1, 3), (0, 5), (1, 2))):
    """Rows of (prompt, length); the first has a hole, one has a single token."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(99, (n,), generator=generator).tolist() for n in prompt_lengths]
    index = torch.tensor([prompt for prompt, _ in rows])
    lengths = torch.tensor([length for _, length in rows])
    counted = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.where(counted, torch.randint(99, counted.shape, generator=generator), 0)
    counted[0, 1] = False
    return prompts, index, ids, counted


def plain_rows(decoder, prompts, index, ids, counted):
    """Hidden states that predict the counted tokens, from separate full rows."""
    states = []
    for row, prompt in enumerate(index.tolist()):
        full = torch.tensor([[*prompts[prompt], *ids[row].tolist()]])
        hidden = decoder(input_ids=full, use_cache=False).last_hidden_state[0, len(prompts[prompt]) - 1 : -1]
        states.append(hidden[counted[row]])
    return torch.cat(states)


def gradients(hidden, model):
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad and "lm_head" not in name}
    loss = (hidden.double().tanh() * weight).sum()
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def assert_same(model, arguments, *, dtype, tolerance, **options):
    decoder = model.get_decoder()
    expected = plain_rows(decoder, *arguments)
    actual = packed_hidden(decoder, pack_rows(*arguments), dtype=dtype, **options)
    assert (actual - expected).norm() <= tolerance * expected.norm()
    ours, theirs = gradients(actual, model), gradients(expected, model)
    for name, gradient in theirs.items():
        # The bias of keys moves all scores of a query alike: its true gradient is 0.
        scale = 1.0 if "k_proj.bias" in name else gradient.norm()
        assert (ours[name] - gradient).norm() <= tolerance * scale, name


@pytest.mark.parametrize("kind", MODELS)
def test_states_and_gradients_are_those_of_separate_rows(kind):
    model = MODELS[kind]()
    assert can_pack(model.get_decoder())
    assert_same(model, example(), dtype=torch.float64, tolerance=1e-9)


def test_a_prompt_longer_than_a_chunk_of_queries_is_no_exception():
    rows = [(0, 4), (1, 3), (0, 2), (2, 5)]
    arguments = example((QUERY_CHUNK + 40, QUERY_CHUNK + 1, 2 * QUERY_CHUNK), rows)
    assert_same(MODELS["grouped"](), arguments, dtype=torch.float64, tolerance=1e-9)


def test_equal_lengths_without_any_padding():
    arguments = example((5, 5), [(0, 4), (0, 4), (1, 4), (1, 4)])
    assert_same(MODELS["grouped"](), arguments, dtype=torch.float64, tolerance=1e-9)


def test_single_tokens_need_no_response_pass():
    arguments = example((5, 2), [(0, 2), (0, 1), (1, 1)])
    assert_same(MODELS["grouped"](), arguments, dtype=torch.float64, tolerance=1e-9)
    one = [(0, 1), (1, 1)]
    prompts, index, ids, _ = example((5, 2), [(0, 2), (1, 2)])
    arguments = (prompts, index, ids[:, :1], torch.ones(len(one), 1, dtype=torch.bool))
    assert_same(MODELS["grouped"](), arguments, dtype=torch.float64, tolerance=1e-9)


def test_in_float32_the_error_is_that_of_float32():
    assert_same(MODELS["grouped"]().float(), example(), dtype=torch.float32, tolerance=1e-5)


def test_layers_computed_again_give_the_same_bits():
    model, arguments = MODELS["biases"](), example()
    results = []
    for checkpointing in ("never", "always", "auto"):
        hidden = packed_hidden(
            model.get_decoder(), pack_rows(*arguments), dtype=torch.float64, checkpointing=checkpointing
        )
        results.append((hidden, *gradients(hidden, model).values()))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_layers_computed_again_keep_less():
    kept = {}
    model, arguments = MODELS["grouped"](), example()
    for checkpointing in ("never", "always"):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: _note(sizes, t), lambda t: t):
            packed_hidden(model.get_decoder(), pack_rows(*arguments), dtype=torch.float64, checkpointing=checkpointing)
        kept[checkpointing] = sum(sizes.values())
    assert kept["always"] < 0.6 * kept["never"]


def _note(sizes, tensor):
    """Bytes of each storage, once."""
    sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


class OwnForward(LlamaModel):
    """A subclass may compute anything."""


UNKNOWN = {
    "window": lambda: model_of(MistralConfig, MistralForCausalLM, sliding_window=4),
    "some-windows": lambda: model_of(
        Qwen2Config, Qwen2ForCausalLM, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "another-norm": lambda: GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8)),
    "another-activation": lambda: model_of(LlamaConfig, LlamaForCausalLM, hidden_act="gelu"),
    "angles-of-the-longest-row": lambda: model_of(
        LlamaConfig,
        LlamaForCausalLM,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_not_packed(kind):
    assert not can_pack(UNKNOWN[kind]().get_decoder())


def test_a_subclass_and_an_added_part_are_not_packed():
    assert not can_pack(OwnForward(LlamaConfig(**SIZES)))
    model = MODELS["grouped"]()
    model.get_decoder().layers[1].self_attn.q_norm = torch.nn.LayerNorm(8)
    assert not can_pack(model.get_decoder())


def test_an_architecture_with_a_window_is_scored_by_transformers_and_says_so(tmp_path, tiny_model_path):
    from transformers import AutoTokenizer

    MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4, eos_token_id=2)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(tmp_path)
    policy = load_policy(tmp_path, dtype="float32", device="cpu")
    assert not policy.packs_rows
    assert "eager attention" in policy.describe()


def test_a_known_architecture_is_packed_and_says_so_unless_an_attention_is_asked_for(tiny_model_path):
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu")
    assert policy.packs_rows
    assert "packed rows" in policy.describe()
    asked = load_policy(tiny_model_path, dtype="float32", device="cpu", attention="eager")
    assert not asked.packs_rows
    assert "eager attention" in asked.describe()


def test_a_packed_pass_that_gives_other_numbers_is_not_taken(tiny_model_path, monkeypatch):
    def wrong(*args, **kwargs):
        return 1.1 * packed_hidden(*args, **kwargs)

    monkeypatch.setattr(policy_module, "packed_hidden", wrong)
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu")
    assert not policy.packs_rows
    assert policy.logit_scale == 1


def test_in_bfloat16_the_values_are_those_of_transformers_rows_whatever_the_lengths(tiny_model_path):
    packed = load_policy(tiny_model_path, dtype="bfloat16", device="cpu")
    rows = load_policy(tiny_model_path, dtype="bfloat16", device="cpu", attention="eager")
    rows.shares_prompts = False
    torch.manual_seed(3)
    for ours, theirs in zip(packed.model.parameters(), rows.model.parameters(), strict=True):
        torch.nn.init.normal_(ours, std=0.1)
        theirs.data.copy_(ours.data)
    lengths = ((3, 17, 10), ((1, 6), (0, 1), (2, 4), (1, 3), (0, 5), (1, 2)))
    prompts, index, ids, counted = example(*lengths)
    with torch.no_grad():
        found, expected = (policy.log_probs(prompts, index, ids, counted).log_pi for policy in (packed, rows))
    # Another order of roundings differs by 1e-3 and more; what is left is the order of float32 sums in the head.
    assert packed.packs_rows and not rows.packs_rows
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("head_dim", [8, 16, 128])
def test_in_bfloat16_scores_round_as_those_of_transformers_also_if_their_scale_is_no_power_of_2(
    tmp_path, tiny_model_path, head_dim
):
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=head_dim, eos_token_id=2))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(tmp_path)
    packed = load_policy(tmp_path, dtype="bfloat16", device="cpu")
    rows = load_policy(tmp_path, dtype="bfloat16", device="cpu", attention="eager")
    rows.shares_prompts = False
    prompts, index, ids, counted = example((3, 17, 10), ((1, 6), (0, 1), (2, 4), (1, 3), (0, 5), (1, 2)))
    with torch.no_grad():
        found, expected = (policy.log_probs(prompts, index, ids, counted).log_pi for policy in (packed, rows))
        exact = load_policy(tmp_path, dtype="float32", device="cpu").log_probs(prompts, index, ids, counted).log_pi
    assert packed.packs_rows and not rows.packs_rows
    assert (found - expected).abs().max() < 1e-2 * (expected - exact).abs().max()


def test_rotation_and_norm_round_as_transformers_does():
    generator = torch.Generator().manual_seed(0)
    rows, angles = torch.randn(64, 3, 8, generator=generator), torch.randn(64, 4, generator=generator).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    low, high = rows.chunk(2, dim=-1)
    expected = rows * cos[:, None] + torch.cat([-high, low], dim=-1) * sin[:, None]
    rotation = Rotation.of(cos, sin)
    for out in (torch.empty_like(rows), torch.empty_like(rows, dtype=torch.bfloat16), rows):
        rotation(rows, out=out)
        assert torch.equal(out, expected.to(out.dtype))
    norm = LlamaRMSNorm(24, eps=1e-5)
    torch.nn.init.normal_(norm.weight, generator=generator)
    stream = torch.randn(64, 24, generator=generator)
    _, normed = rms_norm_of_sum(stream, None, norm.weight, epsilon=1e-5, dtype=torch.float32)
    assert torch.equal(normed, norm(stream))
