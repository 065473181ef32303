"""Grouped-query attention against transformers' own, and the choice between them."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import eager_attention_forward

from klimb.samplers.attention import (
    GROUPED_QUERY_ATTENTION,
    UnsupportedAttentionError,
    attention_by,
    decoding_attention,
    grouped_query_attention,
)

CPU = torch.device("cpu")
SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "pad_token_id": 0}


class Groups(torch.nn.Module):
    """What eager attention reads of its module."""

    def __init__(self, num_key_value_groups: int):
        super().__init__()
        self.num_key_value_groups = num_key_value_groups
        self.eval()


@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("time", [1, 5])
def test_grouped_query_attention_equals_eager_attention(heads: int, groups: int, time: int):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, heads, time, 8, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(3, groups, 7, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(3, 1, time, 7, dtype=torch.float64)
    mask[0, :, :, :2] = torch.finfo(torch.float64).min
    mask[1, :, 0, 4:] = torch.finfo(torch.float64).min
    expected, _ = eager_attention_forward(Groups(heads // groups), query, key, value, mask, scaling=0.3)
    found, _ = grouped_query_attention(Groups(heads // groups), query, key, value, mask, scaling=0.3)
    # Both take the softmax in float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("argument", ["softcap", "s_aux", "position_bias"])
def test_an_argument_that_changes_the_formula_is_refused(argument: str):
    states, mask = torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 1, 1)
    with pytest.raises(UnsupportedAttentionError, match=argument):
        grouped_query_attention(torch.nn.Identity(), states, states, states, mask, **{argument: 1.0})


def test_a_missing_mask_is_refused():
    states = torch.zeros(1, 2, 1, 4)
    with pytest.raises(UnsupportedAttentionError, match="no mask"):
        grouped_query_attention(torch.nn.Identity(), states, states, states, None)


def test_eager_attention_decodes_by_grouped_queries_and_the_model_keeps_its_own_afterwards():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")).eval()
    assert decoding_attention(model, CPU) == GROUPED_QUERY_ATTENTION
    assert model.config._attn_implementation == "eager"


def test_a_model_with_softcapped_scores_keeps_its_own_attention():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, attn_implementation="eager")).eval()
    assert decoding_attention(model, CPU) == "eager"


def test_a_model_whose_logits_would_change_keeps_its_own_attention():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")).eval()

    class Odd(torch.nn.Module):
        """Stands for an architecture that does more to attention than its arguments tell."""

        def forward(self, hidden_states, *args, **kwargs):
            factor = 2.0 if model.config._attn_implementation == GROUPED_QUERY_ATTENTION else 1.0
            output, weights = own(hidden_states * factor, *args, **kwargs)
            return output * factor, weights

    own = model.model.layers[0].self_attn
    model.model.layers[0].self_attn = Odd()
    assert decoding_attention(model, CPU) == "eager"


def test_other_devices_and_implementations_keep_their_own():
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa"))
    assert decoding_attention(model, torch.device("cuda")) == "sdpa"
    assert decoding_attention(model, CPU) == "sdpa"


def test_the_models_own_attention_returns_after_an_error():
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa"))
    with pytest.raises(KeyError), attention_by(model, GROUPED_QUERY_ATTENTION):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
