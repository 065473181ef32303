"""A response of several turns: its tokens, which of them were drawn, and what a batch makes of it."""

from dataclasses import replace

import pytest
import torch

from klimb.experience import Sample, Turn, collate
from klimb.experience.content import hash_content

ONE = Sample(
    sample_id="one",
    group_id="g",
    prompt=({"role": "user", "content": "?"},),
    prompt_ids=(9, 8),
    response="a b",
    response_ids=(1, 2, 3),
    finish_reason="stop",
    log_mu=(-1.0, -2.0, -3.0),
    log_mu_provenance="sampler",
)
TURNS = (
    Turn(role="assistant", text="a", num_tokens=2, finish_reason="stop", reward=0.5),
    Turn(role="tool", text="x", num_tokens=3, name="look"),
    Turn(role="tool", text="y", num_tokens=0, name="look"),
    Turn(role="assistant", text="b", num_tokens=1, finish_reason="length"),
)
TWO = replace(ONE, sample_id="two", response_ids=(1, 2, 5, 6, 7, 3), turns=TURNS)


def test_a_response_without_turns_is_one_turn_of_the_policy():
    (turn,) = ONE.conversation
    assert (turn.role, turn.text, turn.num_tokens, turn.finish_reason) == ("assistant", "a b", 3, "stop")
    assert ONE.is_drawn == (True, True, True) and ONE.num_drawn == 3 and ONE.drawn_ids == (1, 2, 3)


def test_what_others_said_is_context():
    assert TWO.conversation == TURNS
    assert TWO.is_drawn == (True, True, False, False, False, True)
    assert TWO.num_drawn == 3 and TWO.drawn_ids == (1, 2, 3)


def test_a_turn_that_is_spelt_out_is_the_same_sample_to_a_loss():
    spelt = replace(ONE, turns=ONE.conversation)
    batch, same = collate([ONE]), collate([spelt])
    assert spelt.is_drawn == ONE.is_drawn and spelt.drawn_ids == ONE.drawn_ids
    for name in ("response_ids", "mask", "log_mu"):
        assert torch.equal(getattr(batch, name), getattr(same, name))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"turns": TURNS[:3]}, "turns have 5 tokens together and the response has 6"),
        ({"turns": (Turn(role="tool", text="x", num_tokens=6),), "log_mu": ()}, "none of its turns is the policy's"),
        ({"log_mu": (-1.0,) * 6}, "log_mu has 6 values for 3 drawn tokens"),
        ({"log_ref": (-1.0,) * 2}, "log_ref has 2 values for 3 drawn tokens"),
    ],
)
def test_turns_that_do_not_fit_the_tokens_are_refused(changes, words: str):
    with pytest.raises(ValueError, match=words):
        replace(TWO, **changes)


def test_a_batch_counts_drawn_tokens_and_reads_the_others():
    batch = collate([ONE, TWO])
    assert batch.response_ids.tolist() == [[1, 2, 3, 0, 0, 0], [1, 2, 5, 6, 7, 3]]
    assert batch.mask.int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1]]
    assert batch.log_mu.tolist() == [[-1, -2, -3, 0, 0, 0], [-1, -2, 0, 0, 0, -3]]
    assert batch.num_tokens == 6 and batch.lengths.tolist() == [3, 6]


def test_selecting_a_conversation_keeps_its_last_token():
    batch = collate([ONE, TWO], torch.tensor([1.0, 2.0]))
    part = batch.select([1])
    assert part.response_ids.tolist() == [[1, 2, 5, 6, 7, 3]] and part.mask.sum() == 3
    assert batch.select([0]).response_ids.tolist() == [[1, 2, 3]]


def test_context_behind_the_last_drawn_token_is_not_read():
    ended = replace(
        TWO, response_ids=(1, 2, 3, 5), turns=(replace(TURNS[0], num_tokens=3), replace(TURNS[1], num_tokens=1))
    )
    assert collate([ended]).select([0]).response_ids.tolist() == [[1, 2, 3]]


def test_the_hash_of_a_log_counts_turns_and_not_their_seconds():
    timed = replace(TWO, turns=tuple(replace(turn, seconds=1.5) for turn in TURNS))
    other = replace(TWO, turns=(replace(TURNS[0], reward=0.25), *TURNS[1:]))
    assert hash_content([TWO]) == hash_content([timed]) != hash_content([other])
    assert hash_content([replace(TWO, episode="e")]) != hash_content([TWO])
