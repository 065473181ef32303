"""Rotary position embedding, as the Llama family has it: feature i turns with feature i + half."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.policies.row_chunks import row_chunks


@dataclass(frozen=True)
class Rotation:
    """A rotation for each token, the same for all heads.

        out[i] = rows[i]·cos[i] + rows[(i + half) mod features]·signed_sin[i]

    Attributes:
        cos: of the angles.
        signed_sin: -sin in the first half of the features and sin in the second.

    Source: Su et al. 2021, arXiv 2104.09864.
    """

    cos: Float[Tensor, "tokens 1 features"]
    signed_sin: Float[Tensor, "tokens 1 features"]

    @classmethod
    def of(cls, cos: Float[Tensor, "tokens features"], sin: Float[Tensor, "tokens features"]) -> "Rotation":
        """Of a token's angles, whose second half of the columns is equal to the first, as transformers gives them."""
        low, high = sin.chunk(2, dim=-1)
        return cls(cos[:, None], torch.cat([-low, high], dim=-1)[:, None])

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
