"""What scores a conversation reads all of its tokens and says something of the drawn ones alone."""

from dataclasses import replace

import pytest
import torch
from tests.conversations import log_probs_of_drawn, talk

from klimb.experience import collate
from klimb.training import score_samples
from klimb.training.guard.measuring import flags_of
from klimb.training.minibatches import micro_batches, score_batch
from klimb.training.mismatch import mismatch_between
from klimb.training.next_batch import _measure_share


def test_scores_are_those_of_the_drawn_tokens_after_all_that_came_before(tiny_policy):
    sample = talk(tiny_policy)
    (scores,) = score_samples(tiny_policy, [sample], max_tokens=4096)
    assert len(scores) == sample.num_drawn == len("call") + len("it is 42") + 2
    assert scores == pytest.approx(log_probs_of_drawn(tiny_policy, sample), abs=1e-4)


def test_a_conversation_and_a_single_answer_in_one_batch_have_their_own_scores(tiny_policy):
    short = talk(tiny_policy, number=1)
    single = replace(short, turns=(), response_ids=short.response_ids[:5], response="call", log_mu=short.log_mu[:5])
    both = [single, talk(tiny_policy), talk(tiny_policy, number=2, last="no")]
    for max_tokens in (1, 4096):
        scored = score_samples(tiny_policy, both, max_tokens=max_tokens)
        for sample, scores in zip(both, scored, strict=True):
            assert scores == pytest.approx(log_probs_of_drawn(tiny_policy, sample), abs=1e-4)


def test_what_the_tool_said_changes_the_score_of_what_follows_and_has_none_of_its_own(tiny_policy):
    one, other = talk(tiny_policy, result="42"), talk(tiny_policy, number=1, result="97")
    first, second = score_samples(tiny_policy, [one, other], max_tokens=4096)
    assert first[:5] == pytest.approx(second[:5], abs=1e-4)
    assert first[5:] != pytest.approx(second[5:], abs=1e-3)


def test_a_batch_is_scored_at_the_drawn_places(tiny_policy):
    sample = talk(tiny_policy)
    batch = collate([sample])
    log_pi = score_batch(tiny_policy, batch, max_tokens=4096)
    assert torch.equal(log_pi != 0, batch.mask)
    assert log_pi[batch.mask].tolist() == pytest.approx(list(sample.log_mu), abs=1e-4)


def test_a_portion_has_room_for_all_tokens_that_are_read(tiny_policy):
    rows = [talk(tiny_policy, number=number) for number in range(4)]
    batch = collate(rows)
    size = len(rows[0].prompt_ids) + len(rows[0].response_ids)
    drawn_alone = len(rows[0].prompt_ids) + 2 * rows[0].num_drawn
    assert drawn_alone < size
    # Room for two rows if only drawn tokens were counted.
    assert micro_batches(batch, range(4), max_tokens=drawn_alone, padded=False) == [[0], [1], [2], [3]]


def test_the_gap_between_sampler_and_trainer_is_over_drawn_tokens(tiny_policy):
    samples = [talk(tiny_policy), talk(tiny_policy, number=1, last="?")]
    scored = score_samples(tiny_policy, samples, max_tokens=4096)
    gap = mismatch_between([sample.log_mu for sample in samples], scored)
    assert gap["mismatch_max_abs"] < 1e-4
    moved = [tuple(value - 0.5 for value in sample.log_mu) for sample in samples]
    assert mismatch_between(moved, scored)["mismatch_mean_abs"] == pytest.approx(0.5, abs=1e-4)


def test_the_length_of_a_source_is_in_drawn_tokens(tiny_policy):
    sample = talk(tiny_policy)
    metrics = _measure_share("log", [sample], asked=1, policy_version=0)
    assert metrics["log/length_mean"] == sample.num_drawn < len(sample.response_ids)


def test_flags_read_what_the_policy_said(tiny_policy):
    sample = talk(tiny_policy, first="", last=" ", result="I'm sorry")
    assert flags_of([sample.response]).empty == (True,) and flags_of([sample.response]).refusal == (False,)
