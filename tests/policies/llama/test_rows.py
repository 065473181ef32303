"""Packed rows: every token once, at its position, and the token that predicts each counted one."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from klimb.policies.llama.rows import MOST_PADDED, MOST_PAIRS, pack_rows


def batch_of(prompt_lengths, rows):
    """Distinct ids for all prompt and response tokens; rows of (prompt, number of read tokens)."""
    numbers = iter(range(1, 10**6))
    prompts = [[next(numbers) for _ in range(length)] for length in prompt_lengths]
    index = torch.tensor([prompt % len(prompts) for prompt, _ in rows])
    width = max(1, max(length for _, length in rows))
    lengths = torch.tensor([length for _, length in rows])
    counted = torch.arange(width) < lengths[:, None]
    ids = torch.tensor([[next(numbers) for _ in range(width)] for _ in rows])
    return prompts, index, torch.where(counted, ids, 0), counted


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=12)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(prompt_lengths=LENGTHS, rows=ROWS)
def test_each_token_stands_once_at_its_own_position(prompt_lengths, rows):
    prompts, index, ids, counted = batch_of(prompt_lengths, rows)
    packed = pack_rows(prompts, index, ids, counted)
    expected = {}
    for prompt in {int(i) for i in index}:
        expected |= {token: position for position, token in enumerate(prompts[prompt])}
    for row, (_, length) in enumerate(rows):
        # The last response token is never an input.
        start = len(prompts[index[row]])
        expected |= {int(ids[row, t]): start + t for t in range(length - 1)}
    assert len(packed.ids) == len(expected)
    assert dict(zip(packed.ids.tolist(), packed.positions.tolist(), strict=True)) == expected


@given(prompt_lengths=LENGTHS, rows=ROWS)
def test_a_counted_token_is_predicted_by_the_token_before_it(prompt_lengths, rows):
    prompts, index, ids, counted = batch_of(prompt_lengths, rows)
    packed = pack_rows(prompts, index, ids, counted)
    before = [
        prompts[index[row]][-1] if time == 0 else int(ids[row, time - 1]) for row, time in counted.nonzero().tolist()
    ]
    assert packed.ids[packed.predicting].tolist() == before


@given(prompt_lengths=LENGTHS, rows=ROWS)
def test_blocks_follow_one_another_and_their_slots_are_the_rectangle(prompt_lengths, rows):
    packed = pack_rows(*batch_of(prompt_lengths, rows))
    end = 0
    for block in packed.blocks:
        num_prompts, prompt_time, num_responses, time = block.shape
        assert (block.prompts.start, block.prompts.stop) == (end, block.responses.start)
        end = block.responses.stop
        assert packed.positions[block.prompts].tolist() == list(range(prompt_time)) * num_prompts
        places = places_of(block.responses, block.response_slots, num_prompts * num_responses * time)
        if time:
            # A response begins where its prompt ends.
            assert torch.equal(packed.positions[block.responses], prompt_time + places % time)
    assert end == len(packed.ids)


def places_of(tokens, slots, num_places):
    places = torch.arange(num_places) if slots is None else slots
    assert len(places) == tokens.stop - tokens.start
    assert bool((places.diff() > 0).all())
    return places


def test_equal_shapes_are_one_block_without_slots():
    packed = pack_rows(*batch_of([4, 4, 4], [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]))
    (block,) = packed.blocks
    assert block.shape == (3, 4, 2, 2)
    assert block.response_slots is None


def test_prompts_of_different_lengths_are_apart():
    packed = pack_rows(*batch_of([3, 4, 3], [(0, 3), (1, 3), (2, 3)]))
    assert [block.shape[:2] for block in packed.blocks] == [(2, 3), (1, 4)]


def test_shapes_that_would_be_mostly_padding_are_apart():
    packed = pack_rows(*batch_of([3, 3], [(0, 3), (1, 60)]))
    assert [block.shape for block in packed.blocks] == [(1, 3, 1, 2), (1, 3, 1, 59)]
    assert MOST_PADDED < 2


def test_a_block_is_bounded():
    # 400 prompts of 40 tokens: 640,000 pairs in all.
    packed = pack_rows(*batch_of([40] * 400, [(prompt, 1) for prompt in range(400)]))
    assert len(packed.blocks) == 2
    assert all(block.num_pairs <= MOST_PAIRS for block in packed.blocks)
