"""The softmax of some tokens restricted to a few words of the vocabulary: what a tiled head reads and writes for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from klimb.experience.support import Support


@dataclass(frozen=True)
class Restriction:
    """For each token the words that it could have been, one entry a word.

    Attributes:
        words: of each entry.
        token: of each entry.
        starts: of each token's entries, and their number at the end.
        is_restricted: by token; False where every word counts.
    """

    words: Tensor
    token: Tensor
    starts: list[int]
    is_restricted: Tensor

    @classmethod
    def of(cls, support: Support | None, targets: Tensor, num_vocab: int) -> "Restriction | None":
        """Return what the support restricts; None where it restricts nothing.

        A set that holds the whole vocabulary restricts nothing, so that the result is the plain one to the last bit.

        Raises:
            ValueError: not one set a target, a word outside of the vocabulary, or a target outside of its own set.
        """
        if support is None:
            return None
        _check_sets(support, targets, num_vocab)
        sizes = torch.where(support.sizes == num_vocab, 0, support.sizes)
        is_restricted = sizes > 0
        if not bool(is_restricted.any()):
            return None
        part = support.take(is_restricted.nonzero()[:, 0])
        numbers = torch.arange(len(targets), device=sizes.device)
        starts = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).tolist()
        return cls(part.ids.long(), numbers.repeat_interleave(sizes), starts, is_restricted)

    def inside(self, part: slice, tile: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return the entries of these tokens whose word lies in the tile, their rows and their columns there."""
        first, last = self.starts[part.start], self.starts[part.stop]
        words = self.words[first:last]
        entries = ((words >= tile.start) & (words < tile.stop)).nonzero()[:, 0]
        return entries + first, self.token[first:last][entries] - part.start, words[entries] - tile.start

    def log_normaliser(self, logits: Tensor, lse: Tensor) -> Tensor:
        """Return log Σ exp over each token's words: over all, `lse`, where it is not restricted."""
        lengths = torch.tensor(self.starts, device=lse.device).diff()
        # Token after token, and not by adding at indices, which threads would do in any order.
        peak = torch.segment_reduce(logits, "max", lengths=lengths, unsafe=True)
        peak = torch.where(self.is_restricted, peak, 0)
        mass = torch.segment_reduce((logits - peak[self.token]).exp(), "sum", lengths=lengths, unsafe=True)
        return torch.where(self.is_restricted, peak + torch.where(self.is_restricted, mass, 1).log(), lse)


def _check_sets(support: Support, targets: Tensor, num_vocab: int) -> None:
    if support.sizes.shape != targets.shape:
        raise ValueError(
            f"support must have one set for each of {len(targets)} targets, got sizes {list(support.sizes.shape)}"
        )
    if len(support.ids) and not (int(support.ids.min()) >= 0 and int(support.ids.max()) < num_vocab):
        raise ValueError(
            f"support has token ids from {int(support.ids.min())} to {int(support.ids.max())}, but the model's "
            f"vocabulary is 0 to {num_vocab - 1}; was it recorded with another tokenizer?"
        )
    token = torch.arange(len(targets), device=targets.device).repeat_interleave(support.sizes)
    holds_target = torch.zeros(len(targets), dtype=torch.bool, device=targets.device)
    holds_target[token[support.ids == targets[token]]] = True
    missing = (support.sizes > 0) & ~holds_target
    if bool(missing.any()):
        place = int(missing.nonzero()[0])
        raise ValueError(
            f"target {int(targets[place])} of token {place} is not in its support of {int(support.sizes[place])} "
            "tokens; what was drawn could be drawn"
        )
