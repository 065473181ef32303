"""Numbers of conversations, each by hand; runs of single answers have none of them."""

from dataclasses import replace

import pytest

from klimb.experience import Sample, ToolCall, Turn
from klimb.experience.turn_rewards import group_conversations
from klimb.findings.conversation_metrics import measure_conversations
from klimb.findings.conversations import count_calls, is_cut
from klimb.findings.metrics.of_conversations import CONVERSATIONS
from klimb.training.filtered_groups import FilteredGroup
from klimb.training.rollouts import measure_rollouts

SINGLE = Sample(
    sample_id="single",
    group_id="g",
    prompt=({"role": "user", "content": "?"},),
    prompt_ids=(1,),
    response="a",
    response_ids=(1, 2, 3),
    finish_reason="stop",
    reward=1.0,
)
CALL = ToolCall(name="look", arguments="{}")
NAMES = {
    "num_turns_mean",
    "calls_mean",
    "num_context_tokens",
    "truncated_turns_fraction",
    "num_environment_errors",
    "split_fraction",
    "drawn_fraction",
    "failed_calls_fraction",
    "turn_limit_fraction",
    "unread_calls_fraction",
    "tools_unused_fraction",
}


def said(num_tokens=2, *, calls=0, error="", finish_reason="stop"):
    return Turn(
        role="assistant",
        text="a",
        num_tokens=num_tokens,
        finish_reason=finish_reason,
        calls=(CALL,) * calls,
        error=error,
    )


def told(num_tokens=3, *, error=""):
    return Turn(role="tool", text="t", num_tokens=num_tokens, name="look", error=error)


def talk(*turns, number=0, **fields):
    num_tokens = sum(turn.num_tokens for turn in turns)
    return replace(
        SINGLE,
        **{
            "sample_id": f"t{number}",
            "response_ids": tuple(range(num_tokens)),
            "turns": turns,
            "metadata": {"ended": "over"},
            **fields,
        },
    )


def test_single_answers_have_no_numbers_of_conversations():
    assert measure_conversations([SINGLE, SINGLE]) == {}
    group = FilteredGroup((SINGLE,), (SINGLE,), (SINGLE,))
    assert not NAMES & set(measure_rollouts([group]))


@pytest.mark.parametrize(
    ("turns", "made", "failed"),
    [
        ((said(),), 0, 0),
        ((said(calls=1), told(), said()), 1, 0),
        ((said(calls=2), told(error="raised"), told(0), said()), 2, 1),
        ((said(error="no JSON"), told(error="no JSON"), said()), 1, 1),
        ((said(calls=1, error="the second is no JSON"), told(), told(0, error="no JSON"), said()), 2, 2),
        ((said(calls=1), told(error="too late"), said(calls=1), told(), said()), 2, 1),
        ((said(), Turn(role="user", text="go on", num_tokens=1, error="none of a call"), said()), 0, 0),
    ],
)
def test_calls_are_counted_once_and_so_is_what_went_wrong(turns, made: int, failed: int):
    calls = count_calls(talk(*turns))
    assert (calls.num_made, calls.num_failed) == (made, failed)


def test_metrics_by_hand():
    one = talk(said(2, calls=1), told(3), said(1), tools="[]")
    two = talk(
        said(2, error="?"),
        told(4, error="?"),
        said(2, calls=1),
        told(0, error="raised"),
        said(4, finish_reason="length"),
        number=1,
        metadata={"ended": "max_turns"},
    )
    dead = talk(said(2), number=2, reward=None, metadata={"environment_error": "it died"})
    metrics = measure_conversations([SINGLE, one, two, dead])
    assert metrics["num_turns_mean"] == pytest.approx((2 + 3 + 1) / 3)
    assert metrics["calls_mean"] == pytest.approx((1 + 2) / 3)
    assert metrics["failed_calls_fraction"] == pytest.approx(2 / 3)
    assert metrics["unread_calls_fraction"] == pytest.approx(1 / 3)
    assert metrics["num_context_tokens"] == 3 + 4
    assert metrics["drawn_fraction"] == pytest.approx((3 + 8 + 2) / (6 + 12 + 2))
    assert metrics["truncated_turns_fraction"] == pytest.approx(1 / 6)
    assert metrics["turn_limit_fraction"] == pytest.approx(1 / 2)
    assert metrics["num_environment_errors"] == 1
    assert metrics["tools_unused_fraction"] == 0.0
    assert metrics["split_fraction"] == 0.0


def test_an_environment_that_is_lost_before_a_word_is_said_counts():
    lost = replace(SINGLE, reward=None, response="", response_ids=(), log_mu=None, finish_reason="unknown")
    lost = replace(lost, metadata={"environment_error": "no reset", "ended": "error"})
    assert measure_conversations([lost, lost])["num_environment_errors"] == 2


def test_turns_that_are_samples_of_their_own_are_one_conversation():
    parts = [
        talk(said(calls=1), number=number, episode="e", metadata={} if number < 2 else {"ended": "over"})
        for number in range(3)
    ]
    assert [len(members) for members in group_conversations([*parts, talk(said(), number=9)])] == [3, 1]
    metrics = measure_conversations(parts)
    assert metrics["num_turns_mean"] == 3 and metrics["calls_mean"] == 3 and metrics["split_fraction"] == 1
    assert metrics["turn_limit_fraction"] == 0


def test_a_conversation_that_ended_before_a_word_has_no_turn():
    nothing = talk(number=1, turns=(), response="", response_ids=(), tools="[]", reward=None)
    metrics = measure_conversations([nothing])
    assert metrics["num_turns_mean"] == 0 and "truncated_turns_fraction" not in metrics


def test_rollouts_count_a_conversation_of_several_samples_once():
    parts = [talk(said(2), number=number, episode="e", reward=0.0) for number in range(3)]
    group = FilteredGroup((SINGLE, *parts), (SINGLE,), (SINGLE,))
    metrics = measure_rollouts([group])
    assert (metrics["num_samples"], metrics["reward_mean"], metrics["length_max"]) == (2, 0.5, 6)
    assert metrics["num_tokens_sampled"] == 9


def test_without_a_call_no_share_of_calls_fails():
    metrics = measure_conversations([talk(said(), tools="[]")])
    assert "failed_calls_fraction" not in metrics and "unread_calls_fraction" not in metrics
    assert metrics["tools_unused_fraction"] == 1


def test_rollouts_count_drawn_tokens():
    one = talk(said(2), told(30), said(1))
    metrics = measure_rollouts([FilteredGroup((SINGLE, one), (SINGLE,), (SINGLE,))])
    assert (metrics["num_tokens_sampled"], metrics["length_mean"], metrics["length_max"]) == (6, 3, 3)
    assert metrics["num_context_tokens"] == 30


def with_turns(count, *, group, reward, correct, number):
    turns = [part for _ in range(count - 1) for part in (said(1), told(1))]
    return talk(
        *turns, said(1), number=number, group_id=group, reward=reward, metadata={"correct": "yes" if correct else "no"}
    )


def test_reward_that_follows_the_number_of_turns_shows_within_groups_and_correctness_does_not():
    groups = [
        [(1, 0.1, True), (2, 0.2, False), (3, 0.3, False), (4, 0.4, True)],
        # Longer by the prompt, and worth less: between groups the correlation is the other way round.
        [(11, 0.01, True), (12, 0.02, False), (13, 0.03, False), (14, 0.04, True)],
    ]
    samples = [
        with_turns(count, group=f"g{number}", reward=reward, correct=correct, number=10 * number + place)
        for number, group in enumerate(groups)
        for place, (count, reward, correct) in enumerate(group)
    ]
    metrics = measure_conversations(samples)
    assert metrics["reward_turns_correlation"] == pytest.approx(1.0)
    assert metrics["correct_turns_correlation"] == pytest.approx(0.0)
    assert metrics["reward_drawn_correlation"] == pytest.approx(1.0)


def test_every_metric_of_conversations_has_a_row_and_every_row_is_measured():
    turns = (said(1, calls=1), told(1), said(1), told(1), said(1))
    samples = [
        talk(
            *turns[: 1 + 2 * number],
            number=number,
            reward=float(number),
            tools="[]",
            metadata={"ended": "over", "correct": "yes" if number else "no"},
        )
        for number in range(3)
    ]
    assert set(measure_conversations(samples)) == {metric.name for metric in CONVERSATIONS}


def test_equal_rewards_or_equal_lengths_have_no_correlation():
    same = [with_turns(2, group="g", reward=float(place), correct=True, number=place) for place in range(4)]
    flat = [with_turns(place + 1, group="g", reward=1.0, correct=True, number=place) for place in range(4)]
    for samples in (same, flat):
        assert not [name for name in measure_conversations(samples) if name.endswith("_correlation")]


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"metadata": {"ended": "over"}}, False),
        ({"metadata": {}}, False),
        ({"metadata": {"ended": "max_turns"}}, True),
        ({"metadata": {"ended": "context"}}, True),
        ({"finish_reason": "length", "metadata": {"ended": "over"}}, True),
    ],
)
def test_a_conversation_is_cut_by_a_limit(fields, cut: bool):
    assert is_cut(talk(said(), **fields)) is cut
