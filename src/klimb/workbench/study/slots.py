"""How many runs of a study go side by side, and on which devices."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from klimb.workbench.config import RunConfig

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Room for one run; `visible_devices` is what it may see of the GPUs, None for all as they are."""

    number: int
    visible_devices: str | None = None


def make_slots(configs: Sequence[RunConfig], *, jobs: int | Literal["auto"], threads_per_job: int) -> tuple[Slot, ...]:
    """A slot for each GPU, or for each `threads_per_job` processor cores where there is none; or as many as asked.

    More jobs than GPUs share them in turn.
    """
    devices = visible_devices() if all(_takes_any_gpu(config) for config in configs) else ()
    if devices:
        count = len(devices) if jobs == "auto" else jobs
        return tuple(Slot(number=n, visible_devices=devices[n % len(devices)]) for n in range(count))
    count = max(1, num_cores() // threads_per_job) if jobs == "auto" else jobs
    return tuple(Slot(number=number) for number in range(count))


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> tuple[str, ...]:
    """The GPUs that a run may be given, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name.strip()]
    return tuple(named[:count]) if named else tuple(str(number) for number in range(count))


def _takes_any_gpu(config: RunConfig) -> bool:
    """False for the processor, and for one GPU by number: whoever names it wants that one."""
    return config.model.device in ("auto", "cuda")
