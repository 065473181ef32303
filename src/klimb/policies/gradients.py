"""Gradients of weights that are added to `.grad` as they arise, on a CPU.

Through autograd, the gradient of each weight is first a tensor of its own, in memory that the system has to clear; the
one of an embedding that is also the output layer is three. Micro-batches pay for it every time.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_in_place: ContextVar[bool] = ContextVar("_in_place", default=False)


@contextmanager
def gradients_in_place() -> Generator[None]:
    """Inside, forward and backward passes may add gradients of weights on a CPU to their `.grad` themselves.

    `backward()` leaves the same `.grad`, up to the order of additions; `torch.autograd.grad` finds none for such
    weights, and neither does what listens to autograd's own accumulation (DistributedDataParallel). Weights with hooks
    are left to autograd, which calls them.
    """
    token = _in_place.set(True)
    try:
        yield
    finally:
        _in_place.reset(token)


def place_for_gradient(weight: Tensor) -> Tensor | None:
    """Return the weight itself if its gradient is to be added in place, else None. For a forward pass to keep.

    Not among the saved tensors: a layer that is computed again hands out copies of those.
    """
    if not _in_place.get() or type(weight) is not nn.Parameter or weight.device.type != "cpu":
        return None
    has_hooks = weight._backward_hooks or weight._post_accumulate_grad_hooks
    return weight if weight.requires_grad and not has_hooks else None


def given_gradient(part: Tensor, dtype: torch.dtype, place: Tensor | None) -> Tensor | None:
    """Return what a backward pass returns for a weight: the gradient, or None after it was added to the place."""
    if place is None:
        return part.to(dtype)
    if place.grad is None:
        place.grad = part.to(dtype, copy=True)
    else:
        place.grad.add_(part)
    return None


def gradient_at(place: Tensor) -> Tensor:
    """Return what `place` has so far, zeros if nothing yet: for a backward pass that adds to parts of it."""
    if place.grad is None:
        place.grad = torch.zeros_like(place)
    return place.grad
