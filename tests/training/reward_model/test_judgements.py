"""What a store's ratings and preferences come to, and what of them is held out."""

from dataclasses import replace

import pytest
from tests.judged import answer, preferences, thumbed

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Turn
from klimb.training.reward_model.judgements import (
    BEYOND_CAP,
    MISSING,
    NO_TEXT,
    OTHER_PROMPT,
    SAME_TEXT,
    TURNS,
    Judgements,
    read_judgements,
)


def read(samples, feedback=(), **settings) -> Judgements:
    return read_judgements(samples, feedback, **{"fraction": 0.2, "seed": 0, "max_pairs": 16, **settings})


def named(data: Judgements) -> set[tuple[str, str, str]]:
    ids = [text.sample_id for text in data.texts]
    return {(ids[pair.better], ids[pair.worse], pair.kind) for pair in data.pairs}


def test_ratings_of_one_prompt_make_pairs_of_those_that_differ():
    samples = [
        answer(number, prompt=0, reward=reward, response=f"r{number}")
        for number, reward in enumerate([0.0, 1.0, 1.0, None])
    ]
    data = read([*samples, answer(9, reward=1.0, response="x")])
    assert named(data) == {("s1", "s0", "ratings"), ("s2", "s0", "ratings")}
    assert len(data.ratings) == 4 and data.thumbs == (0.0, 1.0)
    assert all(text.sample_id != "s3" for text in data.texts), "unrated is not negative"


def test_the_pairs_of_one_prompt_are_bounded_and_the_same_for_a_seed():
    samples = [answer(number, prompt=number % 2, reward=float(number), response=f"r{number}") for number in range(20)]
    first, again = read(samples, max_pairs=5), read(samples, max_pairs=5)
    assert len(first.pairs) == 10 and named(first) == named(again)
    assert first.thumbs is None, "graded"


def test_a_preference_is_a_pair_and_the_latest_word_of_a_person_counts():
    samples, feedback = preferences(3)
    changed = Feedback(feedback_id="n", sample_id="s1", value=None, over="s0", user="u0", created_at=9.0)
    other = Feedback(feedback_id="o", sample_id="s3", value=None, over="s2", user="someone", created_at=9.0)
    data = read(samples, [*feedback, changed, other])
    assert named(data) == {
        ("s1", "s0", "preference"),
        ("s2", "s3", "preference"),
        ("s3", "s2", "preference"),
        ("s4", "s5", "preference"),
    }


def test_what_a_machine_preferred_is_no_ones_preference():
    samples, feedback = preferences(3)
    machine = Feedback(feedback_id="m", sample_id="s1", value=None, over="s0", user="judge:1", name="judge:1")
    assert named(read(samples, [*feedback, machine])) == named(read(samples, feedback))


def test_nobody_has_more_than_a_share_of_the_preferences_where_that_is_asked_for():
    samples, feedback = preferences(60)
    by_one = [replace(row, user="one" if place < 40 else row.user) for place, row in enumerate(feedback)]
    data = read(samples, by_one, max_rater_fraction=0.2)
    # Twenty others have one each: of 25 that count, 5 are a fifth.
    assert data.left_out == {BEYOND_CAP: 35} and len(data.pairs) == 25
    assert len(read(samples, by_one).pairs) == 60


def test_what_cannot_be_learnt_from_is_counted_with_its_reason():
    turns = (Turn(role="assistant", text="a", num_tokens=0), Turn(role="tool", text="b", num_tokens=0))
    samples = [
        *thumbed(3),
        answer(90, reward=1.0, response=" "),
        answer(91, reward=1.0, response="x", turns=turns),
        answer(92, prompt=0, reward=0.5, response="same"),
        answer(93, prompt=0, reward=0.75, response="same"),
    ]
    feedback = [
        Feedback(feedback_id="a", sample_id="s0", value=None, over="s4"),
        Feedback(feedback_id="b", sample_id="s0", value=None, over="gone"),
    ]
    data = read(samples, feedback)
    assert data.left_out == {NO_TEXT: 1, TURNS: 1, OTHER_PROMPT: 1, MISSING: 1, SAME_TEXT: 1}


def test_no_prompt_and_no_user_is_on_both_sides():
    samples = [
        answer(
            number,
            prompt=number // 2,
            reward=float(number % 2),
            response=f"r{number}",
            metadata={"user": f"u{number // 4}"},
        )
        for number in range(80)
    ]
    rater = [Feedback(feedback_id=f"f{n}", sample_id=f"s{n}", value=1.0, user=f"rater{n // 8}") for n in range(80)]
    data = read(samples, rater)
    assert data.unit == "user"
    sides = {
        "prompt": {(text.messages[0]["content"], text.is_held_out) for text in data.texts},
        "user": {(int(text.sample_id[1:]) // 4, text.is_held_out) for text in data.texts},
        "rater": {(int(text.sample_id[1:]) // 8, text.is_held_out) for text in data.texts},
    }
    assert {name: len(found) for name, found in sides.items()} == {"prompt": 40, "user": 20, "rater": 10}
    held = len(data.ratings_of(held_out=True))
    assert 8 <= held <= 24 and held + len(data.ratings_of(held_out=False)) == 80


def test_without_some_texts_the_others_keep_what_was_said_of_them():
    samples, feedback = preferences(4)
    data = read([*samples, *[answer(90 + n, reward=float(n % 2), response=f"r{n}") for n in range(4)]], feedback)
    fewer = data.without({0, 9}, "too long")
    assert fewer.left_out["too long"] == 2
    assert named(fewer) == {pair for pair in named(data) if data.texts[0].sample_id not in pair}
    kept = {fewer.texts[rating.text].sample_id: rating.value for rating in fewer.ratings}
    assert kept == {"s90": 0.0, "s92": 0.0, "s93": 1.0}


def test_a_store_without_a_word_on_anything_is_refused():
    with pytest.raises(ValueError, match="no sample is rated and none is preferred"):
        read([answer(0, reward=None, response="x")])
