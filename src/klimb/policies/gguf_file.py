"""A policy as one GGUF file, which llama.cpp and Ollama read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import gguf
import numpy as np
import torch
from gguf.quants import quantize
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM, MistralForCausalLM, PreTrainedModel, Qwen2ForCausalLM

from klimb.experience.atomic import replace_atomically
from klimb.policies.adapters import merged_state
from klimb.policies.gguf_tokenizer import fields_of_file, fields_of_tokenizer
from klimb.policies.policy import Policy

Encoding = Literal["f32", "f16", "q8_0"]
"""How matrices are kept; vectors are always float32."""


@dataclass(frozen=True)
class Architecture:
    """One that a GGUF file can say.

    Attributes:
        kind: in gguf's list.
        name: in the file.
        turns_pairs: queries and keys are kept in another order, because llama.cpp turns neighbours where transformers
            turns halves.
    """

    kind: gguf.MODEL_ARCH
    name: str
    turns_pairs: bool


ARCHITECTURES: Mapping[type[PreTrainedModel], Architecture] = {
    LlamaForCausalLM: Architecture(gguf.MODEL_ARCH.LLAMA, "llama", turns_pairs=True),
    MistralForCausalLM: Architecture(gguf.MODEL_ARCH.LLAMA, "llama", turns_pairs=True),
    Qwen2ForCausalLM: Architecture(gguf.MODEL_ARCH.QWEN2, "qwen2", turns_pairs=False),
}
"""Exactly these classes: what a subclass adds would be lost."""


KINDS: Mapping[Encoding, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType]] = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


BLOCK = 32
"""Numbers of a row that share a scale in Q8_0."""


INSTEAD = "klimb export --to merged writes a safetensors folder that llama.cpp's own converter reads"


def write_gguf(policy: Policy, file: Path, *, encoding: Encoding, tokenizer_from: Path | None, name: str) -> None:
    """Write weights (an adapter merged), tokenizer, chat template and temperature, whole or not at all.

    Args:
        policy: what is written.
        file: replaced if it is there.
        encoding: of the matrices.
        tokenizer_from: a GGUF file with the same tokens, whose tokenizer is taken over; None describes the policy's.
        name: that the file calls the model.

    Raises:
        ValueError: an architecture, a setting of it or a tokenizer that cannot be written so.
    """
    model = policy.causal_lm
    architecture = find_architecture(model)
    if tokenizer_from is None:
        fields = fields_of_tokenizer(policy.tokenizer, policy.num_vocab, end_id=policy.end_ids[0])
    else:
        fields = fields_of_file(tokenizer_from, policy.tokenizer, policy.num_vocab)
    tensors = named_tensors(model, architecture)
    with replace_atomically(file) as aside:
        writer = gguf.GGUFWriter(aside, architecture.name)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(KINDS[encoding][1])
        if encoding == "q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, model.config)
        writer.add_sampling_temp(policy.temperature)
        for field in fields:
            field.write(writer)
        if isinstance(template := policy.tokenizer.chat_template, str):
            writer.add_chat_template(template)
        for key, weight in tensors.items():
            _add_tensor(writer, key, weight, encoding)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def find_architecture(model: PreTrainedModel) -> Architecture:
    """Return how a GGUF file says the model.

    Raises:
        ValueError: it cannot.
    """
    architecture = ARCHITECTURES.get(type(model))
    if architecture is None:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise ValueError(f"{type(model).__name__} cannot be written as GGUF here, only {known}; {INSTEAD}")
    config = cast(Any, model.config)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope != "default":
        raise ValueError(f"rotary embeddings of the kind {rope!r} cannot be written as GGUF here; {INSTEAD}")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "sliding_window", None) is not None or kinds != {"full_attention"}:
        raise ValueError(f"a sliding window cannot be written as GGUF here; {INSTEAD}")
    if config.hidden_act != "silu":
        raise ValueError(f"the activation {config.hidden_act!r} is none that llama.cpp takes here; {INSTEAD}")
    return architecture


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(config.vocab_size)


def named_tensors(model: PreTrainedModel, architecture: Architecture) -> dict[str, Tensor]:
    """Return the weights by their names in a GGUF file; a head that is the embedding is left out.

    Raises:
        ValueError: a weight has no name there.
    """
    config = cast(Any, model.config)
    names = gguf.get_tensor_name_map(architecture.kind, config.num_hidden_layers)
    found: dict[str, Tensor] = {}
    for key, weight in merged_state(model).items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ValueError(f"the weight {key} has no name in a GGUF file of this architecture; {INSTEAD}")
        found[name] = _in_pairs(weight, key, config) if architecture.turns_pairs else weight
    return found


def _in_pairs(weight: Tensor, key: str, config: Any) -> Tensor:
    """Return rows of queries and keys in llama.cpp's order: of each head, i and i + half are neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    part = key.split(".")[-2]
    if part not in heads:
        return weight
    by_half = weight.reshape(heads[part], 2, weight.shape[0] // heads[part] // 2, *weight.shape[1:])
    return by_half.transpose(1, 2).reshape(weight.shape)


def _add_tensor(writer: gguf.GGUFWriter, name: str, weight: Tensor, encoding: Encoding) -> None:
    numbers: NDArray[np.float32] = weight.detach().to("cpu", torch.float32).contiguous().numpy()
    kind = KINDS[encoding][0]
    if numbers.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif encoding == "q8_0" and numbers.shape[-1] % BLOCK:
        kind = gguf.GGMLQuantizationType.F16
    if kind == gguf.GGMLQuantizationType.F16 and np.abs(numbers).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} holds {np.abs(numbers).max():g}, more than float16 can; use --encoding f32")
    writer.add_tensor(name, quantize(numbers, kind), raw_dtype=kind)
