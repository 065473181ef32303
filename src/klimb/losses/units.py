"""The unit whose probability is weighed: a token, a prefix, a whole sequence, or its per-token geometric mean."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Level = Literal["token", "prefix", "sequence", "sequence-mean"]
LEVELS: tuple[str, ...] = get_args(Level)

WEIGHT_BOUND = 20.0
"""Log-weights of units are bounded to ±this before exp: exp(20) ≈ 5e8. Hits are counted in `num_bound_hits`."""


@dataclass(frozen=True)
class Units:
    """Log-probabilities summed up to units. Token and prefix levels have one unit a token, the others one a row."""

    log_pi: Float[Tensor, "batch units"]
    log_w: Float[Tensor, "batch units"]
    log_v: Float[Tensor, "batch units"]
    advantages: Float[Tensor, "batch units"]
    mask: Bool[Tensor, "batch units"]


def to_units(
    values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch units"]:
    """Per-token log-values as log-values of units. `values` must be 0 where the mask is False.

    token: themselves. prefix: running sums, so that unit t is the prefix y_1..y_t. sequence: the sum.
    sequence-mean: the sum divided by the number of counted tokens (GSPO's length normalisation).
    """
    if level == "token":
        return values
    if level == "prefix":
        return values.cumsum(dim=1)
    total = values.sum(dim=1, keepdim=True)
    return total if level == "sequence" else total / num_tokens(mask)


def unit_mask(mask: Bool[Tensor, "batch time"], *, level: Level) -> Bool[Tensor, "batch units"]:
    """Which units count: every counted token, or every row that has one."""
    return mask if level in ("token", "prefix") else mask.any(dim=1, keepdim=True)


def unit_advantages(
    advantages: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch units"]:
    """Advantages of units: per token at token and prefix level, one a row otherwise.

    Raises:
        ValueError: a sequence level was given advantages that differ within a row.
    """
    if level in ("token", "prefix"):
        return advantages
    mean = advantages.sum(dim=1, keepdim=True) / num_tokens(mask)
    uneven = torch.where(mask, (advantages - mean).abs() > 1e-4 * (1 + mean.abs()), False)
    if bool(uneven.any()):
        row = int(uneven.any(dim=1).int().argmax())
        raise ValueError(
            f"level {level!r} weighs whole sequences and needs one advantage each, but the advantages of row {row} "
            "differ between its tokens; pass advantages of shape [batch], or use level 'token' or 'prefix'"
        )
    return mean


def spread(
    losses: Float[Tensor, "batch units"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch time"]:
    """Losses of units laid out over tokens so that a row still sums to its loss: a sequence's is shared evenly."""
    if level in ("token", "prefix"):
        return losses
    return torch.where(mask, losses / num_tokens(mask), 0.0)


def num_tokens(mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch 1"]:
    """Counted tokens of each row, at least 1 so that an empty row divides nothing by zero."""
    return mask.sum(dim=1, keepdim=True).clamp(min=1).float()
