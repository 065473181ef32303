"""Rotary position embedding, as the Llama family has it: feature i turns with feature i + half."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.policies.row_chunks import row_chunks


@dataclass(frozen=True)
class Rotation:
    """A rotation for each token, and a scale for each head.

        out[i] = rows[i]·cos[i] + rows[(i + half) mod features]·signed_sin[i]

    Attributes:
        cos: times the scale.
        signed_sin: -sin in the first half of the features and sin in the second, times the scale.

    Source: Su et al. 2021, arXiv 2104.09864.
    """

    cos: Float[Tensor, "tokens heads features"]
    signed_sin: Float[Tensor, "tokens heads features"]

    @classmethod
    def of(
        cls,
        cos: Float[Tensor, "tokens features"],
        sin: Float[Tensor, "tokens features"],
        *,
        scales: Float[Tensor, " heads"],
    ) -> "Rotation":
        """Of a token's angles, whose second half of the columns is equal to the first, as transformers gives them."""
        low, high = sin.chunk(2, dim=-1)
        by_head = scales[:, None]
        return cls(cos[:, None] * by_head, torch.cat([-low, high], dim=-1)[:, None] * by_head)

    def back(self) -> "Rotation":
        """What takes the gradient of the result to the gradient of the rows."""
        return Rotation(self.cos, -self.signed_sin)

    def __call__(
        self, rows: Float[Tensor, "tokens heads features"], *, out: Float[Tensor, "tokens heads features"]
    ) -> None:
        """Writes the rotated rows to `out`, which may be `rows`: computed in the dtype of the angles, rounded once."""
        half = rows.shape[-1] // 2
        for part in row_chunks(rows):
            straight = rows[part].to(self.cos.dtype, copy=True)
            crossed = torch.empty_like(straight)
            crossed[..., :half], crossed[..., half:] = straight[..., half:], straight[..., :half]
            # Not addcmul_, which rounds once where transformers rounds twice: log-probs in bfloat16 would differ.
            torch.add(straight.mul_(self.cos[part]), crossed.mul_(self.signed_sin[part]), out=out[part])
