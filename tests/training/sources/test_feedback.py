"""What people said becomes samples: ratings, preferences, corrections, comments; and every row not used is counted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.quarantine import quarantine_rater
from klimb.experience.store import Store
from klimb.training.settings import FeedbackSettings, SourceSettings
from klimb.training.sources.feedback import FeedbackStore, cap_raters
from klimb.training.sources.offline import OfflineSource, check_logs

ASKED = ({"role": "user", "content": "What is 2 + 3?"},)


def answer(name: str, text: str, *, prompt=ASKED, **changes: object) -> Sample:
    sample = Sample(
        sample_id=name,
        group_id=f"group-{name}",
        prompt=prompt,
        prompt_ids=(),
        response=text,
        response_ids=(),
        finish_reason="stop",
        metadata={"user": "asker", "correct": "no"},
    )
    return replace(sample, **changes)


ANSWERS = [answer(name, f"It is {name}.") for name in "abcd"] + [
    answer("other", "Blue.", prompt=({"role": "user", "content": "Which colour?"},))
]


def said(number: int, about: str, *, user: str = "u", **what: object) -> Feedback:
    settings = {"value": None, "created_at": float(number), **what}
    return Feedback(feedback_id=f"f{number}", sample_id=about, user=user, **settings)


@pytest.fixture
def view(tmp_path: Path):
    def make(rows: Sequence[Feedback], *, samples: Sequence[Sample] = ANSWERS, **settings: object) -> FeedbackStore:
        store = Store(tmp_path / "store")
        store.append(samples)
        store.append_feedback(rows)
        return FeedbackStore(store, FeedbackSettings(**settings))

    return make


def groups(store: FeedbackStore) -> dict[str, dict[str, float | None]]:
    names = store.group_ids()
    found = {
        name: {each.response: each.reward for each in group}
        for name, group in zip(names, store.groups(names), strict=True)
    }
    assert store.count() == sum(map(len, found.values()))
    return found


def test_ratings_are_the_rewards_of_their_answers_and_what_nobody_rated_is_no_feedback(view):
    store = view([said(1, "a", value=1.0), said(2, "a", user="v", value=0.0), said(3, "b", value=1.0)])
    assert groups(store) == {"group-a": {"It is a.": 0.5}, "group-b": {"It is b.": 1.0}}
    assert store.in_words() == "" and store.used == store.unused == {}


def test_a_preference_makes_a_group_of_two_with_the_shares_of_the_people_as_rewards(view):
    rows = [said(1, "a", over="b"), said(2, "a", user="v", over="b"), said(3, "b", user="w", over="a")]
    assert groups(view(rows)) == {
        "preference+a+b": {"It is a.": pytest.approx(2 / 3), "It is b.": pytest.approx(1 / 3)}
    }


def test_only_what_people_compared_is_compared(view):
    store = view([said(1, "a", over="b"), said(2, "c", over="d"), said(3, "a", value=0.0)])
    assert groups(store) == {
        "group-a": {"It is a.": 0.0},
        "preference+a+b": {"It is a.": 1.0, "It is b.": 0.0},
        "preference+c+d": {"It is c.": 1.0, "It is d.": 0.0},
    }
    (pair,) = store.groups(["preference+a+b"])
    assert {each.sample_id for each in pair} == {"a+against+b", "b+against+a"}
    assert all("correct" not in each.metadata and each.metadata["user"] == "asker" for each in pair)


def test_a_persons_last_word_on_two_answers_is_the_one_that_counts(view):
    store = view([said(1, "a", over="b"), said(2, "b", over="a")])
    assert groups(store) == {"preference+a+b": {"It is a.": 0.0, "It is b.": 1.0}}
    assert store.unused == {"an earlier preference of the same person between the same two answers": 1}


def test_every_preference_that_is_not_used_is_counted_with_its_reason(view):
    rows = [
        said(1, "a", over="gone"),
        said(2, "a", over="other"),
        said(3, "c", over="d"),
        said(4, "d", user="v", over="c"),
        said(5, "b", over="a", name="judge:m"),
        said(6, "a", value=1.0),
    ]
    store = view(rows)
    assert groups(store) == {"group-a": {"It is a.": 1.0}}
    assert store.unused == {
        "given by a reward model or a judge, and no person": 1,
        "one of the two answers is not in the store": 1,
        "the two answers are to different prompts": 1,
        "as many people preferred the other answer": 2,
    }
    assert "not used: 1 × given by a reward model" in store.in_words()
    off = view(rows, preferences="off")
    assert off.unused["preferences = 'off'"] == 4


def test_a_correction_is_the_better_of_a_pair_or_a_demonstration(view):
    rows = [said(1, "a", correction="It is 5."), said(2, "a", value=0.0)]
    pairs = view(rows)
    assert groups(pairs) == {
        "correction+f1": {"It is 5.": 1.0, "It is a.": 0.0},
        "group-a": {"It is a.": 0.0},
    }
    assert pairs.used == {"corrections as pairs": 1}
    ((first, second),) = pairs.groups(["correction+f1"])
    written = first if first.reward == 1 else second
    assert (written.prompt, written.response_ids, written.log_mu, written.model) == (ASKED, (), None, "")
    assert groups(view(rows, corrections="demonstrations")) == {
        "correction+f1": {"It is 5.": 1.0},
        "group-a": {"It is a.": 0.0},
    }
    off = view(rows, corrections="off")
    assert groups(off) == {"group-a": {"It is a.": 0.0}} and off.unused == {"corrections = 'off'": 1}


def test_every_correction_that_is_not_used_is_counted_with_its_reason(view):
    rows = [
        said(1, "gone", correction="x"),
        said(2, "a", correction=" It is a. "),
        said(3, "b", correction="first"),
        said(4, "b", correction="second"),
    ]
    store = view(rows)
    assert groups(store) == {"correction+f4": {"second": 1.0, "It is b.": 0.0}}
    assert store.unused == {
        "an earlier correction of the same answer by the same person": 1,
        "the corrected answer is not in the store": 1,
        "the correction is the answer itself": 1,
    }


def test_comments_come_with_the_rated_answer_they_are_about_and_only_when_they_are_asked_for(view):
    rows = [
        said(1, "a", value=0.0, comment="too long"),
        said(2, "a", user="v", value=0.0, comment=" too rude "),
        said(3, "b", comment="unrated"),
        said(4, "c", over="d", comment="about two"),
    ]
    store = view(rows, comment_weight=0.5)
    found = {
        each.sample_id: each.metadata.get("comment") for group in store.groups(store.group_ids()) for each in group
    }
    assert found == {"a": "too rude", "c+against+d": None, "d+against+c": None}
    assert store.used == {"preferences": 1, "comments": 1}
    assert store.unused == {
        "an earlier comment on the same answer, or one on a preference": 2,
        "a comment on an answer that has no rating, is joined to others, or is not in the store": 1,
    }
    silent = view(rows)
    assert all("comment" not in each.metadata for group in silent.groups(silent.group_ids()) for each in group)
    assert silent.unused == {"comments, with comment_weight = 0": 4}


def test_conversations_are_trained_on_by_their_answers_or_joined(view):
    first = answer("t1", "Hello.", prompt_ids=(1, 2), response_ids=(3,), episode="e", tokenizer="t")
    later = (*ASKED, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "And?"})
    second = answer(
        "t2",
        "Bye.",
        prompt=later,
        prompt_ids=(1, 2, 3, 4),
        response_ids=(5,),
        episode="e",
        tokenizer="t",
        created_at=1.0,
    )
    unrated = answer("t3", "Nothing.", prompt_ids=(7,), response_ids=(8,), episode="f", tokenizer="t")
    rows = [said(1, "t1", value=1.0), said(2, "t2", value=0.0)]
    samples = [first, second, unrated]
    assert groups(view(rows, samples=samples)) == {"group-t1": {"Hello.": 1.0}, "group-t2": {"Bye.": 0.0}}
    store = view(rows, samples=samples, conversations="whole")
    assert groups(store) == {"group-t1": {"Hello.\n\nBye.": 1.0}}
    ((whole,),) = store.groups(["group-t1"])
    assert whole.response_ids == (3, 4, 5) and [turn.reward for turn, _ in whole.drawn_turns] == [1.0, 0.0]
    assert store.used == {"whole conversations": 1}


def test_a_condition_holds_for_what_is_made_of_feedback_too(view):
    store = view([said(1, "a", correction="It is 5."), said(2, "b", value=1.0)])
    assert store.count("reward > 0.5") == 2
    assert store.group_ids(where="reward > 0.5") == ["correction+f1", "group-b"]
    (group,) = store.groups(["correction+f1"], where="reward > 0.5")
    assert [each.response for each in group] == ["It is 5."]


def test_the_fingerprint_tells_another_comment_and_another_preference_apart(view, tiny_policy):
    rows = [said(1, "a", value=0.0, comment="too long")]
    prints = [OfflineSource(view(rows, comment_weight=0.5), tiny_policy, source="feedback").fingerprint()]
    prints.append(OfflineSource(view(rows), tiny_policy, source="feedback").fingerprint())
    prints.append(
        OfflineSource(
            view([*rows, said(2, "a", value=0.0, comment="too short")], comment_weight=0.5),
            tiny_policy,
            source="feedback",
        ).fingerprint()
    )
    assert len(set(prints)) == 3


def test_pairs_need_two_answers_to_a_prompt_and_corrections_need_no_ratio(view, tiny_policy):
    only = SourceSettings(feedback=1.0)
    ratings = OfflineSource(view([said(1, "a", value=1.0), said(2, "b", value=0.0)]), tiny_policy, source="feedback")
    with pytest.raises(ValueError, match=r"holds one sample, and the loss compares two answers.*'kto' or 'dro'"):
        check_logs([ratings], only, needs_log_mu=False, num_prompts=2, needs_pairs=True)
    store = view([said(1, "a", value=1.0), said(3, "b", correction="It is 5.")])
    corrected = OfflineSource(store, tiny_policy, source="feedback")
    check_logs([corrected], only, needs_log_mu=False, num_prompts=2, needs_pairs=True)
    assert corrected.in_words == "1 corrections as pairs"
    with pytest.raises(ValueError, match=r"nobody drew what people wrote: feedback\.corrections = 'off'"):
        check_logs([corrected], only, needs_log_mu=True, num_prompts=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_rater_fraction": 0.0}, r"max_rater_fraction must be in \(0, 1\]"),
        ({"comment_weight": 1.5}, "comment_weight must be in 0 to 1"),
        ({"comment_template": "{question}"}, r"comment_template has no \{comment\}"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FeedbackSettings(**settings)


def test_one_person_decides_no_more_than_a_share_and_quarantined_raters_nothing(view):
    rows = [said(number, "a", user="loud", over=f"b{number}") for number in range(40)]
    rows += [said(100 + number, f"b{number}", user=f"u{number}", over="a") for number in range(10)]
    kept, num_beyond = cap_raters(rows, max_fraction=0.25)
    loud = [row for row in kept if row.user == "loud"]
    assert len(loud) == 3 and len(kept) == 13 and num_beyond == 37
    assert cap_raters(rows[::-1], max_fraction=0.25)[0] == kept[::-1]
    assert cap_raters(rows, max_fraction=1.0) == (rows, 0)
    nobody = [replace(row, user="") for row in rows]
    assert cap_raters(nobody, max_fraction=0.25) == (nobody, 0)


def test_what_raters_in_quarantine_said_is_not_learnt_from(tmp_path: Path):
    store = Store(tmp_path / "store")
    store.append(ANSWERS)
    store.append_feedback([said(1, "a", over="b", user="bad"), said(2, "c", correction="5", user="good")])
    quarantine_rater(store.folder, "bad")
    assert list(groups(FeedbackStore(store, FeedbackSettings()))) == ["correction+f2"]
