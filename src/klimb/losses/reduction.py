"""From terms [batch, time] to one number, so that a batch cut into micro-batches gives the same gradient."""

from typing import Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from klimb.losses.errors import require, require_known
from klimb.losses.units import num_tokens

ReduceName = Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"]
REDUCTIONS: tuple[str, ...] = get_args(ReduceName)
Reduce = ReduceName | int


def require_reduction(reduce: Reduce) -> None:
    """Raise unless it is a reduction.

    Raises:
        ValueError: an unknown name, or a fixed length below 1.
    """
    if isinstance(reduce, int):
        require(reduce > 0, "reduce (a fixed length)", reduce, "> 0")
    else:
        require_known("reduce", reduce, REDUCTIONS)


def normalizer(mask: Bool[Tensor, "batch time"], *, reduce: Reduce) -> float:
    """What the sum over a whole batch is divided by: its tokens, its sequences, or sequences × fixed length.

    Rows without a counted token are padding and don't count as sequences. At least 1.
    """
    if reduce == "token-mean":
        return max(1.0, float(mask.sum()))
    num_sequences = max(1.0, float(mask.any(dim=1).sum()))
    return num_sequences * reduce if isinstance(reduce, int) else num_sequences


def reduce_terms(
    terms: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, reduce: Reduce, normalizer: float
) -> Float[Tensor, ""]:
    """The sum of the terms over the normalizer; `sequence-mean-token-mean` first averages within each row."""
    rows = terms.sum(dim=1, keepdim=True)
    if reduce == "sequence-mean-token-mean":
        rows = rows / num_tokens(mask)
    return rows.sum() / normalizer
