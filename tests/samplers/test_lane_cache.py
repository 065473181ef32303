"""The cache by lanes."""

import math

import torch

from klimb.samplers.decoder import LaneCache, PromptStates


def prompt_states(lengths: tuple[int, ...]) -> PromptStates:
    """One group, head size 2: keys are 100·prompt + position, values their negatives; the same in both layers."""
    keys = (100.0 * torch.arange(len(lengths))[:, None] + torch.arange(max(lengths)))[:, None, :, None]
    keys = keys.expand(-1, 1, -1, 2).clone()
    return PromptStates([keys, keys], [-keys, -keys], torch.zeros(len(lengths), 1), torch.tensor(lengths))


def cache_of(num_lanes: int) -> LaneCache:
    return LaneCache(num_layers=2, num_lanes=num_lanes, num_groups=1, head_dim=2, dtype=torch.float32)


def test_each_lane_is_written_and_read_at_its_own_position():
    cache = cache_of(3)
    cache.enter(torch.tensor([2, 0]), prompt_states((2, 4)), torch.tensor([0, 1]))
    cache.open_positions(torch.tensor([4, 0, 2]))
    new = torch.tensor([7.0, 8.0, 9.0])[:, None, None].expand(3, 1, 2)
    for layer in range(2):
        keys, values = cache.write(layer, new, -new)
        assert keys[0, :5, 0].tolist() == [100, 101, 102, 103, 7]
        assert keys[1, 0, 0] == 8
        assert keys[2, :3, 0].tolist() == [0, 1, 9]
        assert torch.equal(values, -keys)
        assert keys.is_contiguous() and values.is_contiguous()
    is_read = cache.mask[:, 0] == 0
    assert is_read.sum(dim=1).tolist() == [5, 1, 3]
    assert all(row[:count].all() for row, count in zip(is_read, (5, 1, 3), strict=True))
    assert (cache.mask[cache.mask != 0] == -math.inf).all()


def test_growth_keeps_what_was_written_and_is_rare():
    cache = cache_of(1)
    sizes = set()
    for position in range(300):
        cache.open_positions(torch.tensor([position]))
        keys, _ = cache.write(1, torch.full((1, 1, 2), float(position)), torch.zeros(1, 1, 2))
        sizes.add(keys.shape[1])
        assert position < keys.shape[1] <= 1.125 * (position + 1) + 32
    assert keys[0, :300, 0].tolist() == list(range(300))
    assert len(sizes) <= 10


def test_lanes_can_be_dropped_and_filled_again():
    cache = cache_of(3)
    cache.enter(torch.arange(3), prompt_states((3, 3, 3)), torch.arange(3))
    cache.keep(torch.tensor([2, 0]))
    assert cache.num_lanes == 2
    cache.enter(torch.tensor([1]), prompt_states((2, 2)), torch.tensor([1]))
    cache.open_positions(torch.tensor([3, 2]))
    keys, _ = cache.write(0, torch.full((2, 1, 2), 5.0), torch.zeros(2, 1, 2))
    assert keys[0, :4, 0].tolist() == [200, 201, 202, 5]
    assert keys[1, :3, 0].tolist() == [100, 101, 5]


def test_spans_are_written_behind_what_lanes_hold_and_the_others_stay():
    cache = cache_of(3)
    cache.enter(torch.arange(3), prompt_states((2, 2, 2)), torch.arange(3))
    # Two tokens of lane 2 behind its own, one of lane 0 over its second.
    cache.open_spans(torch.tensor([2, 2, 0]), torch.tensor([2, 3, 1]))
    new = torch.tensor([7.0, 8.0, 9.0])[:, None, None].expand(3, 1, 2)
    keys, values = cache.write(1, new, -new)
    assert keys[:, :4, 0].tolist() == [[0, 9, 0, 0], [100, 101, 0, 0], [200, 201, 7, 8]]
    assert torch.equal(values, -keys)


def test_the_first_lanes_are_written_alone():
    cache = cache_of(4)
    cache.enter(torch.arange(4), prompt_states((1, 1, 1, 1)), torch.arange(4))
    cache.open_positions(torch.tensor([1, 1]))
    assert cache.mask.shape[0] == 2
    keys, values = cache.write(0, torch.full((2, 1, 2), 5.0), torch.full((2, 1, 2), -5.0))
    assert keys[:, :2, 0].tolist() == [[0, 5], [100, 5], [200, 0], [300, 0]]
    assert torch.equal(values, -keys)


def held(cache: LaneCache, lane: int, length: int) -> list[float]:
    return cache.states(lane, length).keys[1][0, :, 0].tolist()


def test_states_of_a_lane_can_be_written_into_another_with_room_made_for_them():
    cache, other = cache_of(2), cache_of(1)
    cache.enter(torch.arange(2), prompt_states((40, 3)), torch.arange(2))
    other.write_states(0, cache.states(0, 40), 39)
    assert held(other, 0, 39) == list(range(39))
    cache.write_states(1, cache.states(0, 40), 2)
    assert held(cache, 1, 3) == [0, 1, 102]


def test_a_copy_of_states_is_not_changed_with_its_lane():
    cache = cache_of(1)
    cache.enter(torch.arange(1), prompt_states((3,)), torch.arange(1))
    copy = cache.states(0, 3).clone()
    cache.clear(0)
    assert copy.keys[1][0, :, 0].tolist() == [0, 1, 2]
    assert held(cache, 0, 3) == [0, 0, 0]
    # Two layers of keys and values, three positions of two float32.
    assert copy.num_bytes == 2 * 2 * 3 * 2 * 4
    assert cache.bytes_per_position == 2 * 2 * 2 * 4


def test_lanes_can_be_added_even_to_none():
    cache = cache_of(0)
    cache.add_lanes(1)
    cache.enter(torch.arange(1), prompt_states((3,)), torch.arange(1))
    cache.add_lanes(2)
    cache.enter(torch.tensor([2]), prompt_states((3, 2)), torch.tensor([1]))
    assert held(cache, 0, 3) == [0, 1, 2]
    assert held(cache, 1, 3) == [0, 0, 0]
    assert held(cache, 2, 2) == [100, 101]


def test_only_much_unused_room_is_given_up():
    cache = cache_of(1)
    cache.enter(torch.arange(1), prompt_states((100,)), torch.arange(1))
    reserved = cache.reserved
    cache.shorten(80)
    assert cache.reserved == reserved
    cache.shorten(20)
    assert 20 <= cache.reserved <= reserved / 2
    assert held(cache, 0, 20) == list(range(20))
    cache.open_positions(torch.tensor([20]))
    keys, _ = cache.write(1, torch.full((1, 1, 2), 5.0), torch.zeros(1, 1, 2))
    assert keys[0, :21, 0].tolist() == [*range(20), 5]
