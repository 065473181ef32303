"""Drawing where every response has settings of its own: those that have the same are drawn together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.experience.samples import SamplingSettings
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.drawing import Decode, Drawing
from klimb.samplers.sampler import Results

ANY_LENGTH = 2**62
"""Answers of different greatest lengths are drawn alike: who draws ends them."""


@dataclass(frozen=True)
class MixedDraw:
    """The next token of each row.

    Attributes:
        token_ids: the drawn ones; any of rows that failed.
        ends: which of them end their response.
        failed: by row, where the logits are no distribution: nothing was drawn, nothing recorded.
    """

    token_ids: Int[Tensor, " rows"]
    ends: Bool[Tensor, " rows"]
    failed: dict[int, FloatingPointError] = field(default_factory=dict)


@dataclass(eq=False)
class _Alike:
    """The slots whose responses are drawn in the same way."""

    drawing: Drawing
    num_slots: int = 0


class MixedDrawing:
    """How responses are drawn, by slot.

    Args:
        num_slots: that there are.
        policy_temperature: of the policy whose log-probabilities are recorded beside μ's.
        end_ids: tokens that end a response.
        decode: needed with stop strings.
    """

    def __init__(
        self, *, num_slots: int, policy_temperature: float, end_ids: Sequence[int], decode: Decode | None
    ) -> None:
        self._num_slots, self._policy_temperature, self._decode = num_slots, policy_temperature, decode
        self._end_ids = torch.tensor(end_ids, dtype=torch.long)
        self._alike: dict[tuple[SamplingSettings, TokenDetails], _Alike] = {}
        self._of_slot: dict[int, tuple[SamplingSettings, TokenDetails]] = {}

    def begin(self, slot: int, prompt: Sequence[int], settings: SamplingSettings, details: TokenDetails) -> None:
        """Set how the next response of this slot is drawn, behind this prompt."""
        key = (replace(settings, max_new_tokens=ANY_LENGTH), details)
        if key not in self._alike:
            prompts = torch.zeros(self._num_slots, 1, dtype=torch.long) if settings.repetition_penalty != 1 else None
            self._alike[key] = _Alike(
                Drawing(key[0], self._policy_temperature, self._end_ids, prompts, self._decode, details)
            )
        alike = self._alike[key]
        alike.drawing = alike.drawing.with_prompt(slot, prompt)
        alike.num_slots += 1
        self._of_slot[slot] = key

    def release(self, slot: int) -> None:
        """Forget the response of this slot."""
        key = self._of_slot.pop(slot)
        self._alike[key].num_slots -= 1
        if self._alike[key].num_slots == 0:
            del self._alike[key]

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        results: Results,
        slots: Int[Tensor, " rows"],
        steps: Int[Tensor, " rows"],
        quantiles: Float[Tensor, " rows"],
    ) -> MixedDraw:
        """Draw and record token `steps` of each of the slots."""
        rows_of: dict[int, list[int]] = defaultdict(list)
        alike = [self._alike[self._of_slot[slot]] for slot in slots.tolist()]
        for row, each in enumerate(alike):
            rows_of[id(each)].append(row)
        draw = MixedDraw(torch.zeros_like(slots), torch.zeros(len(slots), dtype=torch.bool))
        for group in rows_of.values():
            # One row after the other, once it is known that some of them have no distribution.
            if not self._draw(draw, alike[group[0]].drawing, group, logits, results, slots, steps, quantiles):
                for row in group:
                    self._draw(draw, alike[row].drawing, [row], logits, results, slots, steps, quantiles)
        return draw

    def _draw(
        self,
        draw: MixedDraw,
        drawing: Drawing,
        group: list[int],
        logits: Tensor,
        results: Results,
        slots: Tensor,
        steps: Tensor,
        quantiles: Tensor,
    ) -> bool:
        """Write what is drawn in these rows; False where one of them fails."""
        rows = torch.tensor(group)
        of_rows = logits if len(rows) == len(logits) else logits[rows]
        try:
            draw.token_ids[rows], draw.ends[rows] = drawing(of_rows, results, slots[rows], steps[rows], quantiles[rows])
        except FloatingPointError as error:
            if len(group) == 1:
                draw.failed[group[0]] = error
            return False
        return True
