"""Which tokens could be drawn at each place of a batch, where top-k, top-p or min-p cut the others off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Int
from torch import Tensor

from klimb.experience.samples import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Support:
    """The recorded sets of many places, one behind another.

    A place costs as much memory as tokens were kept there, and one without a record costs none.

    Attributes:
        ids: token ids, place after place, those of a row of `sizes` before those of the next.
        sizes: number of ids of each place; 0 where nothing is recorded, so that any token counts.
    """

    ids: Int[Tensor, " kept"]
    sizes: Int[Tensor, "*places"]

    def take(self, places: Int[Tensor, "*wanted"]) -> "Support":
        """Return the sets of these places, which are numbers into the flattened `sizes`, in the shape of `places`."""
        flat = self.sizes.flatten()
        taken = flat[places.flatten()]
        starts = flat.cumsum(0) - flat
        shifts = starts[places.flatten()] - (taken.cumsum(0) - taken)
        index = torch.arange(int(taken.sum()), device=flat.device) + shifts.repeat_interleave(taken)
        return Support(ids=self.ids[index], sizes=taken.view(places.shape))

    def select(self, rows: Int[Tensor, " rows"], width: int) -> "Support":
        """Return these rows of `[batch, time]` in this order, cut to `width` columns."""
        columns = torch.arange(width, device=rows.device)
        return self.take(rows[:, None] * self.sizes.shape[1] + columns)

    def to(self, device: torch.device | str) -> "Support":
        """Return the same on `device`."""
        return Support(ids=self.ids.to(device), sizes=self.sizes.to(device))


def collate_support(samples: Sequence[Sample], width: int) -> Support | None:
    """Return the sets of the samples side by side in `width` columns; None where no sample has recorded any."""
    if all(sample.support is None for sample in samples):
        return None
    sizes = torch.zeros(len(samples), width, dtype=torch.int64)
    for row, sample in enumerate(samples):
        if sample.support is not None:
            places = [place for place, is_drawn in enumerate(sample.is_drawn) if is_drawn]
            sizes[row, places] = torch.tensor([len(kept) for kept in sample.support])
    # A token id needs no more than 32 bits, and there are many times more of them than tokens.
    return Support(ids=torch.tensor(list(_all_ids(samples)), dtype=torch.int32), sizes=sizes)


def _all_ids(samples: Sequence[Sample]) -> Iterator[int]:
    return chain.from_iterable(kept for sample in samples if sample.support is not None for kept in sample.support)
