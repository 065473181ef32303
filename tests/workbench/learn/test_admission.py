"""Who decides about a candidate: no one person, no one conversation, and nobody who chose the candidate."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from klimb.findings.promotion import LiveRating, decide, live_evidence
from klimb.workbench.learn.admission import admit
from klimb.workbench.learn.learner import Learner, Seen
from klimb.workbench.learn.ratings import Said
from klimb.workbench.learn.rounds import Round
from klimb.workbench.learn.settings import LearnSettings
from klimb.workbench.learn.split import Split


def rows_of(*users: str) -> list[dict[str, list[str]]]:
    return [{"users": [user] if user else []} for user in users]


def said(name: str, **fields: object) -> Said:
    bare = {"group_id": name, "model": "new", "drawn_at": 5.0, "prompt": name, "users": (), "rating": 1.0}
    return Said(**{"sample_id": name, "said_at": 6.0, **bare, **fields})  # pyright: ignore[reportArgumentType]


def live_rows(*what: Said) -> list[dict[str, object]]:
    settings = LearnSettings(every="10-ratings")
    learner = Learner(run_file=Path(), store=Path(), folder=Path(), settings=settings, console=Console())
    state = Round(
        number=1, stage="live", serving="old", candidate="new", num_said=0, began_at=0.0, rank=1, trial_since=2.0
    )
    return learner._live_rows(state, Seen(said=what, sides={}))


def test_of_ten_thousand_ratings_by_one_of_eleven_people_a_fifth_of_all_judge():
    admitted = admit([], rows_of(*["hostile"] * 10_000, *"abcdefghij" * 10))
    hostile = sum(row["users"] == ["hostile"] for row in admitted)
    assert len(admitted) - hostile == 100 and hostile == 25


def test_what_was_left_out_counts_later_when_others_have_said_more():
    now = admit([], rows_of(*["one"] * 5, *"abcdefghij"))
    assert sum(row["users"] == ["one"] for row in now) == 2
    left = rows_of(*["one"] * 3)
    assert admit([*now, *rows_of(*"abcdefghij")], left) == left


@pytest.mark.parametrize("people", [["one"] * 9, ["one"] * 9 + ["two"], [""] * 9])
def test_of_one_or_two_people_or_of_nobody_named_all_counts(people):
    assert len(admit([], rows_of(*people))) == len(people)


def test_answers_to_whoever_asked_for_the_candidate_by_name_say_nothing_of_it():
    assert live_rows(said("a", is_by_name=True)) == []
    assert len(live_rows(said("a"))) == 1


def test_a_conversation_is_one_observation_however_many_of_its_answers_are_rated():
    rows = live_rows(said("a", conversation="c"), said("b", conversation="c", rating=0.0), said("d"))
    assert [row["rating"] for row in rows] == [0.5, 1.0]
    assert live_rows(said("early", drawn_at=1.0), said("unrated", rating=None), said("other", model="else")) == []


def promoted_share(*, by_conversation: bool) -> float:
    """Of candidates that are as good as the serving policy: people are pleased or not for a whole conversation."""
    generator = np.random.default_rng(0)
    num_promoted = 0
    for _ in range(60):
        rows: list[LiveRating] = []
        for _ in range(40):
            rating, is_of_candidate = float(generator.random() < 0.5), bool(generator.random() < 0.5)
            rows += [LiveRating(rating=rating, is_of_candidate=is_of_candidate)] * (1 if by_conversation else 8)
        looks = [live_evidence(rows[: len(rows) * look // 4], fraction=0.5) for look in range(1, 5)]
        verdicts = [decide(look, level=0.05, give_up_after=10**6).verdict for look in looks]
        num_promoted += "promote" in verdicts
    return num_promoted / 60


def test_counted_by_conversation_null_candidates_keep_to_the_level_and_by_answer_they_would_not():
    assert promoted_share(by_conversation=True) <= 0.05
    assert promoted_share(by_conversation=False) > 0.2


def test_the_turns_of_a_conversation_are_on_one_side():
    split = Split(fraction=0.5, seed=0, by_users=False)
    turns = [said(f"{talk}-{turn}", conversation=f"c{talk}") for talk in range(40) for turn in range(3)]
    sides = split.assign(turns)
    assert set(sides.values()) == {"train", "judge"}
    for talk in range(40):
        assert len({sides[f"{talk}-{turn}"] for turn in range(3)}) == 1
