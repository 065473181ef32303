"""What an objective returns, and how its terms become one number."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns.

    Attributes:
        loss: scalar, differentiable.
        terms: the loss before reduction; a row's sum is that sequence's loss; 0 where the mask is False.
        metrics: named numbers, explained in docs/metrics.md. Empty when no token counts.
    """

    loss: Float[Tensor, ""]
    terms: Float[Tensor, "batch time"]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


def as_numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics as floats, in one transfer from the device, not one a metric."""
    values = torch.stack([value.detach().double() for value in metrics.values()]).cpu()
    return {name: float(value) for name, value in zip(metrics, values, strict=True)}
