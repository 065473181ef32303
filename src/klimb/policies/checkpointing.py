"""How many layers are computed again in the backward pass, because keeping what they computed would not fit."""

import math
import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

ActivationCheckpointing = Literal["auto", "never", "always"]
"""`auto`: as many layers as are needed to stay within the budget; `always`: all of them."""

SHARE_OF_MEMORY = 0.4
"""What the kept activations of one pass may take of the device's memory; the rest is for weights, gradients, optimizer,
temporaries and whoever else is there."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def num_checkpointed(how: ActivationCheckpointing, num_bytes: int, num_layers: int, like: Tensor) -> int:
    """How many of the layers must not keep their activations.

    The budget is a share of what the device has, not of what is free at the moment: it stays the same from step to
    step, and memory that the process holds for reuse is not counted against it.

    Args:
        how: see `ActivationCheckpointing`.
        num_bytes: that one layer keeps for the backward pass.
        num_layers: in all.
        like: a tensor on the device; without gradients nothing is kept anyway.
    """
    if how == "never" or not torch.is_grad_enabled():
        return 0
    if how == "always":
        return num_layers
    budget = SHARE_OF_MEMORY * memory_of(like.device)
    if num_layers * num_bytes <= budget:
        return 0
    # A layer that is computed again needs its own activations then, one layer at a time.
    return num_layers - max(0, int(budget // num_bytes) - 1)


def memory_of(device: torch.device) -> float:
    """Bytes that the device has, or that this process may use of them; infinite if it does not say."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return math.inf
    total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, float(limit)) if limit.isdigit() else total
