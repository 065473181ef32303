"""Passes that do not fit into memory: told apart from other errors, and the limit that is learnt from them."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""In the words of torch's allocators, of CUDA and of the C library: torch raises most of them as RuntimeError."""


class DoesNotFitError(RuntimeError):
    """Not even the smallest pass fits into memory: one response with its prompt."""


@dataclass
class PassLimit:
    """What was learnt of how much fits into memory at once; it holds for the rest of a run.

    It changes memory and speed, and results by their rounding alone: a checkpoint keeps it, so that a resumed run is
    cut into the same portions.

    Attributes:
        most_tokens: that a pass may have; None until one did not fit.
        num_sampling_halvings: how often the rows that are sampled at once were halved.
        num_out_of_memory: passes that did not fit, so far.
    """

    most_tokens: int | None = None
    num_sampling_halvings: int = 0
    num_out_of_memory: int = 0

    def state(self) -> dict[str, Any]:
        """Return plain numbers that `load_state` takes back."""
        return {
            "most_tokens": self.most_tokens,
            "num_sampling_halvings": self.num_sampling_halvings,
            "num_out_of_memory": self.num_out_of_memory,
        }

    def load_state(self, numbers: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.most_tokens = numbers["most_tokens"]
        self.num_sampling_halvings = numbers["num_sampling_halvings"]
        self.num_out_of_memory = numbers["num_out_of_memory"]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had, of the device or of the machine."""
    if isinstance(error, DoesNotFitError):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def free_memory() -> None:
    """Give back what a failed pass has left; call it where its traceback, which holds its tensors, is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
