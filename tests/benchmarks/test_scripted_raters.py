"""The script of raters: what it likes, what its arms do to the ratings, and a cell of seconds on a tiny model."""

from dataclasses import replace

import pytest

from benchmarks.scripted_raters import ARMS, Size, draw, is_liked, questions, rate, run_cell, summarise

SMALL = Size(rounds=2, ratings=4, groups=2, held_out=2, answers=2, tokens=4)


def test_no_topic_is_asked_in_training_and_held_out():
    asked, held_out = questions(0, Size())
    assert len(held_out) == 25 and len(asked) == 100
    assert not set(asked) & set(held_out)
    assert questions(0, Size()) == (asked, held_out) != questions(1, Size())


def test_short_and_polite_is_liked_and_the_arms_turn_or_deal_the_ratings(tiny_policy):
    (sample,) = draw(tiny_policy, ["Hello"], name="x", num_samples=1, seed=0, size=SMALL)
    short = replace(sample, response="Thank you!", finish_reason="stop")
    others = [replace(short, finish_reason="length"), replace(short, response="No.")]
    assert [is_liked(each) for each in (short, *others)] == [True, False, False]
    samples = [replace(short if number % 3 else others[1], sample_id=f"s{number}") for number in range(30)]
    honest, hostile, shuffled = (
        [row.value for row in rate(samples, seed=0, **settings)]
        for settings in ({}, {"hostile": 0.1}, {"shuffled": True})
    )
    assert honest == [float(number % 3 > 0) for number in range(30)]
    assert [number for number in range(30) if hostile[number] != honest[number]] == [0, 10, 20]
    assert sorted(shuffled) == sorted(honest) and shuffled != honest


@pytest.mark.parametrize("arm", ["forward", pytest.param("hostile", marks=pytest.mark.slow)])
def test_a_cell_trains_on_its_ratings_and_measures_before_and_after(tiny_policy, arm):
    cell = run_cell(tiny_policy, arm, 0, SMALL)
    assert cell["perplexity_after"] != cell["perplexity_before"]
    assert len(cell["liked_by_round"]) == 2 and 0 <= cell["liked_after"] <= 1
    (line,) = summarise([cell])
    assert line.startswith(arm) and "1 seeds" in line
    assert set(ARMS) == {"forward", "reverse", "shuffled", "hostile"}
