"""Thumbs of a program in front of `klimb serve` reach the very samples that it served."""

import json
from pathlib import Path
from typing import Any

import pytest

from klimb.experience.importing import import_rows
from klimb.experience.samples import Sample, SamplingSettings
from klimb.experience.store import Store

QUESTION, ANSWER = "Which planet is the largest?", "Jupiter."


def served(sample_id: str, *, message_id: str = "", response: str = ANSWER, **values: Any) -> Sample:
    named = {"message_id": message_id} if message_id else {}
    return Sample(
        **{
            "sample_id": sample_id,
            "group_id": sample_id,
            "prompt": ({"role": "user", "content": QUESTION},),
            "prompt_ids": (1, 2),
            "response": response,
            "response_ids": (3, 4),
            "finish_reason": "stop",
            "log_mu": (-1.0, -2.0),
            "log_mu_provenance": "sampler",
            "sampling": SamplingSettings(),
            "model": "policy-0003",
            "created_at": 1_790_000_000.0,
            "metadata": {"served_by": "klimb", **named},
        }
        | values
    )


def thumb(message_id: str, rating: int | None, *, answer: str = ANSWER, comment: str = "", at: int = 1_790_000_060):
    """A row of Open WebUI's export of feedback."""
    messages = {
        "m0": {"id": "m0", "parentId": None, "role": "user", "content": QUESTION},
        message_id: {"id": message_id, "parentId": "m0", "role": "assistant", "content": answer, "done": True},
    }
    return {
        "id": f"feedback of {message_id}",
        "user_id": "a1b2",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "klimb", "comment": comment},
        "meta": {"message_id": message_id, "chat_id": "c1"},
        "snapshot": {"chat": {"id": "c1", "chat": {"history": {"messages": messages, "currentId": message_id}}}},
        "created_at": at,
        "updated_at": at,
    }


def imported(store: Store, tmp_path: Path, rows: list[dict[str, Any]]):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(rows))
    return import_rows(store, path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_thumb_rates_the_served_sample_of_that_message_and_adds_none(store, tmp_path):
    store.append([served("chatcmpl-1", message_id="m1"), served("chatcmpl-2", message_id="m2")])
    report = imported(store, tmp_path, [thumb("m2", -1, comment="wrong")])
    assert report.tally.num_joined == {"by their id": 1}
    assert store.count() == 2
    assert store.rewards(["chatcmpl-1", "chatcmpl-2"]) == {"chatcmpl-1": None, "chatcmpl-2": 0.0}
    rated = store.sample("chatcmpl-2")
    assert rated.log_mu == (-1.0, -2.0) and "wrong" in rated.reward_reason


def test_without_ids_the_same_question_and_answer_are_the_same_and_others_are_not(store, tmp_path):
    store.append(
        [
            served("chatcmpl-1", response="Jupiter.\n"),
            served("chatcmpl-2", prompt=({"role": "user", "content": "Which is the smallest?"},)),
            served("chatcmpl-3", response="Saturn."),
        ]
    )
    report = imported(store, tmp_path, [thumb("m1", 1), thumb("m2", 1, answer="Neptune.")])
    assert report.tally.num_joined == {"by what was asked and answered": 1, "not found here": 1}
    assert store.rewards(["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"]) == {
        "chatcmpl-1": 1.0,
        "chatcmpl-2": None,
        "chatcmpl-3": None,
    }
    assert store.sample("m2").source == "log"


def test_of_equal_answers_the_one_of_the_nearest_time_is_rated(store, tmp_path):
    store.append(
        [served("old", created_at=1_780_000_000.0), served("new"), served("newer", created_at=1_795_000_000.0)]
    )
    imported(store, tmp_path, [thumb("m1", 1)])
    assert store.rewards(["old", "new", "newer"]) == {"old": None, "new": 1.0, "newer": None}


def test_an_id_with_other_words_is_not_taken_for_the_answer(store, tmp_path):
    store.append([served("title", message_id="m1", response="A title for this chat"), served("chatcmpl-1")])
    imported(store, tmp_path, [thumb("m1", 1)])
    assert store.rewards(["title", "chatcmpl-1"]) == {"title": None, "chatcmpl-1": 1.0}


def test_instructions_that_the_server_saw_and_the_export_lacks_do_not_matter(store, tmp_path):
    asked = ({"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION})
    store.append([served("chatcmpl-1", prompt=asked)])
    imported(store, tmp_path, [thumb("m1", 1)])
    assert store.rewards(["chatcmpl-1"]) == {"chatcmpl-1": 1.0}


def test_the_same_export_adds_nothing_and_a_changed_thumb_counts_from_then_on(store, tmp_path):
    store.append([served("chatcmpl-1", message_id="m1")])
    imported(store, tmp_path, [thumb("m1", 1)])
    again = imported(store, tmp_path, [thumb("m1", 1)])
    assert again.tally.num_ratings_added == 0 and again.tally.num_rows_there == 1
    imported(store, tmp_path, [thumb("m1", -1, at=1_790_000_090)])
    assert store.rewards(["chatcmpl-1"]) == {"chatcmpl-1": 0.0}
    assert len(store.query("select * from feedback")) == 2


def test_an_answer_without_a_thumb_stays_unrated_and_is_not_added_again(store, tmp_path):
    store.append([served("chatcmpl-1", message_id="m1")])
    report = imported(store, tmp_path, [thumb("m1", None)])
    assert store.count() == 1 and store.rewards(["chatcmpl-1"]) == {"chatcmpl-1": None}
    assert report.tally.is_balanced and report.tally.num_rows_there == 1


def test_a_store_that_served_nothing_takes_answers_as_samples_as_before(store, tmp_path):
    report = imported(store, tmp_path, [thumb("m1", 1)])
    assert not report.tally.num_joined
    assert store.sample("m1").reward == 1.0
