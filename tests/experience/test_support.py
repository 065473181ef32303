"""The support of samples side by side: which tokens could be drawn at each place of a batch."""

from dataclasses import replace

import pytest
import torch

from klimb.experience import Sample, SamplingSettings, Turn, collate


def sample(name, ids, support=None, **fields):
    return Sample(
        sample_id=name,
        group_id="g",
        prompt=(),
        prompt_ids=(1,),
        response="",
        response_ids=ids,
        finish_reason="stop",
        support=support,
        **({"log_mu": (-0.1,) * len(ids), "log_mu_provenance": "sampler"} | fields),
    )


CUT = sample("cut", (5, 6), ((5, 9), (6,)))
PLAIN = sample("plain", (7, 8, 9))
LONG = sample("long", (3, 4, 5), ((3,), (4, 1, 2), (5, 6)))


def sets(support):
    """The ids of each place, read one by one."""
    left = iter(support.ids.tolist())
    return [[[next(left) for _ in range(size)] for size in row] for row in support.sizes.tolist()]


def test_each_place_has_the_ids_that_its_sample_recorded_and_a_sample_without_has_none():
    assert sets(collate([CUT, PLAIN, LONG]).support) == [
        [[5, 9], [6], []],
        [[], [], []],
        [[3], [4, 1, 2], [5, 6]],
    ]


def test_a_batch_without_any_recorded_support_has_none():
    assert collate([PLAIN]).support is None
    assert collate([CUT, PLAIN], on_support=False).support is None


def test_selected_rows_keep_their_sets_in_the_new_order_and_width():
    batch = collate([CUT, PLAIN, LONG])
    assert sets(batch.select([2, 0]).support) == [[[3], [4, 1, 2], [5, 6]], [[5, 9], [6], []]]
    assert sets(batch.select([0, 0]).support) == [[[5, 9], [6]], [[5, 9], [6]]]
    # Rows of a sample without a record keep an empty one: which of a batch's minibatches they fall into is chance.
    assert sets(batch.select([1]).support) == [[[], [], []]]


def test_tokens_that_were_put_in_have_no_set():
    turns = (
        Turn(role="assistant", text="", num_tokens=1),
        Turn(role="tool", text="", num_tokens=2),
        Turn(role="assistant", text="", num_tokens=1),
    )
    talked = sample("talked", (5, 6, 7, 8), ((5, 1), (8,)), turns=turns, log_mu=(-0.1, -0.2))
    assert sets(collate([talked]).support) == [[[5, 1], [], [], [8]]]


def test_ids_take_half_of_the_memory_that_numbers_usually_do():
    batch = collate([LONG])
    assert batch.support.ids.dtype == torch.int32
    assert len(batch.support.ids) == 6


def test_a_token_is_named_once():
    with pytest.raises(ValueError, match="names 3 tokens, and only 2 different ones"):
        sample("twice", (5,), ((5, 9, 9),))


CUTTING = SamplingSettings(temperature=0.7, top_p=0.9)


@pytest.mark.parametrize(
    ("settings", "support", "is_policy", "lacks"),
    [
        (CUTTING, None, False, True),
        (CUTTING, ((5, 9), (6,)), True, False),
        (replace(CUTTING, repetition_penalty=1.1), ((5, 9), (6,)), False, False),
        (replace(CUTTING, temperature=0.0), ((5,), (6,)), False, True),
        (SamplingSettings(temperature=0.7), None, True, False),
        (None, None, False, False),
    ],
)
def test_with_its_support_a_cut_off_sample_is_drawn_from_the_policy_at_its_temperature(
    settings, support, is_policy, lacks
):
    drawn = sample("drawn", (5, 6), support, sampling=settings)
    assert drawn.draws_at(0.7) is is_policy
    assert not drawn.draws_at(1.0)
    assert drawn.lacks_support is lacks
