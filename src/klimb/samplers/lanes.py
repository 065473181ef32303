"""Continuous batching: a fixed number of lanes, into which waiting samples enter as others finish."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from klimb.samplers.decoder import LlamaDecoder, PromptStates
from klimb.samplers.drawing import Drawing
from klimb.samplers.sampler import Completion, Results

REFILL_FRACTION = 1 / 16
"""Samples enter when this share of the lanes is free: entering costs about as much as those lanes waste by then."""


@dataclass(frozen=True, kw_only=True)
class LaneLimits:
    """How much is decoded at once; the fields are those of `LocalSampler` with these names."""

    max_batch: int
    compact_fraction: float
    max_prefill_tokens: int


class LaneRun:
    """Draws samples of prompts, a token in each lane at a time.

    Args:
        decoder: the model.
        prompts: token ids; at least one prompt.
        num_samples: for each prompt.
        drawing: how tokens are drawn.
        quantiles: `[max_new_tokens, samples]`, uniform in [0, 1): the random number of each token. The samples of the
            first prompt come first.
        limits: how much is decoded at once.
    """

    def __init__(
        self,
        decoder: LlamaDecoder,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        drawing: Drawing,
        quantiles: Tensor,
        limits: LaneLimits,
    ) -> None:
        self._num_samples = num_samples
        self._num_open = [num_samples] * len(prompts)
        self._num_incomplete = len(prompts)
        waiting = Waiting(decoder, limits.max_prefill_tokens)
        waiting.add((prompt, range(i * num_samples, (i + 1) * num_samples)) for i, prompt in enumerate(prompts))
        self._lanes = _Lanes(decoder, drawing, quantiles, limits, waiting)
        self._has_begun = False

    @property
    def is_complete(self) -> bool:
        """True when every response has ended."""
        return self._num_incomplete == 0

    def advance(self) -> list[tuple[int, list[Completion]]]:
        """One more token in every lane; the prompts whose last response has just ended, with their completions."""
        if self._has_begun:
            self._lanes.step()
        self._has_begun = True
        self._lanes.turn_over()
        complete = []
        for slot in self._lanes.take_closed_slots():
            number = slot // self._num_samples
            self._num_open[number] -= 1
            if self._num_open[number] == 0:
                complete.append(number)
        self._num_incomplete -= len(complete)
        count = self._num_samples
        return [(i, self._lanes.results.completions(slice(i * count, (i + 1) * count))) for i in complete]


@dataclass(frozen=True)
class Entrants:
    """Samples that enter together: their places among the read prompts, and among the results."""

    states: PromptStates
    which: Tensor
    slots: Tensor


class Waiting:
    """Samples that have not begun. Their prompts are read when lanes are free for them, the short ones first."""

    def __init__(self, decoder: LlamaDecoder, max_prefill_tokens: int) -> None:
        self._decoder = decoder
        self._max_prefill_tokens = max_prefill_tokens
        self._unread: deque[tuple[Sequence[int], Sequence[int]]] = deque()
        self._states: PromptStates | None = None
        self._ready: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._ready or self._unread)

    def add(self, groups: Iterable[tuple[Sequence[int], Sequence[int]]]) -> None:
        """Add prompts, each with the slots of its samples."""
        self._unread = deque(sorted([*self._unread, *groups], key=lambda group: len(group[0])))

    def take(self, num_free: int) -> Entrants:
        """At least one and at most `num_free` samples, all of prompts that were read together."""
        if not self._ready:
            self._read(num_free)
        assert self._states is not None
        taken = [self._ready.popleft() for _ in range(min(num_free, len(self._ready)))]
        which, slots = torch.tensor(taken).unbind(dim=1)
        entrants = Entrants(self._states, which, slots)
        if not self._ready:
            self._states = None
        return entrants

    def _read(self, num_samples: int) -> None:
        """Pass the prompts of so many samples through the model: at least one, as many as the token limit allows."""
        block = [self._unread.popleft()]
        num_read = len(block[0][1])
        while self._unread and num_read < num_samples:
            prompt, slots = self._unread[0]
            if len(prompt) * (len(block) + 1) > self._max_prefill_tokens:
                break
            block.append(self._unread.popleft())
            num_read += len(slots)
        self._states = self._decoder.read_prompts([prompt for prompt, _ in block])
        self._ready.extend((place, slot) for place, (_, slots) in enumerate(block) for slot in slots)


class _Lanes:
    """The rows being decoded. A finished lane idles, its draws unrecorded, until a sample enters or it is dropped."""

    def __init__(
        self,
        decoder: LlamaDecoder,
        drawing: Drawing,
        quantiles: Tensor,
        limits: LaneLimits,
        waiting: Waiting,
    ) -> None:
        num_steps, num_slots = quantiles.shape
        num_lanes = min(limits.max_batch, num_slots)
        self.results = Results(num_slots, num_steps, torch.device("cpu"))
        self.is_open = torch.zeros(num_lanes, dtype=torch.bool)
        self._decoder, self._drawing, self._limits, self._waiting = decoder, drawing, limits, waiting
        self._quantiles = quantiles
        self._cache = decoder.empty_cache(num_lanes)
        self._closed_slots: list[int] = []
        zeros = torch.zeros(num_lanes, dtype=torch.long)
        self._slots, self._steps, self._prompt_lengths = zeros, zeros.clone(), zeros.clone()
        self._token_ids, self._positions = zeros.clone(), zeros.clone()

    def step(self) -> None:
        """One more token in every open lane."""
        logits = self._decoder.step(self._token_ids, self._positions, self._cache)
        lanes = self.is_open.nonzero()[:, 0]
        self._draw(logits if len(lanes) == len(logits) else logits[lanes], lanes)

    def turn_over(self) -> None:
        """Lets samples enter where lanes are free; drops free lanes when none is waiting."""
        while self._waiting and self._num_free() >= REFILL_FRACTION * len(self.is_open):
            self._enter(self._waiting.take(self._num_free()))
            if self._num_free() == 0:
                return
        num_free = self._num_free()
        if self._waiting or not 0 < num_free < len(self.is_open):
            return
        if num_free >= self._limits.compact_fraction * len(self.is_open):
            self._keep(self.is_open.nonzero()[:, 0])

    def take_closed_slots(self) -> list[int]:
        """Slots whose responses have ended since this was last asked."""
        closed, self._closed_slots = self._closed_slots, []
        return closed

    def _num_free(self) -> int:
        return len(self.is_open) - int(self.is_open.sum())

    def _enter(self, entrants: Entrants) -> None:
        lanes = (~self.is_open).nonzero()[: len(entrants.slots), 0]
        self._cache.enter(lanes, entrants.states, entrants.which)
        self._slots[lanes] = entrants.slots
        self._steps[lanes] = 0
        self._prompt_lengths[lanes] = entrants.states.lengths[entrants.which]
        self._draw(entrants.states.logits[entrants.which], lanes)

    def _draw(self, logits: Tensor, lanes: Tensor) -> None:
        """Draw the next token of these lanes from their logits."""
        slots, steps = self._slots[lanes], self._steps[lanes]
        token_ids, ends = self._drawing(logits, self.results, slots, steps, self._quantiles[steps, slots])
        self._token_ids[lanes] = token_ids
        self._positions[lanes] = self._prompt_lengths[lanes] + steps
        self._steps[lanes] = steps + 1
        stays_open = ~ends & (steps + 1 < len(self._quantiles))
        self.is_open[lanes] = stays_open
        self._closed_slots += slots[~stays_open].tolist()

    def _keep(self, lanes: Tensor) -> None:
        self._cache.keep(lanes)
        self.is_open = self.is_open[lanes]
        self._slots, self._steps, self._prompt_lengths = (
            of_lane[lanes] for of_lane in (self._slots, self._steps, self._prompt_lengths)
        )
        self._token_ids, self._positions = self._token_ids[lanes], self._positions[lanes]
