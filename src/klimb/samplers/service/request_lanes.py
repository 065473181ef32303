"""Requests in the lanes of klimb's own decoder: each reads its prompt in chunks, then draws a token at a time.

A lane holds the states of a text's first positions. What it has not read yet is its unread part: the rest of the
prompt, later the token that was drawn last. Passes over chunks of prompts and steps of a token take turns, so that a
long prompt holds nobody up for longer than its chunk. A prompt that begins like a text that was read, or that another
lane is reading, gets the states of the common part as a copy and reads the rest alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from klimb.samplers.conversations import turn_quantiles
from klimb.samplers.decoder import LaneStates, LaneTokens, LlamaDecoder
from klimb.samplers.distribution import TokenDetails
from klimb.samplers.mixed_drawing import MixedDrawing
from klimb.samplers.sampler import Results
from klimb.samplers.service.jobs import Job, Step
from klimb.samplers.service.prefixes import LEAST_REUSED, Ids, ParkedPrefixes, common_length
from klimb.samplers.service.requests import DrawnToken
from klimb.samplers.service.shelf import Lane, Shelf, shelf_number


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """How much a service takes at once.

    Attributes:
        max_chunk_tokens: of prompts that are read between two tokens of the others.
        max_idle_chunk_tokens: of prompts that are read at once while nothing is drawn.
        max_lane_bytes: what the lanes may take when a request enters; one request enters anyway. Lanes grow with their
            answers, so they may come to take more.
        max_parked_bytes: what states of texts may take that nobody is drawing after.
        short_text: texts of up to this many tokens are decoded in buffers of their own, apart from those up to four
            times as long, and so on: a step reads the buffers as far as the longest text in them.
    """

    max_chunk_tokens: int = 64
    max_idle_chunk_tokens: int = 256
    max_lane_bytes: int = 4 * 2**30
    max_parked_bytes: int = 2**30
    short_text: int = 256

    def __post_init__(self) -> None:
        for name in ("max_chunk_tokens", "max_idle_chunk_tokens", "short_text"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("max_lane_bytes", "max_parked_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


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
        self._bytes_per_position = decoder.empty_cache(0).bytes_per_position
        self._shelves: dict[int, Shelf] = {}
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
        lengths = [len(lane.ids) for lane in self._active()]
        chosen: list[Job] = []
        for job in waiting[: self.max_jobs - len(lengths)]:
            lengths.append(job.length)
            if len(lengths) > 1 and self._num_bytes(lengths) > self._limits.max_lane_bytes:
                break
            chosen.append(job)
        return chosen

    def enter(self, jobs: Sequence[Job]) -> None:
        """Give each of these a lane, with what is known of its beginning."""
        if not jobs:
            return
        for job in jobs:
            request = job.request
            self._decoder.cover(len(request.prompt_ids) + request.settings.max_new_tokens)
            lane = Lane(
                job,
                self._begin_slot(job),
                [*request.prompt_ids, *job.drawn_ids],
                turn_quantiles(request.seed, 0, request.settings.max_new_tokens),
                shelf=self._shelf_number(job.length),
            )
            self._shelf(lane).put(lane)
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
        """Free the lanes of those that are over, and park what they hold; move on those that became long."""
        for shelf in list(self._shelves.values()):
            for number, lane in enumerate(shelf.lanes):
                if lane is not None and lane.is_over:
                    self._free(shelf, number, lane)
        for lane in self._active():
            if self._shelf_number(len(lane.ids)) > lane.shelf:
                self._move_on(lane)
        for number, shelf in list(self._shelves.items()):
            shelf.arrange()
            if not shelf.lanes:
                del self._shelves[number]

    def advance(self) -> list[Step]:
        """Read a chunk of each prompt that is being read, or draw a token in each lane that is ready: in turns."""
        self._copy_beginnings()
        reads = [lane for lane in self._active() if lane.reads_prompt]
        draws = any(lane.draws for lane in self._active())
        self._has_just_read = bool(reads) and not (draws and self._has_just_read)
        return self._read(reads, has_company=draws) if self._has_just_read else self._step()

    def clear(self) -> bool:
        """Forget all lanes and parked texts; True if a text was parked."""
        for shelf in self._shelves.values():
            for lane in shelf.lanes:
                if lane is not None:
                    self._release_slot(lane)
        self._shelves = {}
        had_parked = len(self._parked) > 0
        self._parked.clear()
        return had_parked

    def _active(self) -> list[Lane]:
        return [lane for shelf in self._shelves.values() for lane in shelf.active]

    def _shelf(self, lane: Lane) -> Shelf:
        if lane.shelf not in self._shelves:
            self._shelves[lane.shelf] = Shelf(self._decoder)
        return self._shelves[lane.shelf]

    def _shelf_number(self, length: int) -> int:
        return shelf_number(length, self._limits.short_text)

    def _num_bytes(self, lengths: Sequence[int]) -> int:
        """Memory of lanes of these lengths: each is as long as the longest on its shelf."""
        of_shelves: dict[int, list[int]] = defaultdict(list)
        for length in lengths:
            of_shelves[self._shelf_number(length)].append(length)
        return self._bytes_per_position * sum(len(on_shelf) * max(on_shelf) for on_shelf in of_shelves.values())

    def _move_on(self, lane: Lane) -> None:
        """Move a lane to the shelf of texts of its length."""
        before = self._shelf(lane)
        number = before.lanes.index(lane)
        lane.shelf = self._shelf_number(len(lane.ids))
        self._shelf(lane).put(lane)
        self._shelf(lane).write(lane, before.cache.states(number, lane.num_held), lane.num_held)
        before.lanes[number] = None

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

    def _release_slot(self, lane: Lane) -> None:
        self._drawing.release(lane.slot)
        self._free_slots.append(lane.slot)

    def _free(self, shelf: Shelf, number: int, lane: Lane) -> None:
        """Free a lane; what it holds is parked, unless it is broken."""
        if lane.is_broken:
            shelf.cache.clear(number)
        else:
            self._parked.park(lane.held_ids, shelf.cache.states(number, lane.num_held))
        shelf.lanes[number] = None
        self._release_slot(lane)
        for follower in self._active():
            if follower.source is lane:
                follower.source = None
                self._find_beginning(follower)

    # Where a text begins like another.

    def _find_beginning(self, lane: Lane) -> None:
        """Copy the states of the longest beginning that is known; or note which lane is going to have them."""
        # The last token is fed in any case, for the logits behind it.
        ids = np.array(lane.ids[:-1], dtype=np.int64)
        source, num_shared = self._most_alike(lane, ids)
        parked = self._parked.find(ids)
        if parked is not None and parked[1] >= num_shared:
            self._copy(lane, *parked)
        elif num_shared >= LEAST_REUSED:
            lane.source, lane.num_shared = source, num_shared

    def _most_alike(self, lane: Lane, ids: Ids) -> tuple[Lane | None, int]:
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
                self._copy(lane, self._shelf(source).states(source, lane.num_shared), lane.num_shared)

    def _copy(self, lane: Lane, states: LaneStates, num_tokens: int) -> None:
        self._shelf(lane).write(lane, states, num_tokens)
        self._num_reused_tokens += num_tokens

    # Passes through the model.

    def _read(self, reads: list[Lane], *, has_company: bool) -> list[Step]:
        """Read on in these prompts; draw the first token of those that are at their end."""
        limits = self._limits
        left = limits.max_chunk_tokens if has_company else limits.max_idle_chunk_tokens
        chunks: dict[int, list[tuple[Lane, list[int]]]] = defaultdict(list)
        for place, lane in enumerate(sorted(reads, key=lambda each: each.num_unread)):
            # Short prompts leave some of their share to the long ones.
            size = min(lane.num_unread, max(1, left // (len(reads) - place)))
            if left < size:
                break
            left -= size
            chunks[lane.shelf].append((lane, lane.ids[lane.num_held : lane.num_held + size]))
        # Nothing is drawn before all are read: what is drawn must be handed over, whatever fails.
        read = [self._read_on(self._shelves[number], on_shelf) for number, on_shelf in chunks.items()]
        ended = [lane for _, lanes in read for lane in lanes]
        return self._draw(torch.cat([logits for logits, _ in read]), ended) if ended else []

    def _read_on(self, shelf: Shelf, chunks: list[tuple[Lane, list[int]]]) -> tuple[Tensor, list[Lane]]:
        """Read these chunks of one shelf in one pass; return the lanes at their end, after the logits there."""
        numbers = torch.tensor([shelf.lanes.index(lane) for lane, _ in chunks])
        starts = torch.tensor([lane.num_held for lane, _ in chunks])
        logits = self._decoder.read_more(numbers, [chunk for _, chunk in chunks], starts, shelf.cache)
        for lane, chunk in chunks:
            lane.num_held += len(chunk)
        ended = [row for row, (lane, _) in enumerate(chunks) if lane.num_unread == 0]
        return logits[ended], [chunks[row][0] for row in ended]

    def _step(self) -> list[Step]:
        """One more token in each lane that is ready."""
        parts: list[LaneTokens] = []
        rows: list[int] = []
        lanes: list[Lane] = []
        num_rows = 0
        for shelf in self._shelves.values():
            tokens = shelf.next_tokens()
            if tokens is None:
                continue
            part, places = tokens
            parts.append(part)
            rows += [num_rows + place for place in places]
            lanes += [lane for lane in shelf.active if lane.draws]
            num_rows += len(part.token_ids)
        if not parts:
            return []
        logits = self._decoder.step_all(parts)
        for lane in lanes:
            lane.num_held += 1
        return self._draw(logits if len(lanes) == num_rows else logits[rows], lanes)

    def _draw(self, logits: Tensor, lanes: list[Lane]) -> list[Step]:
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

    def _take(self, lane: Lane, token: DrawnToken, *, ends: bool) -> Step:
        """Add the token to its lane."""
        lane.ids.append(token.token_id)
        lane.job.drawn.append(token)
        if ends or len(lane.job.drawn) == lane.job.request.settings.max_new_tokens:
            lane.is_over = True
            return Step(lane.job, token, "stop" if ends else "length")
        return Step(lane.job, token)


def _waits_for(lane: Lane, other: Lane) -> bool:
    """Tell whether a lane gets its beginning from the other, or from one that does."""
    source = lane.source
    while source is not None and source is not other:
        source = source.source
    return source is other
