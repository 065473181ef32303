"""Requests in the lanes of klimb's own decoder: each reads its prompt in chunks, then draws a token at a time.

A lane holds the states of a text's first positions. What it has not read yet is its unread part: the rest of the
prompt, later the token that was drawn last. Passes over chunks of prompts and steps of a token take turns, so that a
long prompt holds nobody up for longer than its chunk. A prompt that begins like a text that was read, or that another
lane is reading, gets the states of the common part as a copy and reads the rest alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from klimb.samplers.conversations import turn_quantiles
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.mixed_drawing import MixedDrawing
from klimb.samplers.sampler import Results
from klimb.samplers.service.jobs import Job, Step
from klimb.samplers.service.prefixes import LEAST_REUSED, Ids, ParkedPrefixes, common_length
from klimb.samplers.service.requests import DrawnToken

COMPACT_FRACTION = 0.25
"""Lanes move up when at least this share of those that a step goes through is free."""


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """How much a service takes at once.

    Attributes:
        max_chunk_tokens: of prompts that are read between two tokens of the others.
        max_idle_chunk_tokens: of prompts that are read at once while nothing is drawn.
        max_lane_bytes: what the lanes may take when a request enters; one request enters anyway. Lanes grow with their
            answers, so they may come to take more.
        max_parked_bytes: what states of texts may take that nobody is drawing after.
    """

    max_chunk_tokens: int = 64
    max_idle_chunk_tokens: int = 512
    max_lane_bytes: int = 4 * 2**30
    max_parked_bytes: int = 2**30

    def __post_init__(self) -> None:
        for name in ("max_chunk_tokens", "max_idle_chunk_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("max_lane_bytes", "max_parked_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


@dataclass(eq=False)
class _Lane:
    """A request in a lane.

    Attributes:
        job: whose tokens are drawn.
        slot: of its results.
        ids: prompt and answer so far.
        quantiles: the random number of each token.
        num_held: how many of the ids the lane holds.
        source: the lane whose states are copied once it holds `num_shared` of them.
        is_over: the last token was drawn, or none can be; the lane is freed when `tidy` is called.
        is_broken: what it holds is no number.
    """

    job: Job
    slot: int
    ids: list[int]
    quantiles: Tensor
    num_held: int = 0
    source: "_Lane | None" = None
    num_shared: int = 0
    is_over: bool = False
    is_broken: bool = False

    @property
    def num_unread(self) -> int:
        return len(self.ids) - self.num_held

    @property
    def reads_prompt(self) -> bool:
        return self.source is None and not self.is_over and self.num_unread > 1

    @property
    def draws(self) -> bool:
        return self.source is None and not self.is_over and self.num_unread == 1

    @property
    def held_ids(self) -> Ids:
        return np.array(self.ids[: self.num_held], dtype=np.int64)


class RequestLanes:
    """A `DrawBatch` by klimb's own decoder.

    Args:
        decoder: the model.
        drawing: how tokens are drawn; it has `max_batch` slots.
        max_batch: requests that are drawn at once.
        limits: how much is read and held at once.
    """

    def __init__(self, decoder: LlamaDecoder, drawing: MixedDrawing, *, max_batch: int, limits: ServiceLimits) -> None:
        self.max_jobs = max_batch
        self._decoder, self._drawing, self._limits = decoder, drawing, limits
        self._cache = decoder.empty_cache(0)
        self._lanes: list[_Lane | None] = []
        self._parked = ParkedPrefixes(limits.max_parked_bytes)
        self._results = Results(max_batch, 1, torch.device("cpu"))
        self._free_slots = list(range(max_batch))
        self._num_reused_tokens = 0
        self._has_just_read = False

    @property
    def num_reused_tokens(self) -> int:
        """Tokens of prompts that were not read, since their states were there already."""
        return self._num_reused_tokens

    def choose(self, waiting: Sequence[Job]) -> list[Job]:
        """Return those that come first and have room."""
        active = self._active()
        chosen: list[Job] = []
        longest = max((len(lane.ids) for lane in active), default=0)
        for job in waiting[: self.max_jobs - len(active)]:
            longest = max(longest, job.length)
            num_lanes = len(active) + len(chosen) + 1
            if num_lanes > 1 and num_lanes * longest * self._cache.bytes_per_position > self._limits.max_lane_bytes:
                break
            chosen.append(job)
        return chosen

    def enter(self, jobs: Sequence[Job]) -> None:
        """Give each of these a lane, with what is known of its beginning."""
        if not jobs:
            return
        self._add_lanes(len(self._active()) + len(jobs))
        for job in jobs:
            request = job.request
            self._decoder.cover(len(request.prompt_ids) + request.settings.max_new_tokens)
            lane = _Lane(
                job,
                self._begin_slot(job),
                [*request.prompt_ids, *job.drawn_ids],
                turn_quantiles(request.seed, 0, request.settings.max_new_tokens),
            )
            self._lanes[self._lanes.index(None)] = lane
            self._find_beginning(lane)

    def remove(self, jobs: Sequence[Job]) -> None:
        """Free the lanes of these."""
        for lane in self._active():
            if lane.job in jobs:
                lane.is_over = True
                # A prompt that nothing was drawn after has not shown yet that its states are numbers.
                lane.is_broken = not lane.job.drawn
        self.tidy()

    def tidy(self) -> None:
        """Free the lanes of those that are over, and park what they hold."""
        for number, lane in enumerate(self._lanes):
            if lane is not None and lane.is_over:
                self._free(number, lane)
        self._arrange()

    def advance(self) -> list[Step]:
        """Read a chunk of each prompt that is being read, or draw a token in each lane that is ready: in turns."""
        self._copy_beginnings()
        reads = [lane for lane in self._active() if lane.reads_prompt]
        draws = any(lane.draws for lane in self._active())
        self._has_just_read = bool(reads) and not (draws and self._has_just_read)
        return self._read(reads, has_company=draws) if self._has_just_read else self._step()

    def clear(self) -> bool:
        """Forget all lanes and parked texts; True if a text was parked."""
        for lane in self._lanes:
            if lane is not None:
                self._release_slot(lane)
        self._lanes, self._cache = [], self._decoder.empty_cache(0)
        had_parked = len(self._parked) > 0
        self._parked.clear()
        return had_parked

    def _active(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane is not None and not lane.is_over]

    def _begin_slot(self, job: Job) -> int:
        """Prepare a slot of the results; tokens that were drawn before the lanes were cleared are in it again."""
        slot = self._free_slots.pop()
        request, num_drawn = job.request, len(job.drawn)
        self._results.cover(num_drawn + 1)
        self._results.begin(torch.tensor([slot]), torch.tensor([request.settings.max_new_tokens]))
        self._results.token_ids[slot, :num_drawn] = torch.tensor(job.drawn_ids, dtype=torch.long)
        details = TokenDetails(support=request.keep_support, num_top=request.num_top_log_probs)
        self._drawing.begin(slot, request.prompt_ids, request.settings, details)
        return slot

    def _release_slot(self, lane: _Lane) -> None:
        self._drawing.release(lane.slot)
        self._free_slots.append(lane.slot)

    def _free(self, number: int, lane: _Lane) -> None:
        """Free a lane; what it holds is parked, unless it is broken."""
        if lane.is_broken:
            self._cache.clear(number)
        else:
            self._parked.park(lane.held_ids, self._cache.states(number, lane.num_held))
        self._lanes[number] = None
        self._release_slot(lane)
        for follower in self._active():
            if follower.source is lane:
                follower.source = None
                self._find_beginning(follower)

    # Where a text begins like another.

    def _find_beginning(self, lane: _Lane) -> None:
        """Copy the states of the longest beginning that is known; or note which lane is going to have them."""
        # The last token is fed in any case, for the logits behind it.
        ids = np.array(lane.ids[:-1], dtype=np.int64)
        source, num_shared = self._most_alike(lane, ids)
        parked = self._parked.find(ids)
        if parked is not None and parked[1] >= num_shared:
            self._copied(lane, parked[1])
            self._cache.write_states(self._lanes.index(lane), *parked)
        elif num_shared >= LEAST_REUSED:
            lane.source, lane.num_shared = source, num_shared

    def _most_alike(self, lane: _Lane, ids: Ids) -> tuple[_Lane | None, int]:
        """Return the lane before this one whose text begins most like these ids; of equals the one that read most."""
        before = self._active()
        before = [other for other in before if other is not lane and not _waits_for(other, lane)]
        shared = [(common_length(ids, np.array(other.ids[:-1], dtype=np.int64)), other) for other in before]
        num_shared, source = max(shared, key=lambda each: (each[0], each[1].num_held), default=(0, None))
        return source, num_shared

    def _copy_beginnings(self) -> None:
        for lane in self._active():
            source = lane.source
            if source is not None and source.num_held >= lane.num_shared:
                lane.source = None
                states = self._cache.states(self._lanes.index(source), lane.num_shared)
                self._cache.write_states(self._lanes.index(lane), states, lane.num_shared)
                self._copied(lane, lane.num_shared)

    def _copied(self, lane: _Lane, num_tokens: int) -> None:
        lane.num_held = num_tokens
        self._num_reused_tokens += num_tokens

    # Passes through the model.

    def _read(self, reads: list[_Lane], *, has_company: bool) -> list[Step]:
        """Read on in these prompts; draw the first token of those that are at their end."""
        limits = self._limits
        left = limits.max_chunk_tokens if has_company else limits.max_idle_chunk_tokens
        lanes, chunks = [], []
        for place, lane in enumerate(sorted(reads, key=lambda each: each.num_unread)):
            # Short prompts leave some of their share to the long ones.
            size = min(lane.num_unread, max(1, left // (len(reads) - place)))
            if left < size:
                break
            left -= size
            lanes.append(lane)
            chunks.append(lane.ids[lane.num_held : lane.num_held + size])
        numbers = torch.tensor([self._lanes.index(lane) for lane in lanes])
        starts = torch.tensor([lane.num_held for lane in lanes])
        logits = self._decoder.read_more(numbers, chunks, starts, self._cache)
        for lane, chunk in zip(lanes, chunks, strict=True):
            lane.num_held += len(chunk)
        ended = [row for row, lane in enumerate(lanes) if lane.num_unread == 0]
        return self._draw(logits[ended], [lanes[row] for row in ended]) if ended else []

    def _step(self) -> list[Step]:
        """One more token in each lane that is ready. Other lanes before the last of these are fed what is not kept."""
        numbers = [number for number, lane in enumerate(self._lanes) if lane is not None and lane.draws]
        if not numbers:
            return []
        front = self._lanes[: numbers[-1] + 1]
        token_ids = torch.tensor([lane.ids[-1] if lane is not None and lane.draws else 0 for lane in front])
        # A lane that is not ready is written where its next token will be.
        positions = torch.tensor([lane.num_held if lane is not None else 0 for lane in front])
        logits = self._decoder.step(token_ids, positions, self._cache)
        lanes = [lane for lane in front if lane is not None and lane.draws]
        for lane in lanes:
            lane.num_held += 1
        return self._draw(logits if len(lanes) == len(front) else logits[numbers], lanes)

    def _draw(self, logits: Tensor, lanes: list[_Lane]) -> list[Step]:
        """Draw the next token of these lanes from their logits."""
        steps = torch.tensor([len(lane.job.drawn) for lane in lanes])
        slots = torch.tensor([lane.slot for lane in lanes])
        self._results.cover(int(steps.max()) + 1)
        quantiles = torch.stack([lane.quantiles[len(lane.job.drawn)] for lane in lanes])
        draw = self._drawing(logits, self._results, slots, steps, quantiles)
        tokens = self._tokens(slots, steps, draw.token_ids)
        brought: list[Step] = []
        for row, (lane, token, ends) in enumerate(zip(lanes, tokens, draw.ends.tolist(), strict=True)):
            if row in draw.failed:
                lane.is_over = lane.is_broken = True
                brought.append(Step(lane.job, end=draw.failed[row]))
            else:
                brought.append(self._take(lane, token, ends=ends))
        return brought

    def _tokens(self, slots: Tensor, steps: Tensor, token_ids: Tensor) -> list[DrawnToken]:
        """Return what was recorded of the tokens that were drawn in these slots."""
        results = self._results
        columns = (slots, steps, token_ids, results.log_mu[slots, steps], results.log_model[slots, steps])
        return [
            DrawnToken(
                token_id=token_id,
                log_mu=log_mu,
                log_model=log_model,
                top=results.top(slot, step),
                support=results.support(slot, step),
            )
            for slot, step, token_id, log_mu, log_model in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def _take(self, lane: _Lane, token: DrawnToken, *, ends: bool) -> Step:
        """Add the token to its lane."""
        lane.ids.append(token.token_id)
        lane.job.drawn.append(token)
        if ends or len(lane.job.drawn) == lane.job.request.settings.max_new_tokens:
            lane.is_over = True
            return Step(lane.job, token, "stop" if ends else "length")
        return Step(lane.job, token)

    # Where lanes stand.

    def _add_lanes(self, num_lanes: int) -> None:
        """Have at least so many lanes; twice as many each time, so that it is rare."""
        missing = num_lanes - len(self._lanes)
        if missing > 0:
            missing = max(missing, min(len(self._lanes), self.max_jobs - len(self._lanes)))
            self._cache.add_lanes(missing)
            self._lanes += [None] * missing

    def _arrange(self) -> None:
        """Move lanes up where many before them are free, and give memory back that is not needed."""
        active = self._active()
        if not active:
            self._lanes, self._cache = [], self._decoder.empty_cache(0)
            return
        front = max(number for number, lane in enumerate(self._lanes) if lane is not None) + 1
        if front - len(active) >= COMPACT_FRACTION * front:
            self._move_up(len(active))
        if len(self._lanes) >= 4 * len(active):
            self._move_up(len(active))
            self._cache.keep(torch.arange(2 * len(active)))
            del self._lanes[2 * len(active) :]
        self._cache.shorten(max(len(lane.ids) for lane in active))

    def _move_up(self, num_active: int) -> None:
        """Let the active lanes be the first."""
        for number in range(num_active, len(self._lanes)):
            lane = self._lanes[number]
            if lane is not None:
                free = self._lanes.index(None)
                self._cache.write_states(free, self._cache.states(number, lane.num_held), lane.num_held)
                self._lanes[free], self._lanes[number] = lane, None


def _waits_for(lane: _Lane, other: _Lane) -> bool:
    """Tell whether a lane gets its beginning from the other, or from one that does."""
    source = lane.source
    while source is not None and source is not other:
        source = source.source
    return source is other
