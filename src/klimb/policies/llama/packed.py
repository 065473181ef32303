"""The decoders of the Llama family on packed rows: one pass over prompts and responses, and no padding in it.

Only the order of the computation is klimb's own. Weights, adapters and rotary angles are those of the model's modules.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.mistral.modeling_mistral import MistralModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from klimb.policies.llama.attention import HeadShape, SharedAttention
from klimb.policies.llama.ops import embedded, gated_linear, joint_linear, rms_norm_of_sum
from klimb.policies.llama.rows import PackedRows
from klimb.policies.memory import num_checkpointed
from klimb.policies.settings import ActivationCheckpointing

KNOWN_DECODERS = (LlamaModel, MistralModel, Qwen2Model)
"""Exactly these classes: their forward passes are the computation below, and a subclass may change it."""


FIXED_ANGLES = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary embedding whose angles depend on the position alone, not on the longest row of a batch."""


def can_pack(decoder: PreTrainedModel) -> bool:
    """Return True if `packed_hidden` computes what the decoder's own forward pass computes."""
    config = decoder.config
    if type(decoder) not in KNOWN_DECODERS or not isinstance(getattr(config, "rope_parameters", None), dict):
        return False
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    has_window = getattr(config, "sliding_window", None) is not None or set(kinds) != {"full_attention"}
    is_fixed = config.rope_parameters.get("rope_type", "default") in FIXED_ANGLES
    return not has_window and is_fixed and all(map(_has_known_parts, cast(Any, decoder).layers))


def _has_known_parts(layer: nn.Module) -> bool:
    parts = {name: {child for child, _ in module.named_children()} for name, module in layer.named_children()}
    expected = {
        "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
        "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
        "input_layernorm": set(),
        "post_attention_layernorm": set(),
    }
    return parts == expected and type(cast(Any, layer).mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")


def packed_hidden(
    decoder: PreTrainedModel,
    rows: PackedRows,
    *,
    dtype: torch.dtype,
    checkpointing: ActivationCheckpointing = "never",
) -> Float[Tensor, "counted hidden"]:
    """Return final hidden states that the counted tokens are predicted from, in the dtype of the embedding.

    Values and gradients are those of separate full rows. The residual stream and the norms have the dtype of the
    embedding, linear layers and attention products have `dtype`.

    Args:
        decoder: one for which `can_pack` is True.
        rows: what goes through it.
        dtype: of matrix products.
        checkpointing: whether layers are computed again in the backward pass instead of keeping what they computed.
    """
    model = cast(Any, decoder)
    with torch.autocast(rows.ids.device.type, enabled=False):
        stream = embedded(rows.ids, model.embed_tokens)
        attention = _attention(model, rows, stream)
        layers = [_Layer(layer, attention, dtype) for layer in model.layers]
        num_again = num_checkpointed(checkpointing, layers[0].num_kept_bytes(len(rows.ids)), len(layers), stream)
        delta = None
        for number, layer in enumerate(layers):
            if number < num_again:
                # No random numbers are drawn in a layer, so none need to be drawn again.
                stream, delta = cast(
                    Any, checkpoint(layer, stream, delta, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                stream, delta = layer(stream, delta)
        # What predicts nothing needs no norm; its gradient arrives through the attention of later tokens.
        # Not by indexing: a prompt's last token predicts for many, and threads would add its gradients in any order.
        stream, last = (each.index_select(0, rows.predicting) for each in (stream, cast(Tensor, delta)))
        norm = model.norm
        _, hidden = rms_norm_of_sum(stream, last, norm.weight, epsilon=norm.variance_epsilon, dtype=stream.dtype)
        return hidden


def _attention(model: Any, rows: PackedRows, stream: Tensor) -> SharedAttention:
    """Return that of all layers, which differ in their weights alone."""
    own = model.layers[0].self_attn
    config = own.config
    heads = HeadShape(config.num_attention_heads, config.num_key_value_heads, own.head_dim, own.scaling)
    cos, sin = model.rotary_emb(stream, rows.positions[None])
    return SharedAttention(rows.blocks, cos[0], sin[0], heads)


@dataclass(frozen=True)
class _Layer:
    """One decoder layer on packed rows."""

    modules: Any
    attention: SharedAttention
    dtype: torch.dtype

    def __call__(self, stream: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the residual stream before the feed-forward layer, and what that adds to it."""
        layer, dtype = self.modules, self.dtype
        stream, normed = self._normed(stream, delta, layer.input_layernorm)
        own = layer.self_attn
        projected = joint_linear(normed, (own.q_proj, own.k_proj, own.v_proj), dtype=dtype)
        delta = joint_linear(self.attention(projected), (own.o_proj,), dtype=dtype)
        stream, normed = self._normed(stream, delta, layer.post_attention_layernorm)
        mlp = layer.mlp
        gate_and_up = joint_linear(normed, (mlp.gate_proj, mlp.up_proj), dtype=dtype)
        return stream, gated_linear(gate_and_up, mlp.down_proj, dtype=dtype)

    def _normed(self, stream: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        return rms_norm_of_sum(stream, delta, norm.weight, epsilon=norm.variance_epsilon, dtype=self.dtype)

    def num_kept_bytes(self, num_tokens: int) -> int:
        """Return what the backward pass of the layer keeps, adapters left out."""
        config, heads = self.modules.self_attn.config, self.attention.heads
        hidden, size = config.hidden_size, self.dtype.itemsize
        attended = heads.num_heads * heads.head_dim
        rotated = attended + 2 * heads.num_key_heads * heads.head_dim
        features = 2 * hidden + rotated + attended + 2 * config.intermediate_size
        num_probabilities = self.attention.num_pairs * heads.num_heads
        # The residual stream before each norm is in float32.
        return num_tokens * (8 * hidden + size * features) + size * num_probabilities
