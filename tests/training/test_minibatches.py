import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience import Sample, collate
from klimb.training.minibatches import micro_batches, micro_batches_for, minibatches, tokens_at_once


def batch_of(shapes: list[tuple[int, int, int]]):
    """Rows of (group, prompt length, response length)."""
    samples = [
        Sample(
            sample_id=str(row),
            group_id=f"g{group}",
            prompt=(),
            prompt_ids=(group + 1,) * prompt_length,
            response="",
            response_ids=(1,) * length,
            finish_reason="stop",
            log_mu=(-1.0,) * length,
            log_mu_provenance="sampler",
        )
        for row, (group, prompt_length, length) in enumerate(shapes)
    ]
    return collate(samples, torch.zeros(len(samples)))


def test_minibatches_hold_each_row_once_and_tear_no_group_apart():
    batch = batch_of([(row % 5, 3, 2) for row in range(15)])
    portions = minibatches(batch, num_minibatches=2, generator=torch.Generator().manual_seed(0))
    assert sorted(row for rows in portions for row in rows) == list(range(15))
    assert sorted(len(rows) for rows in portions) == [6, 9]
    groups = [{batch.samples[row].group_id for row in rows} for rows in portions]
    assert not groups[0] & groups[1]


def test_there_are_at_most_as_many_minibatches_as_groups():
    batch = batch_of([(0, 2, 1), (0, 2, 1), (1, 2, 1)])
    portions = minibatches(batch, num_minibatches=9, generator=torch.Generator())
    assert len(portions) == 2


def test_epochs_differ_in_order_and_seeds_repeat_it():
    batch = batch_of([(row, 1, 1) for row in range(20)])
    generator = torch.Generator().manual_seed(0)
    first = minibatches(batch, num_minibatches=4, generator=generator)
    second = minibatches(batch, num_minibatches=4, generator=generator)
    assert first != second
    assert first == minibatches(batch, num_minibatches=4, generator=torch.Generator().manual_seed(0))


def test_the_budget_counts_a_shared_prompt_once():
    # Four responses of 5 to one prompt of 80: 80 + 4·5 = 100 tokens. Prompt by prompt it would be 340.
    batch = batch_of([(0, 80, 5)] * 4)
    assert micro_batches(batch, range(4), max_tokens=100) == [[0, 1, 2, 3]]
    assert [len(rows) for rows in micro_batches(batch, range(4), max_tokens=99)] == [3, 1]


def test_rows_of_one_prompt_and_of_like_length_stand_together():
    batch = batch_of([(0, 4, 9), (1, 4, 2), (0, 4, 8), (1, 4, 1)])
    assert micro_batches(batch, range(4), max_tokens=22) == [[3, 1], [2, 0]]


def test_without_padding_only_the_tokens_that_there_are_count():
    # 10 + 2 + 3 + 9 = 24 tokens; padded to the longest response it would be 10 + 3·9 = 37.
    batch = batch_of([(0, 10, 2), (0, 10, 3), (0, 10, 9)])
    assert micro_batches(batch, range(3), max_tokens=24, padded=False) == [[0, 1, 2]]
    assert len(micro_batches(batch, range(3), max_tokens=23, padded=False)) == 2
    assert len(micro_batches(batch, range(3), max_tokens=36)) == 2


def test_only_a_short_prompt_is_computed_twice_to_fill_a_portion():
    # Two groups of 20 + 4·10 = 60 or 2 + 4·14 = 58 tokens; 100 are allowed.
    long = batch_of([(row // 4, 20, 10) for row in range(8)])
    assert micro_batches(long, range(8), max_tokens=100, padded=False) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    short = batch_of([(row // 4, 2, 14) for row in range(8)])
    assert micro_batches(short, range(8), max_tokens=100, padded=False) == [[0, 1, 2, 3, 4, 5], [6, 7]]
    # What does not fit anyway is torn where the portion is full.
    assert micro_batches(long, range(8), max_tokens=50, padded=False) == [[0, 1, 2], [3], [4, 5, 6], [7]]


@pytest.mark.parametrize(("response_length", "num_portions"), [(300, 1), (400, 1), (600, 2)])
def test_auto_keeps_a_group_whole_up_to_four_times_its_tokens(
    monkeypatch, tiny_policy, response_length: int, num_portions: int
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    policy = dataclasses.replace(tiny_policy, packs_rows=True)
    batch = batch_of([(0, 500, response_length)] * 8)
    assert len(micro_batches_for(policy, batch, range(8), max_tokens="auto")) == num_portions
    assert len(micro_batches_for(policy, batch, range(8), max_tokens=1024)) > 1
    assert micro_batches_for(policy, batch, [], max_tokens="auto") == []


def test_auto_tears_a_large_group_where_rows_are_padded(monkeypatch, tiny_policy):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    policy = dataclasses.replace(tiny_policy, packs_rows=False)
    batch = batch_of([(0, 500, 300)] * 8)
    assert [len(rows) for rows in micro_batches_for(policy, batch, range(8), max_tokens="auto")] == [1] * 8
    small = batch_of([(0, 500, 100)] * 8)
    assert [len(rows) for rows in micro_batches_for(policy, small, range(8), max_tokens="auto")] == [5, 3]


@pytest.mark.parametrize(
    ("group_tokens", "num_groups"),
    [
        (128, [8, 2]),  # 8 of them fill a portion of 1024
        (552, [2, 2, 2, 2, 2]),  # 1104 are nearer to 1024 than 552 are
        (700, [1] * 10),  # 700 are nearer than 1400
    ],
)
def test_auto_takes_whole_groups_as_near_to_its_size_as_they_come(monkeypatch, tiny_policy, group_tokens, num_groups):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    policy = dataclasses.replace(tiny_policy, packs_rows=True)
    batch = batch_of([(row // 4, 40, (group_tokens - 40) // 4) for row in range(40)])
    portions = micro_batches_for(policy, batch, range(40), max_tokens="auto")
    assert [len(rows) for rows in portions] == [4 * number for number in num_groups]
    assert [row for rows in portions for row in rows] == list(range(40))


def test_auto_suits_the_device(monkeypatch):
    cpu = torch.device("cpu")
    for num_threads, expected in ((1, 1024), (4, 1024), (16, 4096)):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=num_threads: count)
        assert tokens_at_once("auto", cpu) == expected
    assert tokens_at_once("auto", torch.device("cuda")) == 8192
    assert tokens_at_once(77, cpu) == 77


@given(
    shapes=st.lists(st.tuples(st.integers(0, 4), st.just(6), st.integers(1, 12)), min_size=1, max_size=16),
    max_tokens=st.integers(1, 120),
    padded=st.booleans(),
)
def test_each_row_goes_once_and_no_portion_is_over_budget_but_a_single_row(shapes, max_tokens: int, padded: bool):
    batch = batch_of(shapes)
    portions = micro_batches(batch, range(len(shapes)), max_tokens=max_tokens, padded=padded)
    assert sorted(row for rows in portions for row in rows) == list(range(len(shapes)))
    for rows in portions:
        part = batch.select(rows)
        num_response_tokens = part.mask.numel() if padded else int(part.mask.sum())
        cost = sum(len(prompt) for prompt in part.prompts) + num_response_tokens
        assert cost <= max_tokens or len(rows) == 1
