"""A key-value cache that is contiguous with a little room at its end, drops rows, and stores what attention reads.

transformers' DynamicCache copies the whole cache at every token (a concatenation); a view of a larger buffer would be
copied as well, by torch's matrix products on a CPU, which want contiguous memory. Here attention reads the whole
buffer, and the mask hides the few positions at its end that are not written yet.
"""

import copy
import math
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

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

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
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
        """Writes the states behind the others; returns the buffers: `get_mask_sizes` positions, zero where unused."""
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
        """Keeps these rows of the batch, in this order; a row may be named more than once."""
        assert self.keys is not None and self.values is not None
        self.keys = self.keys.index_select(0, rows)
        self.values = self.values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask for `query_length` new tokens must cover."""
        return self._reserved_for(self.length + query_length), 0

    def get_seq_length(self) -> int:
        """Number of written positions, padding included."""
        return self.length

    def get_max_length(self) -> int:
        """−1: no limit."""
        return -1

    def _reserved_for(self, length: int) -> int:
        if length <= self.reserved:
            return self.reserved
        return math.ceil(length * (1 + ROOM_FRACTION) / ROOM_MULTIPLE) * ROOM_MULTIPLE


def growing_cache(config: PreTrainedConfig, dtype: torch.dtype) -> Cache:
    """An empty cache for a model with this configuration.

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
    return Cache(layers=[GrowingLayer(dtype) for _ in layers])


def copied(cache: Cache) -> Cache:
    """A cache that can be extended and reduced without changing the first; tensors are shared until then."""
    return Cache(layers=[copy.copy(layer) for layer in cache.layers])


def select_rows(cache: Cache, rows: Int[Tensor, " rows"]) -> None:
    """Keeps these rows of every layer. One layer at a time, so that only one layer is ever held twice."""
    for layer in cast(list[GrowingLayer], cache.layers):
        layer.select(rows)
