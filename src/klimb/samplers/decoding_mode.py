"""How a training model is run while it decodes: no dropout, no gradient, the trainer's own precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.helpers import DoraCaching
from peft.tuners.lora import LoraLayer
from torch import nn


@contextmanager
def decoding_mode(model: nn.Module, *, device: torch.device, compute_dtype: torch.dtype) -> Iterator[None]:
    """Set evaluation mode and `compute_dtype` arithmetic for the duration; every module's mode is as before afterwards.

    For bfloat16 this is the trainer's autocast around the float32 weights, not a bfloat16 copy of them. With a copy the
    residual stream is rounded too: a call was 1.13 times faster, but the mean gap to the trainer's log-probabilities
    was 5e-2 nats instead of 7e-6 (SmolLM2-135M, eager attention, a CPU with AMX; 48 rows x 24 tokens for the gap).
    """
    # `no_grad`, not `inference_mode`: a model that caches a tensor in its forward (dynamic rotary embeddings do) would
    # keep an inference tensor, and the next training step would fail on it.
    with torch.no_grad(), _evaluation(model), _precision(model, device, compute_dtype), _row_norms_kept(model):
        yield


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Let klimb's own decoder compute as it is written, whatever autocast or gradients the caller has on."""
    # Not `inference_mode`: the model's own rotary embedding is asked, and may keep what it computes.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def _row_norms_kept(model: nn.Module) -> Iterator[None]:
    """Let peft compute the row norms that DoRA divides by once, not at every token, and forget them afterwards."""
    variants = [module for module in model.modules() if isinstance(module, LoraLayer) and module.lora_magnitude_vector]
    if not variants:
        yield
        return
    try:
        with DoraCaching():
            yield
    finally:
        # The weights may change before the model decodes again.
        for module in variants:
            for layer in module.lora_magnitude_vector.values():
                cast(Any, layer)._cache_clear()


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _precision(model: nn.Module, device: torch.device, compute_dtype: torch.dtype) -> Iterator[None]:
    if compute_dtype == torch.float32:
        with torch.autocast(device.type, enabled=False):
            yield
        return
    # Inside a caller's autocast, casts kept from before an update of the weights would be sampled from.
    torch.clear_autocast_cache()
    # Autocast keeps the cast of a weight between calls only while the weight requires a gradient. Frozen weights (all
    # but the adapter, with LoRA) would be cast again at every token.
    frozen = [weight for weight in model.parameters() if not weight.requires_grad and weight.is_floating_point()]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with torch.autocast(device.type, dtype=compute_dtype, cache_enabled=True):
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
