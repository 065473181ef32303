"""Argilla's records: only what was submitted is a rating, and each question rates a thing of its own."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, made_of, reason_of, written

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.rules import ImportRules
from klimb.experience.store import Store


def flat(values: Any = (4, 2), status: Any = ("submitted", "submitted"), *, name: str = "quality", **more: Any) -> Any:
    return {
        "id": "rec-1",
        "status": "completed",
        "_server_id": "s-1",
        "prompt": "2 + 2?",
        "response": "4",
        f"{name}.responses": list(values),
        f"{name}.responses.users": [f"u-{place}" for place in range(len(values))],
        f"{name}.responses.status": list(status),
        f"{name}.suggestion": 5,
        f"{name}.suggestion.score": 0.9,
        f"{name}.suggestion.agent": "a-model",
        **more,
    }


OLDER = {
    "prompt": "2 + 2?",
    "response": "4",
    "quality": [
        {"user_id": "u-1", "value": 5, "status": "submitted"},
        {"user_id": "u-2", "value": 1, "status": "discarded"},
    ],
    "quality-suggestion": 3,
    "quality-suggestion-metadata": {"agent": "a-model"},
    "external_id": "rec-9",
    "metadata": '{"model": "m-1", "topic": "sums"}',
}


def split(row: dict[str, Any], **rules: Any) -> tuple[Sample, list[Feedback]]:
    sample, *ratings = made_of("argilla", row, **rules)
    assert isinstance(sample, Sample)
    return sample, [each for each in ratings if isinstance(each, Feedback)]


def test_each_submitted_response_is_a_rating_of_the_record():
    sample, ratings = split(flat(), scale=(1, 5))
    assert (sample.prompt, sample.response) == (({"role": "user", "content": "2 + 2?"},), "4")
    assert (sample.sample_id, sample.reward) == ("rec-1", None)
    assert [(rating.name, rating.value) for rating in ratings] == [("quality", 0.75), ("quality", 0.25)]
    assert len({rating.user for rating in ratings}) == 2 == len({rating.feedback_id for rating in ratings})


def test_users_of_responses_are_hashed_in_the_row_that_is_kept_too():
    row = flat(quality_label="u-0")
    sample, ratings = split(row, scale=(1, 5))
    assert '"u-1"' not in sample.raw
    assert '"u-1"' not in ratings[1].raw and ratings[1].user != "u-1"
    assert split(row, scale=(1, 5), keep_users=True)[1][1].user == "u-1"


def test_drafts_discarded_responses_and_suggestions_are_no_ratings():
    assert split(flat(status=("draft", "discarded")))[1] == []
    (rating,) = split(flat(status=("draft", "submitted")), scale=(1, 5))[1]
    assert rating.value == 0.25
    without = {name: value for name, value in flat().items() if "responses" not in name}
    assert split({**without, "quality.responses": None, "quality.responses.users": None})[1] == []


def test_responses_that_do_not_say_whether_they_were_submitted_are_refused():
    nested = {
        "id": "rec-1",
        "fields": {"prompt": "2 + 2?", "response": "4"},
        "metadata": {"model": "m-1"},
        "suggestions": {"quality": {"value": 5, "score": None, "agent": None}},
        "responses": {"quality": [{"value": 4, "user_id": "u-1"}]},
    }
    assert guess_importer(as_row(nested)).name == "argilla"
    assert reason_of("argilla", nested) == "responses that do not say whether they were submitted"
    sample, ratings = split({**nested, "responses": {}})
    assert (sample.response, sample.model, ratings) == ("4", "m-1", [])
    stated = {**nested, "responses": {"quality": [{"value": 4, "user_id": "u-1", "status": "submitted"}]}}
    assert [rating.value for rating in split(stated, scale=(1, 5))[1]] == [0.75]


def test_rows_of_argilla_1_have_their_responses_in_the_question():
    assert guess_importer(as_row(OLDER)).name == "argilla"
    sample, (rating,) = split(OLDER, scale=(1, 5))
    assert (sample.sample_id, sample.model, sample.metadata["topic"]) == ("rec-9", "m-1", "sums")
    assert (rating.name, rating.value) == ("quality", 1.0)


def test_several_questions_rate_several_things_and_labels_need_a_map():
    row = {**flat(), **flat(["fine", "so-so"], name="verdict")}
    assert reason_of("argilla", row, scale=(1, 5)) == "ratings of several things"
    _, ratings = split(row, score_name="verdict", value_map={"fine": 1.0, "so-so": 0.0})
    assert [rating.value for rating in ratings] == [1.0, 0.0]
    assert reason_of("argilla", row, score_name="verdict") == "a rating that is text"


def test_cells_of_csv_are_lists_as_json():
    row = {name: json.dumps(value) if isinstance(value, list) else value for name, value in flat().items()}
    sample, *ratings = made_of("argilla", row, is_text=True, scale=(1, 5))
    assert isinstance(sample, Sample) and len(ratings) == 2


def test_a_field_of_chat_is_the_conversation_before_the_answer():
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    sample, _ = split(flat(chat=chat), scale=(1, 5))
    assert [each["content"] for each in sample.prompt] == ["Hi", "Hello", "2 + 2?"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (flat(), "a rating without a scale"),
        (flat((1, 1)), "a rating without a scale"),
        (flat((), (), prompt=None), "no prompt"),
        (flat((), (), response=""), "no response"),
        (flat(status=("submitted",)), "responses of another number than their users"),
        (flat(status=(None, None)), "responses that do not say whether they were submitted"),
        (flat(([{"rank": 1, "value": "a"}],), ("submitted",)), "the rating is not a number"),
        (flat((), (), instruction="3 + 3?"), "several fields of the record that may be one"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(row: Any, reason: str):
    assert reason_of("argilla", row) == reason


@pytest.mark.parametrize("value", [None, [], {}, "x", 3, [None], [[]], [{"user_id": 1}]])
def test_no_column_that_is_something_else_ends_in_a_traceback(value: object):
    for name in flat():
        reason_of("argilla", {**flat(), name: value}, scale=(1, 5))
    for name in OLDER:
        reason_of("argilla", {**OLDER, name: value}, scale=(1, 5))
    for name in ("fields", "responses", "suggestions", "metadata"):
        reason_of("argilla", {"fields": {}, "responses": {}, "suggestions": {}, name: value})


def test_one_mind_changed_is_another_rating_and_the_later_counts(tmp_path: Path):
    store = Store(tmp_path / "store")
    for name, values in (("one", (4, 2)), ("two", (4, 4))):
        path = written(tmp_path / f"{name}.jsonl", [flat(values)])
        import_rows(store, path, rules=ImportRules(scale=(1, 5), salt=b"s"))
    assert [each.reward for each in store.samples()] == [0.75]
