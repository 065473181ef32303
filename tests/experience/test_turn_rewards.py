"""Which turn a reward is credited to; values by hand."""

from dataclasses import replace

import pytest

from klimb.experience import Sample, Turn
from klimb.experience.turn_rewards import (
    number_conversations,
    one_of_each,
    spread_over_tokens,
    turn_advantages,
    turn_rewards,
)


def make(name: str, rewards: list[float | None], *, group: str = "g", episode: str = "") -> Sample:
    """Return a sample with a turn of two tokens for each reward, and a tool's token between."""
    turns: list[Turn] = []
    for reward in rewards:
        turns += [
            Turn(role="assistant", text="a", num_tokens=2, reward=reward),
            Turn(role="tool", text="t", num_tokens=1),
        ]
    return Sample(
        sample_id=name,
        group_id=group,
        prompt=(),
        prompt_ids=(1,),
        response="a",
        response_ids=(5,) * (3 * len(rewards) - 1),
        finish_reason="stop",
        turns=tuple(turns[:-1]),
        episode=episode,
    )


PLAIN = replace(make("plain", [None]), turns=())


def mean_less(values):
    """Each number less the mean of the others."""
    return [value - (sum(values) - value) / (len(values) - 1) for value in values]


def test_what_is_left_of_the_reward_belongs_to_the_last_turn():
    assert turn_rewards([make("a", [0.25, None, 0.5])], [2.0]) == [(0.25, 0.0, 1.75)]
    assert turn_rewards([PLAIN], [2.0]) == [(2.0,)]


def test_what_comes_after_a_sample_of_an_episode_stands_at_its_last_turn():
    first, second = make("a", [0.25, 0.5], episode="e"), make("b", [1.0], episode="e")
    assert turn_rewards([first, second], [2.0, 2.0]) == [(0.25, 1.75), (1.25,)]


def test_samples_of_one_episode_are_one_conversation_and_others_are_not():
    samples = [
        PLAIN,
        make("a", [None], episode="e"),
        make("b", [None], episode="e"),
        make("c", [None], group="h", episode="e"),
    ]
    assert number_conversations(samples) == [0, 1, 1, 2]
    assert [sample.sample_id for sample in one_of_each(samples)] == ["plain", "a", "c"]


def test_turns_are_compared_by_what_is_still_to_come():
    """Returns (3, 2) and (4, 1): turn 0 gets 3 − 4 and 4 − 3, turn 1 gets 2 − 1 and 1 − 2."""
    samples = [make("a", [1.0, 2.0]), make("b", [3.0, 1.0])]
    assert turn_advantages(samples, [3.0, 4.0], mean_less) == [(-1.0, 1.0), (1.0, -1.0)]


def test_one_that_has_ended_is_compared_by_its_last_turn():
    samples = [make("a", [1.0, 2.0]), make("b", [None])]
    assert turn_advantages(samples, [3.0, 5.0], mean_less) == [(-2.0, -3.0), (2.0,)]


def test_with_rewards_for_whole_conversations_each_turn_has_the_advantage_of_its_own():
    samples = [make("a", [None, None, None]), make("b", [None]), make("c", [None, None])]
    assert turn_advantages(samples, [1.0, 0.0, 5.0], mean_less) == [(-1.5,) * 3, (-3.0,), (4.5, 4.5)]


def test_turns_of_an_episode_are_compared_as_those_of_one_sample():
    whole = [make("a", [1.0, 2.0]), make("b", [3.0, 1.0])]
    split = [make("a0", [1.0], episode="a"), make("a1", [2.0], episode="a"), whole[1]]
    ((first, second), other) = turn_advantages(whole, [3.0, 4.0], mean_less)
    assert turn_advantages(split, [3.0, 3.0, 4.0], mean_less) == [(first,), (second,), other]


def test_nothing_moves_where_all_returns_are_equal():
    samples = [make("a", [1.0, 2.0]), make("b", [1.0, 2.0])]
    assert turn_advantages(samples, [3.0, 3.0], mean_less) == [(0.0, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("at_ends", "tokens"), [(False, [7, 7, 0, 8, 8]), (True, [0, 7, 0, 0, 8])], ids=["turns", "ends"]
)
def test_tokens_that_were_not_drawn_get_nothing(at_ends: bool, tokens: list[float]):
    assert spread_over_tokens(make("a", [None, None]), (7.0, 8.0), at_ends=at_ends) == tokens
