"""Where the model runs and in which precision it computes."""

from dataclasses import dataclass

import torch

CPU_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")
"""CPU features that multiply bfloat16 matrices in hardware; without one of them bfloat16 is slower than float32."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """A device, the dtype that its matrix products run in, and why."""

    device: torch.device
    compute_dtype: torch.dtype
    reason: str


def choose_placement(dtype: str = "auto", device: str = "auto") -> Placement:
    """The device and compute dtype asked for, or the best that this machine has.

    Weights stay float32 in every case: a step of 1e-6 on a weight of 0.02 is lost in bfloat16. The compute dtype is
    that of the matrix products under autocast.

    Args:
        dtype: `auto` (bfloat16 where the hardware multiplies it, else float32), `float32` or `bfloat16`.
        device: `auto` (cuda, else mps, else cpu) or a torch device such as `cuda:1`.

    Raises:
        ValueError: an unknown name, or a device that this machine or this build of torch does not have.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {dtype!r}")
    chosen = _choose_device(device)
    if dtype != "auto":
        return Placement(chosen, DTYPES[dtype], "as asked")
    unit = _bfloat16_unit(chosen)
    if unit is None:
        return Placement(chosen, torch.float32, f"no bfloat16 matrix units found on {chosen.type}")
    return Placement(chosen, torch.bfloat16, unit)


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(chosen.type, False):
        found = ", ".join(name for name, is_found in available.items() if is_found)
        raise ValueError(f"device {device!r} is not available to this build of torch; found: {found}")
    if chosen.type == "cuda" and chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} does not exist; there are {torch.cuda.device_count()} CUDA devices")
    return chosen


def _bfloat16_unit(device: torch.device) -> str | None:
    """What multiplies bfloat16 on the device, in words; None if nothing does."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"{torch.cuda.get_device_name(device)} has bfloat16 units" if supported else None
    if device.type != "cpu":
        return None
    capabilities = torch.cpu.get_capabilities()
    unit = next((name for name in CPU_BFLOAT16_UNITS if capabilities.get(name)), None)
    return f"the CPU has {unit}" if unit else None
