"""The growing key-value cache."""

import torch
from transformers import LlamaConfig

from klimb.samplers.transformers_decoding import GrowingLayer, copied, growing_cache, select_rows


def states(batch: int, time: int, first: float = 0.0) -> torch.Tensor:
    """`[batch, 1, time, 2]`: value 100·row + position, counted from `first`."""
    values = 100.0 * torch.arange(batch)[:, None] + first + torch.arange(time)
    return values[:, None, :, None].expand(-1, 1, -1, 2).clone()


def test_a_layer_returns_everything_written_then_zeros_of_the_announced_length():
    layer = GrowingLayer(torch.float32)
    written = 0
    for time in (3, 1, 20, 1, 1, 40, 1):
        announced, offset = layer.get_mask_sizes(time)
        keys, values = layer.update(states(2, time, written), -states(2, time, written))
        written += time
        assert (keys.shape[2], offset, layer.get_seq_length()) == (announced, 0, written)
        assert torch.equal(keys[:, :, :written], states(2, written))
        assert torch.equal(values[:, :, :written], -states(2, written))
        assert not keys[:, :, written:].any() and not values[:, :, written:].any()
        assert keys.is_contiguous() and values.is_contiguous()


def test_room_is_small_and_growth_is_rare():
    layer, sizes = GrowingLayer(torch.float32), set()
    for position in range(400):
        keys, _ = layer.update(states(1, 1, position), states(1, 1, position))
        assert keys.shape[2] <= 1.125 * (position + 1) + 16
        sizes.add(keys.shape[2])
    assert len(sizes) <= 16


def test_a_layer_stores_in_its_own_dtype():
    layer = GrowingLayer(torch.bfloat16)
    keys, values = layer.update(states(1, 2), states(1, 2))
    assert keys.dtype == values.dtype == torch.bfloat16


def test_rows_can_be_repeated_reordered_and_dropped_without_touching_a_copy():
    config = LlamaConfig(num_hidden_layers=2)
    cache = growing_cache(config, torch.float32)
    for index in range(2):
        cache.update(states(3, 4), states(3, 4), index)
    selected = copied(cache)
    select_rows(selected, torch.tensor([2, 2, 0]))
    for index in range(2):
        keys, _ = selected.update(states(3, 1, 50.0), states(3, 1, 50.0), index)
        assert torch.equal(keys[:, :, :4], states(3, 4)[[2, 2, 0]])
        assert keys[0, 0, 4, 0] == 50
    assert selected.get_seq_length() == 5
    assert cache.get_seq_length() == 4
    assert torch.equal(cache.layers[1].keys[:, :, :4], states(3, 4))
