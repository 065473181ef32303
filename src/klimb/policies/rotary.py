"""Rotary position embedding, as the Llama family has it: feature i turns with feature i + half."""

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.policies.row_chunks import row_chunks


def rotate(
    rows: Float[Tensor, "tokens heads features"],
    cos: Float[Tensor, "tokens 1 half"],
    sin: Float[Tensor, "tokens 1 half"],
    *,
    out: Float[Tensor, "tokens heads features"],
) -> None:
    """Writes the rotated rows to `out`.

        out[i] = rows[i]·cos - rows[i + half]·sin;   out[i + half] = rows[i + half]·cos + rows[i]·sin

    Computed in the dtype of `cos` and rounded once, to that of `out`. With -sin it is the gradient's way back.

    Source: Su et al. 2021, arXiv 2104.09864.
    """
    half = cos.shape[-1]
    for part in row_chunks(rows):
        x = rows[part].to(cos.dtype)
        low, high = x[..., :half], x[..., half:]
        turned = torch.empty_like(x)
        # Not addcmul_, which rounds once where transformers rounds twice: log-probabilities in bfloat16 would differ.
        torch.mul(low, cos[part], out=turned[..., :half]).sub_(high * sin[part])
        torch.mul(high, cos[part], out=turned[..., half:]).add_(low * sin[part])
        out[part].copy_(turned)
