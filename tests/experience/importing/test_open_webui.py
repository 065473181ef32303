"""Open WebUI's feedback and chats: which message was rated, what was asked before it, and what a thumb is."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, reason_of, sample_of, samples_of, written

from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.rules import ImportRules
from klimb.experience.store import Store

EXPORTS = Path(__file__).parent / "exports"
FEEDBACK: list[dict[str, Any]] = json.loads((EXPORTS / "openwebui.json").read_text())
(CHAT,) = json.loads((EXPORTS / "openwebui_chats.json").read_text())


def message(name: str, role: str, content: Any, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "parentId": parent, "role": role, "content": content, "timestamp": 1_700_000_000, **more}


def feedback(*messages: dict[str, Any], of: str = "a2", params: Any = None, **data: Any) -> dict[str, Any]:
    """A rating of the message `of`; the thumb is up unless `data` says otherwise."""
    chat = {"params": params or {}, "history": {"messages": {each["id"]: each for each in messages}}}
    return {
        "id": "f-1",
        "user_id": "u-1",
        "type": "rating",
        "data": {"rating": 1, "model_id": "m", **data},
        "meta": {"message_id": of, "chat_id": "c-1"},
        "snapshot": {"chat": {"id": "c-1", "chat": chat}},
        "updated_at": 1_700_000_100,
    }


TURNS = (
    message("q1", "user", "2 + 2?"),
    message("a1", "assistant", "4", "q1", model="m"),
    message("other", "assistant", "5", "q1", model="n"),
    message("q2", "user", "And 3 + 3?", "a1"),
    message("a2", "assistant", "6", "q2", model="m"),
)


def test_the_exported_thumbs_are_1_and_0_of_two_answers_to_one_question():
    up, down = (sample_of("open-webui", row) for row in FEEDBACK)
    assert [(each.response, each.reward, each.model, each.sample_id) for each in (up, down)] == [
        ("Jupiter is the largest planet.", 1.0, "stub-a", "m2"),
        ("Saturn, because of the rings.", 0.0, "stub-b", "m3"),
    ]
    assert up.prompt == down.prompt == ({"role": "user", "content": "Which planet is the largest?"},)
    assert up.group_id == down.group_id
    assert up.reward_reason == "accurate_information; right and short; tags: astronomy"
    assert FEEDBACK[0]["user_id"] not in repr(up)
    assert guess_importer(as_row(FEEDBACK[0])).name == "open-webui"


def test_a_chat_gives_each_of_its_answers_and_the_same_samples_as_its_feedback():
    of_chat, of_feedback = samples_of("open-webui", CHAT), [sample_of("open-webui", row) for row in FEEDBACK]
    assert [(each.sample_id, each.reward) for each in of_chat] == [("m2", 1.0), ("m3", 0.0)]
    for one, other in zip(of_chat, of_feedback, strict=True):
        assert (one.prompt, one.response, one.metadata) == (other.prompt, other.response, other.metadata)
    assert guess_importer(as_row(CHAT)).name == "open-webui"


def test_the_history_of_a_rated_answer_is_its_own_line_without_the_answers_beside_it():
    sample = sample_of("open-webui", feedback(*TURNS))
    assert [(each["role"], each["content"]) for each in sample.prompt] == [
        ("user", "2 + 2?"),
        ("assistant", "4"),
        ("user", "And 3 + 3?"),
    ]
    assert (sample.response, sample.created_at) == ("6", 1_700_000_100)


def test_the_system_prompt_of_a_chat_is_asked_first():
    sample = sample_of("open-webui", feedback(*TURNS, of="a1", params={"system": "Be short."}))
    assert sample.prompt[0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("stated", "reward"), [(1, 1.0), (-1, 0.0), ("1", 1.0), ("-1", 0.0), (None, None), ("", None), (0, None)]
)
def test_a_thumb_is_1_or_0_and_one_that_was_taken_back_is_none(stated: object, reward: float | None):
    assert sample_of("open-webui", feedback(*TURNS, rating=stated)).reward == reward


def test_answers_that_nobody_rated_come_in_unrated():
    rated = {**TURNS[4], "annotation": {"rating": -1, "comment": "No."}}
    chat = {"id": "c", "chat": {"history": {"messages": {each["id"]: each for each in (*TURNS[:4], rated)}}}}
    assert [(each.sample_id, each.reward) for each in samples_of("open-webui", chat)] == [
        ("a1", None),
        ("other", None),
        ("a2", 0.0),
    ]


def test_the_number_beside_the_thumb_is_read_when_it_is_asked_for_on_its_own_scale():
    row = feedback(*TURNS, details={"rating": 10})
    assert sample_of("open-webui", row, score_name="details.rating").reward == 1.0
    assert sample_of("open-webui", feedback(*TURNS), score_name="details.rating").reward is None
    assert reason_of("open-webui", row, score_name="helpful") == "no rating of that name"
    assert reason_of("open-webui", row, scale=(1, 10)) == "a thumb on another scale"
    assert sample_of("open-webui", feedback(*TURNS, rating=-1), scale=(-1, 1)).reward == 0.0


def test_in_an_arena_the_model_is_the_one_that_answered_and_the_thumb_is_of_its_answer_alone():
    arena = message("a", "assistant", "4", "q1", model="arena-model", selectedModelId="m-7", arena=True)
    row = feedback(TURNS[0], arena, of="a", rating=-1, sibling_model_ids=["m-8"])
    (sample,) = samples_of("open-webui", row)
    assert (sample.model, sample.reward, sample.metadata["arena"]) == ("m-7", 0.0, "true")


THOUGHTS = '<details type="reasoning" done="true" duration="2">\n<summary>Thought</summary>\n> hm\n</details>\n6'


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "a rating without its chat"),
        (TURNS[:4], "a rating of a message that is not in its chat"),
        (TURNS[1:], "a chat of which a message is missing"),
        ([*TURNS[1:], {**TURNS[0], "parentId": "a2"}], "a chat whose messages lead in a circle"),
        ([*TURNS[:4], {**TURNS[4], "role": "user"}], "a rating of a message that is no answer"),
        ([*TURNS[:4], {**TURNS[4], "content": THOUGHTS}], "thoughts kept apart from the response"),
        ([*TURNS[:4], {**TURNS[4], "output": [{"type": "reasoning"}]}], "thoughts kept apart from the response"),
        ([*TURNS[:4], {**TURNS[4], "content": '<details type="tool_calls" name="f">x</details>6'}],
         "an answer with calls that are not as they were drawn"),
        ([TURNS[0], {**TURNS[1], "content": THOUGHTS}, *TURNS[3:]], "thoughts kept apart from the response"),
        ([*TURNS[:3], {**TURNS[3], "files": [{"type": "image"}]}, TURNS[4]], "a message with files"),
        ([*TURNS[:4], {**TURNS[4], "sources": [{"source": {}}]}], "a message with files"),
        ([*TURNS[:4], {**TURNS[4], "error": {"content": "busy"}}], "the request failed"),
        ([*TURNS[:4], {**TURNS[4], "done": False}], "an answer that was not finished"),
        ([*TURNS[:4], {**TURNS[4], "originalContent": "7"}], "an answer that a person edited"),
        ([*TURNS[:4], {**TURNS[4], "content": ""}], "no response"),
        ([*TURNS[:4], {**TURNS[4], "content": None}], "the answer is not text"),
        ([{**TURNS[4], "parentId": None}], "no prompt"),
        ([*TURNS[:4], {**TURNS[4], "parentId": ["q2"]}], "an id that is neither text nor a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(messages: Any, reason: str):
    assert reason_of("open-webui", feedback(*messages)) == reason


@pytest.mark.parametrize("name", ["id", "user_id", "type", "data", "meta", "snapshot", "updated_at"])
@pytest.mark.parametrize("value", [None, [], {}, "x", 3])
def test_no_field_that_is_something_else_ends_in_a_traceback(name: str, value: object):
    row = {**feedback(*TURNS), name: value}
    reason_of("open-webui", row)
    chat = copy.deepcopy(CHAT)
    chat["chat"][{"data": "history", "meta": "messages"}.get(name, "params")] = value
    reason_of("open-webui", chat)


def test_answers_of_a_chat_that_cannot_be_read_are_left_out_and_named(tmp_path: Path):
    spoken = [*TURNS[:2], {**TURNS[2], "content": THOUGHTS}, {**TURNS[3], "parentId": "gone"}, TURNS[4]]
    chat = {"id": "c", "chat": {"history": {"messages": {each["id"]: each for each in spoken}}}}
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "chats.jsonl", [chat]))
    assert (report.tally.num_added, report.num_rejected) == (1, 0)
    left_out = {name for name in report.tally.unread if name.startswith("answers of a chat: ")}
    assert left_out == {
        "answers of a chat: thoughts kept apart from the response",
        "answers of a chat: a chat of which a message is missing",
    }
    chat["chat"]["history"]["messages"]["a1"] = {**TURNS[1], "error": "busy"}
    assert reason_of("open-webui", chat) == "the request failed"


def test_other_feedback_and_thumbs_that_are_none_are_refused():
    assert reason_of("open-webui", {**feedback(*TURNS), "type": "comment"}) == "feedback that is no rating"
    for thumb in (2, True, "up", [1]):
        assert reason_of("open-webui", feedback(*TURNS, rating=thumb)) == "a rating that is no thumb"
    assert reason_of("open-webui", {"id": "c", "chat": {"history": {"messages": {}}}}) == "a chat without an answer"


def test_a_file_of_feedback_is_guessed_imported_and_imported_again_without_effect(tmp_path: Path):
    store = Store(tmp_path / "store")
    report = import_rows(store, EXPORTS / "openwebui.json", rules=ImportRules(now=2e9))
    assert (report.kind, report.tally.num_rows, report.tally.num_added, report.num_rejected) == ("open-webui", 2, 2, 0)
    assert {each.sample_id: each.reward for each in store.samples()} == {"m2": 1.0, "m3": 0.0}
    again = import_rows(store, EXPORTS / "openwebui.json", rules=ImportRules(now=2e9))
    assert (again.tally.num_added, again.num_rejected) == (0, 0)


def test_the_later_of_two_thumbs_counts_in_whichever_order_they_come(tmp_path: Path):
    rows = [{**feedback(*TURNS), "updated_at": 1_700_000_900}, feedback(*TURNS, rating=-1)]
    for name, given in (("forth", rows), ("back", rows[::-1])):
        store = Store(tmp_path / name)
        report = import_rows(store, written(tmp_path / f"{name}.jsonl", given))
        assert report.num_rejected == 0
        assert [each.reward for each in store.samples()] == [1.0]


def test_a_chat_that_changed_after_a_thumb_says_what_it_is_now(tmp_path: Path):
    now = {**TURNS[4], "annotation": {"rating": -1}}
    nodes = {each["id"]: each for each in (*TURNS[:4], now)}
    for updated_at, reward in ((1_700_000_900, 0.0), (1_700_000_050, 1.0)):
        chat = {"id": "c-1", "user_id": "u-1", "chat": {"history": {"messages": nodes}}, "updated_at": updated_at}
        store = Store(tmp_path / str(updated_at))
        import_rows(store, written(tmp_path / "feedback.jsonl", [feedback(*TURNS)]))
        import_rows(store, written(tmp_path / "chats.jsonl", [chat]))
        assert {each.sample_id: each.reward for each in store.samples()} == {"a1": None, "other": None, "a2": reward}
