"""What a sampler is and what it gives back.

What has been drawn so far, one row a response.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from klimb.experience.samples import SamplingSettings
from klimb.samplers.completion import Completion
from klimb.samplers.distribution import Drawn


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws responses to prompts and records the distribution they were drawn from."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """One list per prompt, in the order of the prompts, with `num_samples` completions each."""
        ...


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that hands over the completions of a prompt as soon as the last of them has ended."""

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Each prompt's number with its completions, in the order in which prompts end; the same as `sample` gives."""
        ...


@dataclass(frozen=True)
class Dialogue:
    """What the policy said in the turns of one conversation, and what stood between them.

    Attributes:
        turns: of the policy, in order; at least one.
        between: the context ids that were read after each turn but the last, before the next was drawn.
    """

    turns: tuple[Completion, ...]
    between: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.turns or len(self.between) != len(self.turns) - 1:
            raise ValueError(
                "a dialogue has at least one turn and one context between each two, "
                f"got {len(self.turns)} turns and {len(self.between)} contexts"
            )

    @property
    def response_ids(self) -> tuple[int, ...]:
        """All that follows the prompt, drawn and read, in one sequence."""
        ids = list(self.turns[0].response_ids)
        for context, turn in zip(self.between, self.turns[1:], strict=True):
            ids += [*context, *turn.response_ids]
        return tuple(ids)


Answer = Callable[[int, Completion], "Future[tuple[int, ...] | None]"]
"""Number of a conversation, its turn that has just ended -> the context ids before its next turn; None: it is over."""


@runtime_checkable
class ConversationSampler(Protocol):
    """A sampler that draws responses of several turns, between which somebody answers."""

    def converse(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        settings: SamplingSettings,
        generator: torch.Generator,
        answer: Answer,
        max_turns: int,
    ) -> Iterator[tuple[int, Dialogue]]:
        """Each prompt's number with its conversation, in the order in which conversations end.

        `answer` is called as soon as a turn has ended, whatever ended it; while its future waits, other conversations
        go on. A turn after which there is no room for another is given to `answer` as well, whose ids are not used.

        Args:
            prompts: one for each conversation; they may be equal.
            settings: of the draws; `max_new_tokens` and `min_new_tokens` are those of a turn.
            generator: of the random numbers.
            answer: says what comes between a turn and the next. The future may be resolved by any thread.
            max_turns: that one conversation may have, at least 1.
        """
        ...


_NOTHING = torch.zeros(0, dtype=torch.long)


class Results:
    """Tokens and log-probabilities by slot; they stay on the device until all are there."""

    def __init__(self, num_slots: int, num_steps: int, device: torch.device) -> None:
        self.token_ids = torch.zeros(num_slots, num_steps, dtype=torch.long, device=device)
        self.log_mu = torch.zeros(num_slots, num_steps, device=device)
        self.log_model = torch.zeros(num_slots, num_steps, device=device)
        self.num_tokens = torch.full((num_slots,), num_steps, device=device)
        self.is_finished = torch.zeros(num_slots, dtype=torch.bool, device=device)
        # By slot and step, where it was found out.
        self._support: dict[int, dict[int, Tensor]] = defaultdict(dict)
        self._top: dict[int, dict[int, tuple[Tensor, Tensor]]] = defaultdict(dict)

    def cover(self, num_steps: int) -> None:
        """Make room for so many tokens in each slot; twice as many each time, so that it is rare."""
        missing = num_steps - self.token_ids.shape[1]
        if missing > 0:
            room = (0, max(missing, self.token_ids.shape[1]))
            self.token_ids, self.log_mu, self.log_model = (
                torch.nn.functional.pad(column, room) for column in (self.token_ids, self.log_mu, self.log_model)
            )

    def begin(self, slots: Int[Tensor, " rows"], num_tokens: Int[Tensor, " rows"]) -> None:
        """Begin another response in these slots, cut off after this many tokens."""
        self.num_tokens[slots] = num_tokens
        self.is_finished[slots] = False
        for slot in slots.tolist():
            self._support.pop(slot, None)
            self._top.pop(slot, None)

    def record(self, slots: Int[Tensor, " rows"], steps: Int[Tensor, " rows"], drawn: Drawn) -> None:
        """Token `steps` of each of the slots; what comes behind a slot's end does not count."""
        self.token_ids[slots, steps] = drawn.token_ids
        self.log_mu[slots, steps] = drawn.log_mu
        self.log_model[slots, steps] = drawn.log_model
        if drawn.support is None and drawn.top_ids is None:
            return
        for row, (slot, step) in enumerate(zip(slots.tolist(), steps.tolist(), strict=True)):
            if drawn.support is not None:
                self._support[slot][step] = drawn.support[row]
            if drawn.top_ids is not None and drawn.top_log_probs is not None:
                self._top[slot][step] = drawn.top_ids[row], drawn.top_log_probs[row]

    def support(self, slot: int, step: int) -> tuple[int, ...] | None:
        """Return the ids that could be drawn as this token; None where all could, or nobody asked."""
        ids = self._support[slot].get(step) if slot in self._support else None
        return None if ids is None else tuple(ids.tolist())

    def top(self, slot: int, step: int) -> tuple[tuple[int, float], ...]:
        """Return the likeliest tokens with their log-probabilities; empty where nobody asked."""
        of_slot = self._top.get(slot, {})
        ids, log_probs = of_slot.get(step, (_NOTHING, _NOTHING))
        return tuple(zip(ids.tolist(), log_probs.tolist(), strict=True))

    def finish(self, slots: Int[Tensor, " rows"], num_tokens: int | Int[Tensor, " rows"]) -> None:
        """Note that these slots ended their text with this many tokens."""
        self.num_tokens[slots] = num_tokens
        self.is_finished[slots] = True

    def completions(self, slots: slice = slice(None)) -> list[Completion]:
        """One for each of the slots; a slot that did not finish was cut off."""
        columns = (self.token_ids, self.log_mu, self.log_model, self.num_tokens, self.is_finished)
        of_slots = range(*slots.indices(len(self.token_ids)))
        return [
            Completion(
                response_ids=tuple(token_ids[:num_tokens]),
                log_mu=tuple(log_mu[:num_tokens]),
                log_model=tuple(log_model[:num_tokens]),
                finish_reason="stop" if is_finished else "length",
                support=self._supports(slot, num_tokens),
                top=tuple(self.top(slot, step) for step in range(num_tokens)) if slot in self._top else None,
            )
            for slot, token_ids, log_mu, log_model, num_tokens, is_finished in zip(
                of_slots, *(column[slots].tolist() for column in columns), strict=True
            )
        ]

    def _supports(self, slot: int, num_tokens: int) -> tuple[tuple[int, ...], ...] | None:
        of_slot = self._support.get(slot)
        return None if of_slot is None else tuple(tuple(of_slot[step].tolist()) for step in range(num_tokens))
