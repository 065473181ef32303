"""Low-rank adapters (LoRA) by peft."""

import difflib
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from klimb.policies.settings import ALL_LINEAR, LoraSettings

ADAPTER = "default"
"""peft's name of the only adapter."""


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Give the model a fresh adapter, which leaves its outputs unchanged (B starts at 0) and alone is trained.

    A is drawn from torch's global random state.

    Raises:
        ValueError: one of the targets names no layer of the model that an adapter can stand beside.
    """
    is_all = settings.targets in (ALL_LINEAR, (ALL_LINEAR,))
    if not is_all:
        _check_targets(model, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  peft divides it by r; it may be a float
        lora_dropout=0.0,
        target_modules=ALL_LINEAR if is_all else list(settings.targets),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if not isinstance(adapted, PeftModel):
        raise TypeError(f"peft returned {type(adapted).__name__} for a LoRA adapter, expected a PeftModel")
    return adapted


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Return if each target is the name, or the end of the name, of a layer with a weight matrix."""
    layers = {name: module for name, module in model.named_modules() if name}
    fitting = [name for name, module in layers.items() if isinstance(module, nn.Linear | nn.Embedding | Conv1D)]
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in fitting):
            continue
        ends = sorted({name.rpartition(".")[2] for name in fitting})
        near = difflib.get_close_matches(target, ends, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"model.lora.targets names {target!r}, and the model has no such layer{hint} It has "
            f"{', '.join(ends)}; {ALL_LINEAR!r} takes every linear layer but the head"
        )


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the plain model, W + (alpha / rank)·B·A where there is an adapter; the model is left as it is."""
    state = {
        name.replace(".base_layer.", "."): weight for name, weight in model.state_dict().items() if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            key = f"{name}.weight"
            state[key] = state[key] + cast(Any, module).get_delta_weight(ADAPTER)
    return state
