"""Drawing through the transformers model itself: any architecture with attention layers, any device.

A key-value cache that is contiguous with a little room at its end, drops rows, and stores what attention reads.

transformers' DynamicCache copies the whole cache at every token (a concatenation); a view of a larger buffer would be
copied as well, by torch's matrix products on a CPU, which want contiguous memory. Here attention reads the whole
buffer, and the mask hides the few positions at its end that are not written yet.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from klimb.samplers.attention import attention_by
from klimb.samplers.decoding_mode import decoding_mode
from klimb.samplers.drawing import Drawing
from klimb.samplers.sampler import Completion, Results

ROOM_FRACTION, ROOM_MULTIPLE = 1 / 8, 16
"""A full buffer grows by this share of its length, to a multiple of 16: few copies, few positions read in vain."""


ATTENTION_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""The layers of transformers' own cache that hold plain keys and values."""


class GrowingLayer(CacheLayerMixin):
    """Keys and values of one attention layer, `[batch, heads, reserved, head_dim]`, `length` of them written.

    It inherits because transformers' Cache asks `isinstance(layer, CacheLayerMixin)`. It holds the full length for
    sliding-window layers too: the model's own mask hides what lies outside the window.
    """

    is_sliding = False

    def __init__(self, dtype: torch.dtype, *, has_room: bool = True) -> None:
        super().__init__()
        self.dtype = dtype
        self.has_room = has_room
        self.length = 0
        self.reserved = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty buffers with the batch, heads and head size of the first states."""
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]), dtype=self.dtype)
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]), dtype=self.dtype)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the states behind the others; returns the buffers: `get_mask_sizes` positions, zero where unused."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, end = self.length, self.length + key_states.shape[-2]
        room = self._reserved_for(end) - self.reserved
        if room:
            # Zeros, not empty memory: a nan there would survive the mask, as 0·nan.
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, room))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, room))
            self.reserved += room
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        self.length = end
        return self.keys, self.values

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep these rows of the batch, in this order; a row may be named more than once."""
        assert self.keys is not None and self.values is not None
        self.keys = self.keys.index_select(0, rows)
        self.values = self.values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask for `query_length` new tokens must cover."""
        return self._reserved_for(self.length + query_length), 0

    def get_seq_length(self) -> int:
        """Return number of written positions, padding included."""
        return self.length

    def get_max_length(self) -> int:
        """−1: no limit."""
        return -1

    def _reserved_for(self, length: int) -> int:
        if length <= self.reserved:
            return self.reserved
        if not self.has_room:
            return length
        return math.ceil(length * (1 + ROOM_FRACTION) / ROOM_MULTIPLE) * ROOM_MULTIPLE


def growing_cache(config: PreTrainedConfig, dtype: torch.dtype) -> Cache:
    """Return an empty cache for a model with this configuration.

    Args:
        config: the model's configuration.
        dtype: what attention computes in. Under bfloat16 autocast keys leave the rotary embedding in float32 and are
            cast when attention reads them; stored so, the whole cache would be cast again at every token.

    Raises:
        ValueError: the model has layers that carry something other than keys and values (state-space layers).
    """
    layers = DynamicCache(config=config).layers
    others = sorted({type(layer).__name__ for layer in layers if type(layer) not in ATTENTION_LAYERS})
    if others:
        raise ValueError(
            f"LocalSampler needs a model with attention layers only, got cache layers {others} "
            f"(model type {config.model_type!r}); use another sampler for it"
        )
    return Cache(layers=[GrowingLayer(dtype, has_room=not counts_keys(config)) for _ in layers])


def check_takes_cache(model: PreTrainedModel) -> None:
    """Raise ValueError for a model with a state of its own in place of a cache, as RWKV."""
    if "past_key_values" not in signature(model.forward).parameters:
        raise ValueError(
            f"LocalSampler needs a model that takes past_key_values, and model type {model.config.model_type!r} does "
            "not; use another sampler for it"
        )


_COUNTING_KEYS = ("bloom", "gpt_neo")


def counts_keys(config: PreTrainedConfig) -> bool:
    """Tell whether attention goes by the number of keys, so that there must be none that is not written yet.

    With ALiBi transformers adds to each key what the attention mask says of it; GPT-Neo takes the last keys for those
    of the new tokens.

    Source: build_alibi_tensor of transformers' modeling_bloom and modeling_falcon; `bias` of its modeling_gpt_neo.
    """
    return config.model_type in _COUNTING_KEYS or bool(getattr(config, "alibi", False))


def copied(cache: Cache) -> Cache:
    """Return a cache that can be extended and reduced without changing the first; tensors are shared until then."""
    return Cache(layers=[copy.copy(layer) for layer in cache.layers])


def select_rows(cache: Cache, rows: Int[Tensor, " rows"]) -> None:
    """Keep these rows of every layer. One layer at a time, so that only one layer is ever held twice."""
    for layer in cast(list[GrowingLayer], cache.layers):
        layer.select(rows)


@dataclass
class _Batch:
    """The rows being decoded: their cache, which cached positions count, and what the model says comes next.

    `slots` names, for each row, the place of its response among the results; rows leave, slots stay.
    """

    cache: Cache
    attention_mask: Tensor
    next_positions: Tensor
    logits: Tensor
    slots: Tensor

    def select(self, rows: Tensor) -> None:
        select_rows(self.cache, rows)
        self.attention_mask = self.attention_mask[rows]
        self.next_positions = self.next_positions[rows]
        self.logits = self.logits[rows]
        self.slots = self.slots[rows]

    def copy(self) -> "_Batch":
        return _Batch(copied(self.cache), self.attention_mask, self.next_positions, self.logits, self.slots)


@dataclass(frozen=True, kw_only=True)
class TransformersDecoding:
    """One prefill per prompt, whose keys and values are then copied to one row per sample; then a token a step.

    Prompts of different lengths share a batch by padding on the left. A row leaves the batch some time after its end
    token, so long answers do not pay for short ones; rows beyond `max_batch` wait for the whole batch.

    Attributes:
        model: with its adapter, if any, in its layers.
        attention: name of the implementation to decode with.
        max_batch: rows decoded at once.
        compact_fraction: finished rows are dropped when they make up at least this share of the batch.
        max_prefill_tokens: prompt tokens, padding included, that go through the model at once.
    """

    model: PreTrainedModel
    device: torch.device
    compute_dtype: torch.dtype
    attention: str
    max_batch: int
    compact_fraction: float
    max_prefill_tokens: int

    def complete(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int, drawing: Drawing, quantiles: Tensor
    ) -> list[Completion]:
        """Return the samples of the first prompt, then those of the second, and so on.

        Args:
            prompts: token ids.
            num_samples: for each prompt.
            drawing: how tokens are drawn.
            quantiles: `[max_new_tokens, samples]`, uniform in [0, 1): the random number of each token.
        """
        completions: dict[int, Completion] = {}
        with (
            decoding_mode(self.model, device=self.device, compute_dtype=self.compute_dtype),
            attention_by(self.model, self.attention),
        ):
            for batch in self._waves(prompts, num_samples):
                rows = batch.slots
                drawn = quantiles[:, rows.to(quantiles.device)].to(self.device)
                completions.update(zip(rows.tolist(), self._decode(batch, drawing.of(rows), drawn), strict=True))
        return [completions[slot] for slot in range(len(completions))]

    def _waves(self, prompts: Sequence[Sequence[int]], num_samples: int) -> Iterator[_Batch]:
        """Prefilled batches of at most `max_batch` rows; `slots` are the rows' numbers among all samples.

        Prompts of similar length go together, for less padding. A group larger than a batch is split, and its prompt
        is still prefilled once.
        """
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for block in _chunks(by_length, max(1, self.max_batch // num_samples)):
            prefilled = self._prefill([prompts[i] for i in block])
            rows = [(place, i * num_samples + j) for place, i in enumerate(block) for j in range(num_samples)]
            for chunk in _chunks(rows, self.max_batch):
                places, slots = torch.tensor(chunk, device=self.device).unbind(dim=1)
                # The last chunk takes the prefilled tensors over, so that they are not held beside its own.
                batch = prefilled if chunk[-1] == rows[-1] else prefilled.copy()
                batch.select(places)
                batch.slots = slots
                yield batch

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> _Batch:
        """Return the prompts' keys and values, one row each, padded on the left, and their first tokens' logits."""
        device = self.device
        width = max(len(prompt) for prompt in prompts)
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        token_ids = torch.tensor(padded, device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        positions = torch.arange(width, device=device) - (width - lengths)[:, None]
        attention_mask = positions >= 0
        check_takes_cache(self.model)
        cache = growing_cache(self.model.config, self.compute_dtype)
        logits = token_ids.new_empty(0)
        for columns in _chunks(range(width), max(1, self.max_prefill_tokens // len(prompts))):
            part = slice(columns[0], columns[-1] + 1)
            logits = self._forward(
                token_ids[:, part], positions[:, part].clamp(min=0), attention_mask[:, : part.stop], cache
            )
        return _Batch(cache, attention_mask, lengths, logits, torch.arange(len(prompts), device=device))

    def _decode(self, batch: _Batch, drawing: Drawing, quantiles: Tensor) -> list[Completion]:
        """Return the responses of the batch's rows; `quantiles` is `[max_new_tokens, rows]`."""
        num_steps, num_rows = quantiles.shape
        device = self.device
        results = Results(num_rows, num_steps, device)
        batch.slots = torch.arange(num_rows, device=device)
        for step in range(num_steps):
            slots = batch.slots
            steps = torch.full_like(slots, step)
            token_ids, _ = drawing(batch.logits, results, slots, steps, quantiles[step, slots])
            if step + 1 == num_steps or not self._advance(batch, token_ids, results.is_finished[slots]):
                break
        return results.completions()

    def _advance(self, batch: _Batch, token_ids: Tensor, is_finished: Tensor) -> bool:
        """Feed the drawn tokens to the model, after dropping finished rows; False when none is left."""
        num_finished = int(is_finished.sum())
        if num_finished == len(is_finished):
            return False
        if num_finished >= self.compact_fraction * len(is_finished):
            rows = (~is_finished).nonzero()[:, 0]
            batch.select(rows)
            token_ids = token_ids[rows]
        batch.attention_mask = torch.nn.functional.pad(batch.attention_mask, (0, 1), value=True)
        batch.logits = self._forward(
            token_ids[:, None], batch.next_positions[:, None], batch.attention_mask, batch.cache
        )
        batch.next_positions = batch.next_positions + 1
        return True

    def _forward(self, token_ids: Tensor, positions: Tensor, attention_mask: Tensor, cache: Cache) -> Tensor:
        """Logits `[batch, vocab]` after the last token; extends the cache."""
        output = self.model(
            input_ids=token_ids,
            position_ids=positions,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
