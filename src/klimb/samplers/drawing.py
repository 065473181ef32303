"""One more token of each response: what its logits become before it is drawn, and whether it ends the response.

Both decoders draw through this, so that they give the same tokens. Nothing of a response is kept here but its tokens,
so it makes no difference which lane or row a response is in, nor which others are drawn beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.experience.samples import SamplingSettings
from klimb.samplers.distribution import TokenDetails, draw
from klimb.samplers.sampler import Results

Decode = Callable[[Sequence[int]], str]
"""Text of tokens, without special tokens."""


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn.

    Attributes:
        settings: of the draws.
        policy_temperature: of the policy whose log-probabilities are recorded beside μ's.
        end_ids: tokens that end a response.
        prompts: by slot, where a repetition penalty counts their tokens.
        decode: needed with stop strings.
        details: what is recorded of each token besides its log-probabilities.
    """

    settings: SamplingSettings
    policy_temperature: float
    end_ids: Int[Tensor, " ends"]
    prompts: Int[Tensor, "slots length"] | None = None
    decode: Decode | None = None
    details: TokenDetails = field(default_factory=TokenDetails)

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        results: Results,
        slots: Int[Tensor, " rows"],
        steps: Int[Tensor, " rows"],
        quantiles: Float[Tensor, " rows"],
    ) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
        """Draw and record token `steps` of each of the slots; return the tokens, and which of them end a response."""
        drawn = draw(
            logits,
            self.settings,
            quantiles=quantiles,
            policy_temperature=self.policy_temperature,
            drawn_from=self._changed(logits, results, slots, steps),
            details=self.details,
        )
        results.record(slots, steps, drawn)
        ends = torch.isin(drawn.token_ids, self.end_ids)
        if self.settings.stop:
            ends = ends | self._completes_stop_string(results, slots, steps, ends | results.is_finished[slots])
        ends = ends & ~results.is_finished[slots]
        results.finish(slots[ends], steps[ends] + 1)
        return drawn.token_ids, ends

    def of(self, slots: Int[Tensor, " rows"]) -> "Drawing":
        """Return the drawing of these slots alone, which are then numbered from 0."""
        return self if self.prompts is None else replace(self, prompts=self.prompts[slots])

    def with_prompt(self, slot: int, prompt: Sequence[int]) -> "Drawing":
        """Return the drawing with another prompt in this slot; itself, where no penalty counts its tokens."""
        if self.prompts is None:
            return self
        return replace(self, prompts=_with_row(self.prompts, slot, torch.tensor(prompt)))

    def _changed(self, logits: Tensor, results: Results, slots: Tensor, steps: Tensor) -> Tensor | None:
        """Return the logits after the processors, in transformers' order; None if there are none."""
        changed = None
        if self.settings.repetition_penalty != 1:
            assert self.prompts is not None
            width = int(steps.max())
            seen = _seen(self.prompts[slots], results.token_ids[slots, :width], steps)
            changed = penalise_repetition(logits, seen, self.settings.repetition_penalty)
        is_early = steps < self.settings.min_new_tokens
        if self.settings.min_new_tokens and bool(is_early.any()):
            changed = keep_from_ending(logits if changed is None else changed, self.end_ids, is_early)
        return changed

    def _completes_stop_string(self, results: Results, slots: Tensor, steps: Tensor, is_over: Tensor) -> Tensor:
        assert self.decode is not None
        rows = (~is_over).nonzero()[:, 0]
        completes = torch.zeros_like(is_over)
        longest = int(steps[rows].max()) + 1 if len(rows) else 0
        tokens = results.token_ids[slots[rows], :longest].tolist()
        for row, ids, step in zip(rows.tolist(), tokens, steps[rows].tolist(), strict=True):
            completes[row] = completes_stop_string(ids[: step + 1], self.settings.stop, self.decode)
        return completes


def make_drawing(
    settings: SamplingSettings,
    *,
    policy_temperature: float,
    end_ids: Sequence[int],
    prompts: Sequence[Sequence[int]],
    decode: Decode | None,
    device: torch.device,
    details: TokenDetails = TokenDetails(),  # noqa: B008 - frozen
) -> Drawing:
    """Return how responses are drawn.

    Args:
        settings: of the draws.
        policy_temperature: of the policy whose log-probabilities are recorded beside μ's.
        end_ids: tokens that end a response.
        prompts: by slot.
        decode: needed with stop strings.
        device: of the logits.
        details: what is recorded of each token besides its log-probabilities.
    """
    return Drawing(
        settings,
        policy_temperature,
        torch.tensor(end_ids, dtype=torch.long, device=device),
        _padded(prompts).to(device) if settings.repetition_penalty != 1 else None,
        decode,
        details,
    )


def penalise_repetition(
    logits: Float[Tensor, "rows vocab"], seen: Int[Tensor, "rows length"], penalty: float
) -> Float[Tensor, "rows vocab"]:
    """Divide positive logits of the seen tokens by the penalty, and multiply negative ones; once, however often seen.

    Source: arXiv 1909.05858, as in transformers.
    """
    logits = logits.float()
    of_seen = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(of_seen < 0, of_seen * penalty, of_seen / penalty))


def keep_from_ending(
    logits: Float[Tensor, "rows vocab"], end_ids: Int[Tensor, " ends"], rows: Bool[Tensor, " rows"]
) -> Float[Tensor, "rows vocab"]:
    """Give end tokens probability 0 in these rows."""
    is_end = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    is_end[end_ids[end_ids < logits.shape[1]]] = True
    return logits.float().masked_fill(rows[:, None] & is_end, -math.inf)


MARGIN = 8
"""Characters at the beginning of a decoded tail that may differ from the same place of the whole text: bytes of a
character whose beginning is missing, and a space that decoders leave out at the beginning."""


def completes_stop_string(ids: Sequence[int], stop: Sequence[str], decode: Decode) -> bool:
    """Return True if the text of the tokens holds a stop string that ends within that of the last token.

    As much of the end is decoded as can hold one, and the whole if the tokens there have too little text.
    """
    longest = max(map(len, stop))
    needed = longest + MARGIN + len(decode(ids[-1:]))
    width = needed
    while True:
        tail = decode(ids[-width:])
        if len(tail) >= needed or width >= len(ids):
            return any(text in tail for text in stop)
        width *= 2


def _seen(prompts: Tensor, responses: Tensor, steps: Tensor) -> Tensor:
    """Return the tokens of prompt and response, the response's up to its step; the rest repeats one of the prompt."""
    is_drawn = torch.arange(responses.shape[1], device=responses.device) < steps[:, None]
    return torch.cat([prompts, torch.where(is_drawn, responses, prompts[:, :1])], dim=1)


def _padded(prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the prompts in one tensor, short ones with their first token again: it is seen all the same."""
    width = max(map(len, prompts))
    return torch.tensor([[*prompt, *[prompt[0]] * (width - len(prompt))] for prompt in prompts])


def _with_row(prompts: Tensor, row: int, tokens: Tensor) -> Tensor:
    """Return the prompts with another one in this row; short ones repeat their first token, which is seen anyway."""
    width = max(prompts.shape[1], len(tokens))
    wider = torch.cat([prompts, prompts[:, :1].expand(-1, width - prompts.shape[1])], dim=1)
    wider[row] = tokens[0]
    wider[row, : len(tokens)] = tokens
    return wider
