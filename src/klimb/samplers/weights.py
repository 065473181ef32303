"""The weights of a Llama-type model, found by structure: what klimb's own decoder computes with.

The type of every module is checked, so that an architecture that adds something (a norm, a gate, experts) is refused by
name. What types cannot tell (a factor on the residual stream, a norm with another formula) is left to the numeric check
of `klimb.samplers.local`.

Linear layers made ready for many products with few rows: several in one product, in the layout the CPU wants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from klimb.policies.padded import decoder_of

KNOWN_ROTARY = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone; others change with the length of the sequence."""


SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")
"""Bounds that are nearly invisible on the small scores of a numeric check."""


LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "act_fn"}


DECODER = {"embed_tokens", "layers", "norm", "rotary_emb"}


class UnknownArchitectureError(ValueError):
    """The model has something that klimb's own decoder does not compute; the message names it."""


@dataclass(frozen=True)
class LowRank:
    """An adapter's update: scaling · up(down(x)); with DoRA, the rows of the sum then get their learned lengths."""

    down: Tensor
    up: Tensor
    scaling: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class LinearWeights:
    """x·weightᵀ + bias, and an adapter's update added to it."""

    weight: Tensor
    bias: Tensor | None
    low_rank: LowRank | None = None


@dataclass(frozen=True)
class NormWeights:
    """RMSNorm: x / sqrt(mean(x²) + epsilon) · weight."""

    weight: Tensor
    epsilon: float


@dataclass(frozen=True)
class LayerWeights:
    """One layer: attention, then a SwiGLU feed-forward block, each after its norm and added to its input."""

    attention_norm: NormWeights
    query_key_value: tuple[LinearWeights, LinearWeights, LinearWeights]
    attention_output: LinearWeights
    feed_forward_norm: NormWeights
    gate_up: tuple[LinearWeights, LinearWeights]
    down: LinearWeights


@dataclass(frozen=True, kw_only=True)
class LlamaWeights:
    """A whole model. The tensors are the model's own, without gradient: they follow its updates.

    Attributes:
        rotary: transformers' module that gives cosines and sines of positions.
        num_groups: key-value heads.
        score_scale: factor on query·key.
    """

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: NormWeights
    head: LinearWeights
    rotary: nn.Module
    num_heads: int
    num_groups: int
    head_dim: int
    score_scale: float


def llama_weights(model: PreTrainedModel) -> LlamaWeights:
    """Return the weights of the model, by role.

    Raises:
        UnknownArchitectureError: the model is not of Llama's structure, or not all its weights are float32 on a CPU.
    """
    decoder = cast(Any, decoder_of(model))
    _check_config(model)
    _check_children(decoder, DECODER, "the decoder")
    if type(decoder.embed_tokens) is not nn.Embedding:
        raise UnknownArchitectureError(f"its embedding is a {type(decoder.embed_tokens).__name__}")
    others = {(weight.dtype, weight.device.type) for weight in model.parameters()} - {(torch.float32, "cpu")}
    if others:
        raise UnknownArchitectureError(f"its weights are not all float32 on a CPU: {sorted(map(str, others))}")
    attention = decoder.layers[0].self_attn
    layers = tuple(_layer(layer) for layer in decoder.layers)
    head_dim = int(attention.head_dim)
    query, key, _ = layers[0].query_key_value
    return LlamaWeights(
        embedding=decoder.embed_tokens.weight.detach(),
        layers=layers,
        norm=_norm(decoder.norm),
        head=_linear(model.get_output_embeddings()),
        rotary=decoder.rotary_emb,
        num_heads=len(query.weight) // head_dim,
        num_groups=len(key.weight) // head_dim,
        head_dim=head_dim,
        score_scale=float(getattr(attention, "scaling", head_dim**-0.5)),
    )


def _check_config(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    kind = rotary.get("rope_type", "default") if "rope_theta" in rotary or "rope_type" in rotary else "several"
    if kind not in KNOWN_ROTARY:
        raise UnknownArchitectureError(f"rotary embedding {kind!r}")
    if getattr(config, "sliding_window", None) is not None:
        raise UnknownArchitectureError(f"attention in a sliding window of {config.sliding_window}")
    other_layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if other_layers:
        raise UnknownArchitectureError(f"layers of type {sorted(other_layers)}")
    softcaps = [name for name in SOFTCAPS if getattr(config, name, None) is not None]
    if softcaps:
        raise UnknownArchitectureError(f"{softcaps[0]} is set")


def _check_children(module: nn.Module, expected: set[str], place: str) -> None:
    found = {name for name, _ in module.named_children()}
    if found != expected:
        raise UnknownArchitectureError(f"{place} differs from Llama's in {sorted(found ^ expected)}")


def _layer(layer: Any) -> LayerWeights:
    _check_children(layer, LAYER, "a layer")
    attention, feed_forward = layer.self_attn, layer.mlp
    _check_children(attention, ATTENTION, "attention")
    _check_children(feed_forward, FEED_FORWARD, "the feed-forward block")
    if not isinstance(feed_forward.act_fn, type(ACT2FN["silu"]) | nn.SiLU):
        raise UnknownArchitectureError(f"activation {type(feed_forward.act_fn).__name__}")
    return LayerWeights(
        attention_norm=_norm(layer.input_layernorm),
        query_key_value=(_linear(attention.q_proj), _linear(attention.k_proj), _linear(attention.v_proj)),
        attention_output=_linear(attention.o_proj),
        feed_forward_norm=_norm(layer.post_attention_layernorm),
        gate_up=(_linear(feed_forward.gate_proj), _linear(feed_forward.up_proj)),
        down=_linear(feed_forward.down_proj),
    )


def _norm(module: Any) -> NormWeights:
    if [name for name, _ in module.named_parameters()] != ["weight"] or not hasattr(module, "variance_epsilon"):
        raise UnknownArchitectureError(f"norm {type(module).__name__}")
    return NormWeights(module.weight.detach(), float(module.variance_epsilon))


def _linear(module: object) -> LinearWeights:
    if isinstance(module, LoraLinear):
        return _adapted(cast(Any, module))
    if type(module) is not nn.Linear:
        raise UnknownArchitectureError(f"a {type(module).__name__} in place of a linear layer")
    return LinearWeights(module.weight.detach(), None if module.bias is None else module.bias.detach())


def _adapted(module: Any) -> LinearWeights:
    """Return a linear layer with at most one active adapter, plain or with DoRA."""
    base = _linear(module.base_layer)
    active: Sequence[str] = [name for name in module.active_adapters if name in module.lora_A]
    if not module.merged and (module.disable_adapters or not active):
        return base
    variant = module.lora_variant.get(active[0], DoraLinearVariant) if active else DoraLinearVariant
    if module.merged or len(active) > 1 or not _is_dora(variant) or module.fan_in_fan_out:
        raise UnknownArchitectureError("several adapters, a merged one, or one that is neither low-rank nor DoRA")
    name = active[0]
    down, up = module.lora_A[name], module.lora_B[name]
    if type(down) is not nn.Linear or down.bias is not None or up.bias is not None:
        raise UnknownArchitectureError(f"an adapter of {type(down).__name__} layers, or with biases")
    magnitude = module.lora_magnitude_vector[name].weight.detach() if name in module.lora_variant else None
    update = LowRank(down.weight.detach(), up.weight.detach(), float(module.scaling[name]), magnitude)
    return LinearWeights(base.weight, base.bias, update)


def _is_dora(variant: object) -> bool:
    return variant is DoraLinearVariant or isinstance(variant, DoraLinearVariant)


TYPICAL_ROWS = 64
"""The layout is chosen for this many rows at a time; it serves other numbers too."""


class PreparedLinear:
    """Several linear layers of the same input; the result holds their outputs side by side.

    Products are those of autocast: with bfloat16, input, weights and biases are rounded to it, sums are float32, and
    the result is rounded once. An adapter's update is added as peft adds it, so that it rounds as in the trainer;
    merged into the weight, most of a small update would be lost in the weight's last bit.

    In bfloat16 the weights are copied, and packed where the CPU's library has a layout of its own. In float32 the
    model's own are read.
    """

    def __init__(self, layers: Sequence[LinearWeights], *, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._widths = [len(layer.weight) for layer in layers]
        self._biases = _joined_biases(layers, dtype)
        self._updates = _updates(layers, dtype)
        self._is_packed = dtype == torch.bfloat16 and can_pack()
        if dtype == torch.float32:
            self._weights = [layer.weight for layer in layers]
            return
        weight = torch.cat([layer.weight.to(dtype) for layer in layers])
        self._weights = [_packed(weight) if self._is_packed else weight]

    def __call__(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Return outputs in the dtype of the layer, which must be that of the inputs."""
        if self._is_packed:
            outputs = torch.ops.mkldnn._linear_pointwise(inputs, self._weights[0], self._biases, "none", [], "")
        elif len(self._weights) == 1:
            outputs = functional.linear(inputs, self._weights[0], self._biases)
        else:
            outputs = self._side_by_side(inputs)
        for update in self._updates:
            update.add_to(outputs[:, update.columns], inputs)
        return outputs

    def _side_by_side(self, inputs: Tensor) -> Tensor:
        outputs = inputs.new_empty(len(inputs), sum(self._widths))
        for weight, part in zip(self._weights, outputs.split(self._widths, dim=1), strict=True):
            torch.mm(inputs, weight.t(), out=part)
        return outputs if self._biases is None else outputs.add_(self._biases)


@cache
def can_pack() -> bool:
    """Tell whether torch can keep a bfloat16 weight in its library's layout on this CPU, with right products."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    weight = (torch.arange(96 * 64).view(96, 64) % 7 - 3).bfloat16()
    inputs = (torch.arange(5 * 64).view(5, 64) % 5 - 2).bfloat16()
    try:
        found = torch.ops.mkldnn._linear_pointwise(inputs, _packed(weight), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    # Small whole numbers: exact in any order of summation.
    return torch.equal(found, functional.linear(inputs, weight))


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)


def _joined_biases(layers: Sequence[LinearWeights], dtype: torch.dtype) -> Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    return torch.cat(biases).to(dtype)


@dataclass(frozen=True)
class _Update:
    """An adapter beside one of the layers; `gain` is DoRA's learned length over that of the row of W + scaling·B·A."""

    columns: slice
    down: Tensor
    up: Tensor
    scaling: float
    gain: Tensor | None
    bias: Tensor | None

    def add_to(self, outputs: Tensor, inputs: Tensor) -> None:
        """Add the update to the layer's outputs, in place and in peft's order."""
        low_rank = functional.linear(functional.linear(inputs, self.down), self.up)
        if self.gain is None:
            outputs += low_rank * self.scaling
            return
        product = outputs if self.bias is None else outputs - self.bias
        outputs += (self.gain - 1) * product + self.gain * low_rank * self.scaling


def _updates(layers: Sequence[LinearWeights], dtype: torch.dtype) -> list[_Update]:
    found, start = [], 0
    for layer in layers:
        columns = slice(start, start + len(layer.weight))
        start = columns.stop
        if layer.low_rank is not None:
            down, up = layer.low_rank.down.to(dtype), layer.low_rank.up.to(dtype)
            gain = _gain(layer.weight, layer.low_rank, down, up)
            bias = None if gain is None or layer.bias is None else layer.bias
            found.append(_Update(columns, down, up, layer.low_rank.scaling, gain, bias))
    return found


def _gain(weight: Tensor, update: LowRank, down: Tensor, up: Tensor) -> Tensor | None:
    if update.magnitude is None:
        return None
    # Row by row of the identity, as peft does, so that B·A is rounded as in the trainer.
    change = functional.linear(functional.linear(torch.eye(down.shape[1], dtype=down.dtype), down), up).T.float()
    return update.magnitude / torch.linalg.norm(weight + update.scaling * change, dim=1)
