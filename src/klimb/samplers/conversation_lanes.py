"""Conversations in the lanes of klimb's own decoder: what a lane holds is kept while its conversation waits.

An answer is read behind what the lane holds, in one pass, together with the turn's last token, which was drawn but
never fed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from klimb.samplers.conversations import Conversations, turn_quantiles
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.drawing import Drawing
from klimb.samplers.lanes import REFILL_FRACTION, LaneLimits, Waiting
from klimb.samplers.sampler import Completion, Results

FREE = -1
"""Owner of a lane that is nobody's."""


TOKENS_BETWEEN = 8
"""Tokens that a lane is drawn before answers are waited for. It is a number of tokens and no time, so that the same
turns are drawn beside each other whenever answers come: the same to the last bit."""


class ConversationLanes:
    """A `TurnRun`: draws turns of conversations, a token in each lane at a time.

    A lane is free, or its owner's: open while a turn is drawn, parked while its owner waits for an answer. Without an
    answer it stays parked; conversations that have not begun enter free lanes alone.

    Args:
        decoder: the model.
        conversations: whose turns are drawn; none of them has a lane yet.
        seeds: of the random numbers, by conversation.
        drawing: how tokens are drawn; its slots are the conversations.
        limits: how much is decoded at once.
    """

    def __init__(
        self,
        decoder: LlamaDecoder,
        conversations: Conversations,
        *,
        seeds: Sequence[int],
        drawing: Drawing,
        limits: LaneLimits,
    ) -> None:
        num_lanes, num_slots = min(limits.max_batch, conversations.num_open), len(conversations)
        num_steps = drawing.settings.max_new_tokens
        self._decoder, self._conversations, self._seeds = decoder, conversations, seeds
        self._drawing, self._limits = drawing, limits
        self._waiting = Waiting(decoder, limits.max_prefill_tokens)
        self._cache = decoder.empty_cache(num_lanes)
        self._closed: list[int] = []
        self._num_tokens = 0
        # By conversation.
        self._results = Results(num_slots, num_steps, torch.device("cpu"))
        self._quantiles = torch.zeros(num_steps, num_slots, dtype=torch.float64)
        self._room = torch.zeros(num_slots, dtype=torch.long)
        # By lane. The last token that was drawn stands at the position; the cache holds all before it.
        self._is_open = torch.zeros(num_lanes, dtype=torch.bool)
        self._owners = torch.full((num_lanes,), FREE)
        zeros = torch.zeros(num_lanes, dtype=torch.long)
        self._steps, self._starts, self._token_ids, self._positions = (zeros.clone() for _ in range(4))

    @property
    def num_rows(self) -> int:
        """Lanes that are in memory."""
        return len(self._owners)

    @property
    def is_due(self) -> bool:
        """True every `TOKENS_BETWEEN` tokens, and when no lane is open and nobody can enter one."""
        is_idle = not self._is_open.any() and not (self._waiting and self._num_free())
        return is_idle or self._num_tokens >= TOKENS_BETWEEN

    def advance(self, ready: Sequence[int]) -> list[tuple[int, Completion]]:
        """Let those that are ready begin their turn; one more token in every open lane; the turns that ended."""
        self._num_tokens = 1 if self.is_due else self._num_tokens + 1
        self._begin(ready)
        if self._is_open.any():
            self._arrange()
            self._step()
        closed, self._closed = self._closed, []
        return [(slot, self._results.completions(slice(slot, slot + 1))[0]) for slot in closed]

    def release(self, numbers: Sequence[int]) -> None:
        """Free the lanes of conversations that are over."""
        if numbers:
            self._owners[torch.isin(self._owners, torch.tensor(numbers))] = FREE

    def _begin(self, ready: Sequence[int]) -> None:
        if ready:
            conversations = self._conversations
            self._decoder.cover(max(len(conversations.history(i)) + conversations.room(i) for i in ready))
            for number in ready:
                self._prepare_turn(number)
            lane_of = {number: lane for lane, number in enumerate(self._owners.tolist())}
            self._go_on([(lane_of[number], number) for number in ready if number in lane_of])
            self._waiting.add(conversations.by_history([number for number in ready if number not in lane_of]))
        while self._waiting and self._num_free() and self._may_enter():
            self._enter()

    def _may_enter(self) -> bool:
        return self._num_free() >= REFILL_FRACTION * len(self._owners) or not self._is_open.any()

    def _num_free(self) -> int:
        return int((self._owners == FREE).sum())

    def _prepare_turn(self, number: int) -> None:
        """Set what belongs to the conversation's next turn, whichever lane it will be in."""
        room = self._conversations.room(number)
        slots = torch.tensor([number])
        self._room[slots] = room
        self._results.begin(slots, self._room[slots])
        self._quantiles[:room, number] = turn_quantiles(self._seeds[number], self._conversations.turn(number), room)
        self._drawing = self._drawing.with_prompt(number, self._conversations.history(number))

    def _go_on(self, parked: list[tuple[int, int]]) -> None:
        """Read the answers behind what the lanes hold, and draw the first token of the turns."""
        unread = [
            (self._conversations.history(number)[int(self._positions[lane]) :], lane, number) for lane, number in parked
        ]
        unread.sort(key=lambda each: len(each[0]))
        while unread:
            count = 1
            while count < len(unread) and len(unread[count][0]) * (count + 1) <= self._limits.max_prefill_tokens:
                count += 1
            chunks, lanes, numbers = zip(*unread[:count], strict=True)
            unread = unread[count:]
            of_lane = torch.tensor(lanes)
            logits = self._decoder.read_more(of_lane, chunks, self._positions[of_lane], self._cache)
            self._draw_first(logits, of_lane, torch.tensor(numbers))

    def _enter(self) -> None:
        entrants = self._waiting.take(self._num_free())
        lanes = (self._owners == FREE).nonzero()[: len(entrants.slots), 0]
        self._cache.enter(lanes, entrants.states, entrants.which)
        self._draw_first(entrants.states.logits[entrants.which], lanes, entrants.slots)

    def _draw_first(self, logits: Tensor, lanes: Tensor, numbers: Tensor) -> None:
        self._owners[lanes] = numbers
        self._steps[lanes] = 0
        self._starts[lanes] = torch.tensor([len(self._conversations.history(i)) for i in numbers.tolist()])
        self._draw(logits, lanes)

    def _step(self) -> None:
        """One more token in every open lane; lanes behind the last of them rest."""
        lanes = self._is_open.nonzero()[:, 0]
        front = int(lanes[-1]) + 1
        logits = self._decoder.step(self._token_ids[:front], self._positions[:front], self._cache)
        self._draw(logits if len(lanes) == front else logits[lanes], lanes)

    def _draw(self, logits: Tensor, lanes: Tensor) -> None:
        """Draw the next token of these lanes from their logits."""
        slots, steps = self._owners[lanes], self._steps[lanes]
        token_ids, ends = self._drawing(logits, self._results, slots, steps, self._quantiles[steps, slots])
        self._token_ids[lanes] = token_ids
        self._positions[lanes] = self._starts[lanes] + steps
        self._steps[lanes] = steps + 1
        stays_open = ~ends & (steps + 1 < self._room[slots])
        self._is_open[lanes] = stays_open
        self._closed += slots[~stays_open].tolist()

    def _arrange(self) -> None:
        """Drop free lanes that nobody will enter; open lanes then stand before those that wait."""
        if not self._waiting and self._num_free() >= self._limits.compact_fraction * len(self._owners):
            is_parked = ~self._is_open & (self._owners != FREE)
            self._keep(torch.cat([self._is_open.nonzero()[:, 0], is_parked.nonzero()[:, 0]]))

    def _keep(self, lanes: Tensor) -> None:
        self._cache.keep(lanes)
        self._owners, self._is_open = self._owners[lanes], self._is_open[lanes]
        self._steps, self._starts = self._steps[lanes], self._starts[lanes]
        self._token_ids, self._positions = self._token_ids[lanes], self._positions[lanes]
