"""klimb's own forward pass of a Llama-type model on a CPU: a pass over prompts, then one token a row at a time.

It rounds as the transformers model with eager attention does under the trainer's autocast, step by step: residual
stream, norms, rotary embedding and softmax in float32; products of rounded inputs; scores and weights rounded. What is
left out is what makes that model slow at one token a row: casts of weights, a cache that is copied, keys and values
repeated for each head, and three times as many operations.

Keys and values of the rows being decoded: one lane a row, each at a position of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from klimb.samplers.weights import LayerWeights, LlamaWeights, NormWeights, PreparedLinear

ROOM_FRACTION, ROOM_MULTIPLE = 1 / 8, 32
"""Full buffers grow by this share, to a multiple of 32 positions: products over such lengths are the fastest."""


@dataclass(frozen=True)
class PromptStates:
    """Keys and values of prompts after their pass through the model, and what it says comes next.

    Attributes:
        keys: by layer; behind a prompt's own length they hold anything finite.
        logits: after each prompt's last token.
    """

    keys: list[Float[Tensor, "prompts groups longest head_dim"]]
    values: list[Float[Tensor, "prompts groups longest head_dim"]]
    logits: Float[Tensor, "prompts vocab"]
    lengths: Int[Tensor, " prompts"]


@dataclass(frozen=True)
class LaneStates:
    """What a lane holds of a text: keys and values of its first positions, by layer; they may be views."""

    keys: list[Float[Tensor, "groups length head_dim"]]
    values: list[Float[Tensor, "groups length head_dim"]]

    @property
    def num_bytes(self) -> int:
        """Memory that the states take."""
        return sum(states.nbytes for states in (*self.keys, *self.values))

    def clone(self) -> "LaneStates":
        """Return states that are views of nothing."""
        return LaneStates([states.clone() for states in self.keys], [states.clone() for states in self.values])


class LaneCache:
    """Per layer `[lanes · groups, reserved, head_dim]` for keys and for values.

    The buffers are as long as what is read of them, give or take the room: a product over a part of a longer buffer
    would first copy it.
    """

    def __init__(self, *, num_layers: int, num_lanes: int, num_groups: int, head_dim: int, dtype: torch.dtype) -> None:
        self.num_lanes = num_lanes
        self.num_groups = num_groups
        self.reserved = 0
        # Zeros, not empty memory: a nan there would survive its weight of 0.
        empty = torch.zeros(num_lanes * num_groups, 0, head_dim, dtype=dtype)
        self.keys = [empty] * num_layers
        self.values = [empty] * num_layers
        self.mask = torch.zeros(num_lanes, 1, 0)
        self._places = torch.zeros(0, dtype=torch.long)

    def enter(self, lanes: Int[Tensor, " rows"], states: PromptStates, which: Int[Tensor, " rows"]) -> None:
        """Copy the prompts `which` into the lanes."""
        length = states.keys[0].shape[2]
        self.reserve(length)
        for buffers, prompts in ((self.keys, states.keys), (self.values, states.values)):
            for buffer, prompt in zip(buffers, prompts, strict=True):
                buffer.view(self.num_lanes, self.num_groups, self.reserved, -1)[lanes, :, :length] = prompt[which]

    @property
    def bytes_per_position(self) -> int:
        """Memory that one position of one lane takes."""
        return sum(self.num_groups * buffer.shape[-1] * buffer.element_size() for buffer in (*self.keys, *self.values))

    def states(self, lane: int, length: int) -> LaneStates:
        """Return views of the first positions of a lane."""
        of_lane = slice(lane * self.num_groups, (lane + 1) * self.num_groups)
        return LaneStates(
            [buffer[of_lane, :length] for buffer in self.keys], [buffer[of_lane, :length] for buffer in self.values]
        )

    def write_states(self, lane: int, states: LaneStates, length: int) -> None:
        """Copy the first positions of the states into a lane."""
        self.reserve(length)
        of_lane = self.states(lane, length)
        for targets, sources in ((of_lane.keys, states.keys), (of_lane.values, states.values)):
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source[:, :length])

    def clear(self, lane: int) -> None:
        """Write zeros: a nan that is left behind in a lane would survive its weight of 0 in the next text."""
        of_lane = self.states(lane, self.reserved)
        for states in (*of_lane.keys, *of_lane.values):
            states.zero_()

    def add_lanes(self, count: int) -> None:
        """Append empty lanes."""
        room = (0, 0, 0, 0, 0, count * self.num_groups)
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                buffers[index] = torch.nn.functional.pad(buffer, room)
        self.num_lanes += count

    def shorten(self, length: int) -> None:
        """Give up the room behind this many positions, where it is more than half of all."""
        reserved = _with_room(length)
        if 2 * reserved > self.reserved:
            return
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                buffers[index] = buffer[:, :reserved].contiguous()
        self.reserved = reserved

    def keep(self, lanes: Int[Tensor, " rows"]) -> None:
        """Keep these lanes, in this order. One buffer at a time, so that only one is ever held twice."""
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                by_lane = buffer.view(self.num_lanes, -1)
                buffers[index] = by_lane[lanes].view(len(lanes) * self.num_groups, self.reserved, -1)
        self.num_lanes = len(lanes)

    def open_positions(self, positions: Int[Tensor, " lanes"]) -> None:
        """Prepare a step that writes each lane at this position and reads it up to there; of the first lanes only."""
        self.reserve(int(positions.max()) + 1)
        is_read = torch.arange(self.reserved) <= positions[:, None]
        self.mask = torch.where(is_read, 0.0, -math.inf)[:, None]
        self._places = self._places_of(torch.arange(len(positions)), positions)

    def open_spans(self, lanes: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]) -> None:
        """Prepare a pass that writes each token at this position of this lane."""
        self.reserve(int(positions.max()) + 1)
        self._places = self._places_of(lanes, positions)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write `[tokens, groups, head_dim]` at the open positions; returns the layer's buffers."""
        for buffer, states in ((self.keys[layer], keys), (self.values[layer], values)):
            head_dim = buffer.shape[-1]
            buffer.view(-1, head_dim).index_copy_(0, self._places, states.reshape(-1, head_dim))
        return self.keys[layer], self.values[layer]

    def _places_of(self, lanes: Tensor, positions: Tensor) -> Tensor:
        """Return the rows, of `[lanes · groups · reserved, head_dim]`, of each token's groups."""
        groups = lanes[:, None] * self.num_groups + torch.arange(self.num_groups)
        return (groups * self.reserved + positions[:, None]).flatten()

    def reserve(self, length: int) -> None:
        """Make room for this many positions in each lane, and some more."""
        if length <= self.reserved:
            return
        reserved = _with_room(length)
        room = (0, 0, 0, reserved - self.reserved)
        for buffers in (self.keys, self.values):
            for index, buffer in enumerate(buffers):
                buffers[index] = torch.nn.functional.pad(buffer, room)
        self.reserved = reserved


def _with_room(length: int) -> int:
    return math.ceil(length * (1 + ROOM_FRACTION) / ROOM_MULTIPLE) * ROOM_MULTIPLE


@dataclass(frozen=True)
class LaneTokens:
    """One token in each of the first lanes of a cache, to be fed at these positions."""

    cache: LaneCache
    token_ids: Int[Tensor, " lanes"]
    positions: Int[Tensor, " lanes"]


MAX_SCORES = 2**24
"""Attention scores of a pass over prompts that are alive at once (64 MiB in float32)."""


Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer, queries `[rows, heads, head_dim]`, keys, values `[rows, groups, head_dim]` -> `[rows, heads · head_dim]`."""


class _Layer:
    """A layer with its products prepared."""

    def __init__(self, weights: LayerWeights, dtype: torch.dtype) -> None:
        self.attention_norm = weights.attention_norm
        self.query_key_value = PreparedLinear(weights.query_key_value, dtype=dtype)
        self.attention_output = PreparedLinear([weights.attention_output], dtype=dtype)
        self.feed_forward_norm = weights.feed_forward_norm
        self.gate_up = PreparedLinear(weights.gate_up, dtype=dtype)
        self.down = PreparedLinear([weights.down], dtype=dtype)


class LlamaDecoder:
    """The model at the weights it had when this was made. Call it without gradients and outside autocast.

    Attributes:
        num_positions: positions 0 to this − 1 can be decoded; `cover` adds some.
        compute_dtype: of the products, float32 or bfloat16.
    """

    def __init__(self, weights: LlamaWeights, *, compute_dtype: torch.dtype, num_positions: int) -> None:
        self.num_positions = num_positions
        self.compute_dtype = compute_dtype
        self._weights = weights
        self._layers = [_Layer(layer, compute_dtype) for layer in weights.layers]
        self._head = PreparedLinear([weights.head], dtype=compute_dtype)
        self._cos, self._sin = _rotary_table(weights, num_positions)
        # A power of two may be applied before or after rounding; another scale must come between two roundings.
        self._scale_is_exact = math.frexp(weights.score_scale)[0] == 0.5

    def cover(self, num_positions: int) -> None:
        """Make positions 0 to this − 1 ready; a quarter more each time, so that it is rare."""
        if num_positions > self.num_positions:
            self.num_positions = max(num_positions, self.num_positions * 5 // 4)
            self._cos, self._sin = _rotary_table(self._weights, self.num_positions)

    def empty_cache(self, num_lanes: int) -> LaneCache:
        """Return a cache that `step` can write."""
        weights = self._weights
        return LaneCache(
            num_layers=len(weights.layers),
            num_lanes=num_lanes,
            num_groups=weights.num_groups,
            head_dim=weights.head_dim,
            dtype=self.compute_dtype,
        )

    def read_prompts(self, prompts: Sequence[Sequence[int]]) -> PromptStates:
        """One pass over prompts of any lengths; padding costs only within attention."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        token_ids = torch.tensor(list(chain.from_iterable(prompts)))
        ends = lengths.cumsum(0)
        positions = _places_within(lengths)
        attention = _PromptAttention(self, _Padding(lengths, positions))
        hidden = self._through_layers(token_ids, positions, attention)
        return PromptStates(attention.keys, attention.values, self._logits(hidden[ends - 1]), lengths)

    def read_more(
        self,
        lanes: Int[Tensor, " rows"],
        chunks: Sequence[Sequence[int]],
        starts: Int[Tensor, " rows"],
        cache: LaneCache,
    ) -> Float[Tensor, "rows vocab"]:
        """Write a chunk of tokens behind what each of these lanes holds, in one pass; return the logits after it.

        Args:
            lanes: each once.
            chunks: for each lane, at least one token.
            starts: the position of each chunk's first token; the lane holds all before it.
            cache: is written.
        """
        lengths = torch.tensor([len(chunk) for chunk in chunks])
        within = _places_within(lengths)
        positions = starts.repeat_interleave(lengths) + within
        cache.open_spans(lanes.repeat_interleave(lengths), positions)
        attention = _ChunkAttention(self, _Padding(lengths, within), cache, lanes, starts)
        hidden = self._through_layers(torch.tensor(list(chain.from_iterable(chunks))), positions, attention)
        return self._logits(hidden[lengths.cumsum(0) - 1])

    def step(
        self, token_ids: Int[Tensor, " lanes"], positions: Int[Tensor, " lanes"], cache: LaneCache
    ) -> Float[Tensor, "lanes vocab"]:
        """Logits after one more token in each lane, in the compute dtype; fewer tokens are those of the first lanes."""
        return self.step_all([LaneTokens(cache, token_ids, positions)])

    def step_all(self, parts: Sequence[LaneTokens]) -> Float[Tensor, "lanes vocab"]:
        """Logits as `step` gives them, of lanes of several caches: those of the first part come first.

        All go through the layers together; each part reads its own cache, so that short texts pay for no long one.
        """
        for part in parts:
            part.cache.open_positions(part.positions)
        sizes = [len(part.token_ids) for part in parts]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            of_parts = zip(parts, queries.split(sizes), keys.split(sizes), values.split(sizes), strict=True)
            attended = [self._attend(layer, part.cache, *states) for part, *states in of_parts]
            return attended[0] if len(attended) == 1 else torch.cat(attended)

        token_ids = torch.cat([part.token_ids for part in parts])
        positions = torch.cat([part.positions for part in parts])
        return self._logits(self._through_layers(token_ids, positions, attend))

    def _attend(self, layer: int, cache: LaneCache, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of one token in each of the cache's first lanes."""
        cached_keys, cached_values = cache.write(layer, keys, values)
        groups, head_dim = keys.shape[1:]
        grouped = queries.reshape(len(queries) * groups, -1, head_dim)
        cached_keys, cached_values = cached_keys[: len(grouped)], cached_values[: len(grouped)]
        scores = torch.bmm(grouped, cached_keys.transpose(1, 2))
        weights = self.attention_weights(scores.view(len(queries), -1, cache.reserved), cache.mask)
        return torch.bmm(weights.view(len(grouped), -1, cache.reserved), cached_values).view(len(queries), -1)

    def attention_weights(self, scores: Tensor, mask: Tensor) -> Tensor:
        """softmax(scores · scale + mask) in float32, rounded to the compute dtype; overwrites `scores`."""
        scale = self._weights.score_scale
        if not self._scale_is_exact:
            scores, scale = scores.mul_(scale), 1.0
        return torch.add(mask, scores, alpha=scale).softmax(dim=-1).to(self.compute_dtype)

    def _through_layers(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        weights = self._weights
        num_heads, num_groups = weights.num_heads, weights.num_groups
        num_rows = len(token_ids)
        # Embeddings of any token fill the rows up; attention does not see them.
        token_ids, positions = _with_least_rows(token_ids), _with_least_rows(positions)
        cos, sin = self._cos[positions], self._sin[positions]
        hidden = weights.embedding[token_ids]
        for index, layer in enumerate(self._layers):
            projected = layer.query_key_value(self._normed(hidden, layer.attention_norm))
            heads = projected.view(len(hidden), -1, weights.head_dim)
            turned = _rotated(heads[:, : num_heads + num_groups], cos, sin).to(self.compute_dtype)
            seen, values = turned[:num_rows], heads[:num_rows, num_heads + num_groups :]
            attended = attend(index, seen[:, :num_heads], seen[:, num_heads:], values)
            hidden.add_(layer.attention_output(_with_least_rows(attended)))
            gate, up = layer.gate_up(self._normed(hidden, layer.feed_forward_norm)).chunk(2, dim=1)
            hidden.add_(layer.down(functional.silu(gate).mul_(up)))
        return hidden[:num_rows]

    def _normed(self, hidden: Tensor, norm: NormWeights) -> Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.epsilon).to(self.compute_dtype)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(self._normed(_with_least_rows(hidden), self._weights.norm))[: len(hidden)]


LEAST_ROWS = 4
"""Products of fewer rows are others, to the last bits, than those of the same rows among more: the library takes other
kernels. With this many at least, a text's logits are the same alone and beside others."""


def _with_least_rows(rows: Tensor) -> Tensor:
    """Return the rows, filled up with zeros where there are few."""
    missing = LEAST_ROWS - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])


class _Padding:
    """Where tokens that follow each other, row after row, stand when each row is padded on the right."""

    def __init__(self, lengths: Tensor, within: Tensor) -> None:
        self.lengths, self.num_rows, self.longest = lengths, len(lengths), int(lengths.max())
        self._places = torch.arange(len(lengths)).repeat_interleave(lengths) * self.longest + within

    def by_group(self, states: Tensor, num_groups: int) -> Tensor:
        """`[tokens, groups, head_dim]` to `[rows, groups, longest, head_dim]`, zero behind each row."""
        padded = states.new_zeros(self.num_rows * self.longest, *states.shape[1:])
        padded.index_copy_(0, self._places, states)
        by_row = padded.view(self.num_rows, self.longest, num_groups, -1)
        return by_row.transpose(1, 2).contiguous()

    def by_token(self, padded: Tensor) -> Tensor:
        """`[rows, groups, heads of a group, longest, head_dim]` to `[tokens, heads · head_dim]`."""
        by_position = padded.flatten(1, 2).transpose(1, 2).reshape(self.num_rows * self.longest, -1)
        return by_position[self._places]


class _PromptAttention:
    """Causal attention within each prompt, padded on the right; keeps the keys and values of each layer."""

    def __init__(self, decoder: LlamaDecoder, padding: _Padding) -> None:
        self._decoder = decoder
        self._padding = padding
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        padding, num_groups = self._padding, keys.shape[1]
        keys, values = padding.by_group(keys, num_groups), padding.by_group(values, num_groups)
        self.keys.append(keys)
        self.values.append(values)
        starts = torch.zeros(1, dtype=torch.long)
        return _attended(self._decoder, padding, starts, queries, keys, values)


class _ChunkAttention:
    """Attention of chunks, padded on the right, to what their lanes hold and to themselves; writes the lanes."""

    def __init__(
        self, decoder: LlamaDecoder, padding: _Padding, cache: LaneCache, lanes: Tensor, starts: Tensor
    ) -> None:
        self._decoder, self._padding, self._cache = decoder, padding, cache
        self._lanes, self._starts = lanes, starts
        self._length = int((starts + padding.lengths).max())

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        cached_keys, cached_values = (self._of_lanes(buffer) for buffer in self._cache.write(layer, keys, values))
        return _attended(self._decoder, self._padding, self._starts, queries, cached_keys, cached_values)

    def _of_lanes(self, buffer: Tensor) -> Tensor:
        """Return `[rows, groups, length, head_dim]`."""
        by_lane = buffer.view(self._cache.num_lanes, self._cache.num_groups, self._cache.reserved, -1)
        return by_lane[:, :, : self._length][self._lanes]


def _attended(
    decoder: LlamaDecoder, padding: _Padding, starts: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Let the query at place i of a row read the keys up to its start + i, in blocks of queries.

    Args:
        decoder: whose rounding it is.
        padding: of the queries.
        starts: by row, or one for all.
        queries: `[tokens, heads, head_dim]`.
        keys: `[rows, groups, length, head_dim]`.
        values: like the keys.
    """
    num_rows, num_groups, length, head_dim = keys.shape
    num_heads = queries.shape[1]
    grouped = padding.by_group(queries, num_heads).view(num_rows, num_groups, -1, padding.longest, head_dim)
    padded = torch.empty_like(grouped)
    size = max(1, MAX_SCORES // (num_rows * num_heads * length))
    places = torch.arange(length)
    for first in range(0, padding.longest, size):
        block = grouped[:, :, :, first : first + size]
        last_read = starts[:, None] + torch.arange(first, first + block.shape[3])
        mask = torch.where(places <= last_read[:, None, None, :, None], 0.0, -math.inf)
        scores = torch.matmul(block.flatten(2, 3), keys.transpose(2, 3))
        weights = decoder.attention_weights(scores.view(*block.shape[:-1], length), mask)
        padded[:, :, :, first : first + size] = torch.matmul(weights.flatten(2, 3), values).view(block.shape)
    return padding.by_token(padded)


def _places_within(lengths: Tensor) -> Tensor:
    """Return each token's place in its row."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)


def _rotary_table(weights: LlamaWeights, num_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[positions, 1, head_dim]`, from the model's own module."""
    cos, sin = weights.rotary(torch.zeros(1, 1, 1), position_ids=torch.arange(num_positions)[None])
    return cos[0, :, None], sin[0, :, None]


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the rotary embedding of `[rows, heads, head_dim]` in float32, each product rounded as transformers does.

    A fused multiply-add would not round them, which is enough to put a later bfloat16 on the other side now and then:
    the mean gap to the trainer's log-probabilities became 6e-3 nats.
    """
    states = states.float()
    half = states.shape[-1] // 2
    rotated = states * cos
    rotated[..., :half].sub_(states[..., half:] * sin[..., :half])
    rotated[..., half:].add_(states[..., :half] * sin[..., half:])
    return rotated
