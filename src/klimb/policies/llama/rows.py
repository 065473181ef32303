"""Prompts and responses as one row of tokens without padding, and where each of them stands for attention.

A prompt stands there once, however many responses it has. Attention alone works on padded shapes: prompts of one length
form a block, which is a rectangle of prompts, responses and positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from klimb.experience.batches import num_read

MOST_PADDED = 1.5
"""A block ends where the query-key pairs of its rectangle would be this many times those of its prompts alone."""


MOST_PAIRS = 2**19
"""Query-key pairs of a block: with 9 heads in bfloat16 9 MiB of probabilities, which a core's cache still holds."""


@dataclass(frozen=True)
class AttentionBlock:
    """Prompts whose attention is computed together, with their responses.

    Attributes:
        shape: prompts, positions of a prompt, responses of each, positions of a response; the last may be 0.
        prompts: the packed tokens of the prompts.
        responses: the packed tokens of the responses, which stand right behind.
        response_slots: place of each response token in `[prompts * responses * positions]`; None if they fill it.
    """

    shape: tuple[int, int, int, int]
    prompts: slice
    responses: slice
    response_slots: Int[Tensor, " response_tokens"] | None

    @property
    def num_pairs(self) -> int:
        """Query-key pairs that are computed for one head, hidden ones included."""
        return _num_pairs(self.shape)


@dataclass(frozen=True)
class PackedRows:
    """All tokens that go through the model.

    Attributes:
        ids: prompts and responses, without the last token of each response, which predicts nothing.
        positions: of each token in its own prompt and response.
        predicting: for each counted response token, the packed token whose state predicts it.
        blocks: cover all tokens, one after the other.
    """

    ids: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]
    predicting: Int[Tensor, " counted"]
    blocks: tuple[AttentionBlock, ...]


@dataclass(frozen=True)
class _Family:
    """A prompt and its rows of the batch."""

    prompt: Sequence[int]
    rows: list[int]
    num_inputs: list[int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.prompt), len(self.rows), max(self.num_inputs)


def pack_rows(
    prompts: Sequence[Sequence[int]],
    prompt_index: Int[Tensor, " batch"],
    response_ids: Int[Tensor, "batch time"],
    counted: Bool[Tensor, "batch time"],
) -> PackedRows:
    """Return the rows of a batch, packed; prompts that no row has are left out.

    Args:
        prompts: token ids of each prompt, none empty.
        prompt_index: row -> prompt.
        response_ids: padded on the right.
        counted: tokens whose log-probability is wanted; each row is read up to its last one.
    """
    num_inputs = (num_read(counted) - 1).clamp(min=0).tolist()
    rows_of: dict[int, list[int]] = {}
    for row, index in enumerate(prompt_index.tolist()):
        rows_of.setdefault(index, []).append(row)
    families = [_Family(prompts[i], rows, [num_inputs[row] for row in rows]) for i, rows in rows_of.items()]
    packing = _Packing(response_ids)
    for members in _grouped(sorted(families, key=lambda family: family.shape)):
        packing.add(members)
    return packing.finished(counted)


def _grouped(families: Sequence[_Family]) -> list[list[_Family]]:
    """Neighbours together, as long as little is padding and the block does not get too large.

    Only prompts of one length: padding between a prompt and its response would change the order in which attention
    sums, and in 16 bits the log-probabilities.
    """
    groups: list[list[_Family]] = []
    for family in families:
        joined = [*groups[-1], family] if groups else [family]
        num_pairs = _num_pairs(_rectangle(joined))
        alone = sum(_num_pairs(_rectangle([each])) for each in joined)
        is_even = len({len(each.prompt) for each in joined}) == 1
        if groups and is_even and num_pairs <= MOST_PADDED * alone and num_pairs <= MOST_PAIRS:
            groups[-1] = joined
        else:
            groups.append([family])
    return groups


def _rectangle(members: Sequence[_Family]) -> tuple[int, int, int, int]:
    prompt_times, nums_responses, times = zip(*(family.shape for family in members), strict=True)
    return len(members), max(prompt_times), max(nums_responses), max(times)


def _num_pairs(rectangle: tuple[int, int, int, int]) -> int:
    num_prompts, prompt_time, num_responses, time = rectangle
    return num_prompts * (prompt_time**2 + num_responses * time * (prompt_time + time))


class _Packing:
    """Tokens added block by block."""

    def __init__(self, response_ids: Tensor):
        self.response_ids = response_ids
        self.num_tokens = 0
        self.ids: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.blocks: list[AttentionBlock] = []
        # The packed token whose state predicts each response token.
        self.source = torch.zeros(response_ids.shape, dtype=torch.long)

    def add(self, members: Sequence[_Family]) -> None:
        shape = _rectangle(members)
        num_prompts, prompt_time = shape[:2]
        start = self.num_tokens
        self.ids.append(torch.tensor([token for family in members for token in family.prompt]))
        self.positions.append(torch.arange(prompt_time).repeat(num_prompts))
        self.num_tokens += num_prompts * prompt_time
        middle = self.num_tokens
        last = torch.arange(start + prompt_time, middle + 1, prompt_time) - 1
        is_input = self._add_responses(members, shape, last)
        self.blocks.append(
            AttentionBlock(
                shape=shape,
                prompts=slice(start, middle),
                responses=slice(middle, self.num_tokens),
                response_slots=self._slots(is_input),
            )
        )

    def _add_responses(self, members: Sequence[_Family], shape: tuple[int, int, int, int], last: Tensor) -> Tensor:
        """Return which places of the rectangle hold an input."""
        num_inputs = torch.zeros(shape[0], shape[2], dtype=torch.long)
        for place, family in enumerate(members):
            num_inputs[place, : len(family.rows)] = torch.tensor(family.num_inputs)
            self.source[family.rows, 0] = last[place]
        is_input = torch.arange(shape[3]) < num_inputs[..., None]
        tokens = torch.zeros(is_input.shape, dtype=torch.long)
        tokens[is_input] = torch.arange(self.num_tokens, self.num_tokens + int(is_input.sum()))
        for place, family in enumerate(members):
            self.source[family.rows, 1 : shape[3] + 1] = tokens[place, : len(family.rows)]
            for row, count in zip(family.rows, family.num_inputs, strict=True):
                self.ids.append(self.response_ids[row, :count].cpu())
        positions = shape[1] + torch.arange(shape[3])
        self.positions.append(positions.expand(is_input.shape)[is_input])
        self.num_tokens += int(is_input.sum())
        return is_input

    def _slots(self, is_token: Tensor) -> Tensor | None:
        if bool(is_token.all()):
            return None
        return is_token.flatten().nonzero()[:, 0].to(self.response_ids.device)

    def finished(self, counted: Tensor) -> PackedRows:
        device = self.response_ids.device
        return PackedRows(
            ids=torch.cat(self.ids).to(device),
            positions=torch.cat(self.positions).to(device),
            predicting=self.source.to(device)[counted],
            blocks=tuple(self.blocks),
        )
