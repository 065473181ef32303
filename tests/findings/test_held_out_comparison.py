import random

import pytest

from klimb.findings.held_out_comparison import compare_held_out
from klimb.findings.held_out_log import HeldOutRow


def rows(changes: list[float], rewards: list[float | None]) -> list[HeldOutRow]:
    return [
        HeldOutRow(sample_id=f"s{place}", unit=f"p{place}", reward=reward, before=-2.0, after=-2.0 + change)
        for place, (change, reward) in enumerate(zip(changes, rewards, strict=True))
    ]


def noisy(number: int, *, good: float, bad: float, seed: int = 0) -> list[HeldOutRow]:
    draw = random.Random(seed)
    rewards = [float(place % 2) for place in range(number)]
    return rows([(good if reward else bad) + draw.gauss(0, 0.1) for reward in rewards], list(rewards))


def test_the_preference_is_the_gain_of_the_better_rated_over_the_worse_rated():
    found = compare_held_out(rows([0.3, 0.1, 0.5, 0.2], [1.0, 0.0, 1.0, 0.0]), unit="prompt")
    assert found.preference is not None
    assert found.preference.value == pytest.approx((0.3 + 0.5) / 2 - (0.1 + 0.2) / 2)
    assert found.verdict == "unknown"
    assert "cannot be told" in found.sentence


def test_good_answers_that_gain_more_are_better_and_less_are_worse():
    assert compare_held_out(noisy(60, good=0.3, bad=0.0), unit="prompt").verdict == "better"
    assert compare_held_out(noisy(60, good=0.0, bad=0.3), unit="prompt").verdict == "worse"


def test_answers_that_all_gain_alike_do_not_make_a_model_better():
    """A policy that imitates everything, good and bad, has learnt nothing from the ratings."""
    verdicts = [compare_held_out(noisy(60, good=0.4, bad=0.4, seed=seed), unit="prompt").verdict for seed in range(40)]
    assert verdicts.count("unknown") >= 34


def test_a_policy_that_did_not_move_is_not_better():
    found = compare_held_out(rows([0.0] * 40, [float(place % 2) for place in range(40)]), unit="prompt")
    assert found.verdict == "unknown"


def test_without_ratings_only_the_fit_can_be_seen_and_that_is_said():
    draw = random.Random(0)
    found = compare_held_out(rows([0.2 + draw.gauss(0, 0.05) for _ in range(30)], [None] * 30), unit="prompt")
    assert (found.verdict, found.preference) == ("better", None)
    assert "nothing says which answers are good" in found.sentence


def test_equal_ratings_are_no_ratings_of_two_sides():
    found = compare_held_out(rows([0.1 * place for place in range(20)], [1.0] * 20), unit="prompt")
    assert found.preference is None
    assert "all held-out ratings are the same" in found.sentence


def test_what_a_log_cannot_say_is_always_said():
    for each in (noisy(60, good=0.3, bad=0.0), rows([0.0] * 20, [None] * 20)):
        assert "not in a log" in compare_held_out(each, unit="prompt").sentence


def test_rows_of_one_user_count_as_one():
    """Twenty copies of five independent rows are five, and five differences that agree are not enough to be sure."""
    draw = random.Random(1)
    once = [(float(place % 2), draw.gauss(0.1 * (place % 2), 0.2)) for place in range(12)]
    copied = [
        HeldOutRow(sample_id=f"{place}-{copy}", unit=f"u{place}", reward=reward, before=-1.0, after=-1.0 + change)
        for place, (reward, change) in enumerate(once)
        for copy in range(20)
    ]
    found = compare_held_out(copied, unit="user")
    assert found.preference is not None
    assert found.preference.num_units == 12


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no held-out row"):
        compare_held_out([], unit="prompt")
