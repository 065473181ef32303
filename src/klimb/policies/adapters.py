"""Low-rank adapters (LoRA) by peft."""

from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from klimb.policies.settings import ALL_LINEAR, LoraSettings

ADAPTER = "default"
"""peft's name of the only adapter."""


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Give the model a fresh adapter, which leaves its outputs unchanged (B starts at 0) and alone is trained.

    A is drawn from torch's global random state.

    Raises:
        ValueError: the targets name no module of the model.
    """
    is_all = settings.targets in (ALL_LINEAR, (ALL_LINEAR,))
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
