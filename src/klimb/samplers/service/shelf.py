"""Lanes of texts of similar length: a step reads every lane as far as the longest text on its shelf reaches."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from klimb.samplers.decoder import LaneStates, LaneTokens, LlamaDecoder
from klimb.samplers.service.jobs import Job
from klimb.samplers.service.prefixes import Ids

COMPACT_FRACTION = 0.25
"""Lanes move up when at least this share of those that a step goes through is free."""

LENGTH_FACTOR = 4
"""Texts on a shelf may be this many times as long as those on the one before."""


@dataclass(eq=False)
class Lane:
    """A request in a lane.

    Attributes:
        job: whose tokens are drawn.
        slot: of its results.
        ids: prompt and answer so far.
        quantiles: the random number of each token.
        shelf: number of the shelf that the lane is on.
        num_held: how many of the ids the lane holds.
        source: the lane whose states are copied once it holds `num_shared` of them.
        is_over: the last token was drawn, or none can be; the lane is freed when `tidy` is called.
        is_broken: what it holds is no number.
    """

    job: Job
    slot: int
    ids: list[int]
    quantiles: Tensor
    shelf: int
    num_held: int = 0
    source: "Lane | None" = None
    num_shared: int = 0
    is_over: bool = False
    is_broken: bool = False

    @property
    def num_unread(self) -> int:
        """How many of the ids the lane does not hold yet."""
        return len(self.ids) - self.num_held

    @property
    def reads_prompt(self) -> bool:
        """True while more than the last token is to be read."""
        return self.source is None and not self.is_over and self.num_unread > 1

    @property
    def draws(self) -> bool:
        """True when the next token is drawn behind the one that is fed next."""
        return self.source is None and not self.is_over and self.num_unread == 1

    @property
    def held_ids(self) -> Ids:
        """The ids that the lane holds."""
        return np.array(self.ids[: self.num_held], dtype=np.int64)


class Shelf:
    """Lanes whose keys and values share buffers; `lanes` has None where one is free."""

    def __init__(self, decoder: LlamaDecoder) -> None:
        self.lanes: list[Lane | None] = []
        self.cache = decoder.empty_cache(0)
        self._decoder = decoder

    @property
    def active(self) -> list[Lane]:
        """Those that are not over."""
        return [lane for lane in self.lanes if lane is not None and not lane.is_over]

    def put(self, lane: Lane) -> None:
        """Give a text a lane, with room for all of it; of what it holds nothing is written."""
        if None not in self.lanes:
            # Twice as many each time, so that it is rare.
            missing = max(1, len(self.lanes))
            self.cache.add_lanes(missing)
            self.lanes += [None] * missing
        self.cache.reserve(len(lane.ids))
        self.lanes[self.lanes.index(None)] = lane

    def states(self, lane: Lane, length: int) -> LaneStates:
        """Return views of what a lane holds."""
        return self.cache.states(self.lanes.index(lane), length)

    def write(self, lane: Lane, states: LaneStates, length: int) -> None:
        """Copy states into a lane, which then holds so many tokens."""
        self.cache.write_states(self.lanes.index(lane), states, length)
        lane.num_held = length

    def next_tokens(self) -> tuple[LaneTokens, list[int]] | None:
        """Return what a step feeds, and the places in it of the lanes that draw; None where none does.

        Other lanes before the last of these are fed what is not kept: it stands where their next token will be.
        """
        numbers = [number for number, lane in enumerate(self.lanes) if lane is not None and lane.draws]
        if not numbers:
            return None
        front = self.lanes[: numbers[-1] + 1]
        token_ids = torch.tensor([lane.ids[-1] if lane is not None and lane.draws else 0 for lane in front])
        positions = torch.tensor([lane.num_held if lane is not None else 0 for lane in front])
        return LaneTokens(self.cache, token_ids, positions), numbers

    def arrange(self) -> None:
        """Move lanes up where many before them are free, and give memory back that is not needed."""
        taken = [lane for lane in self.lanes if lane is not None]
        if not taken:
            self.lanes, self.cache = [], self._decoder.empty_cache(0)
            return
        front = max(number for number, lane in enumerate(self.lanes) if lane is not None) + 1
        is_much = len(self.lanes) >= 4 * len(taken)
        if is_much or front - len(taken) >= COMPACT_FRACTION * front:
            self._move_up(len(taken))
        if is_much:
            self.cache.keep(torch.arange(2 * len(taken)))
            del self.lanes[2 * len(taken) :]
        self.cache.shorten(max(len(lane.ids) for lane in taken))

    def _move_up(self, num_taken: int) -> None:
        """Let the lanes that are taken be the first."""
        for number in range(num_taken, len(self.lanes)):
            lane = self.lanes[number]
            if lane is not None:
                free = self.lanes.index(None)
                self.cache.write_states(free, self.cache.states(number, lane.num_held), lane.num_held)
                self.lanes[free], self.lanes[number] = lane, None


def shelf_number(length: int, shortest: int) -> int:
    """Return the number of the shelf of texts of this length: those of the first have up to `shortest` tokens."""
    return max(0, math.ceil(math.log(length / shortest, LENGTH_FACTOR)))
