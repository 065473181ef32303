import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, reason_of, sample_of, written

from klimb.experience.importing import import_rows
from klimb.experience.store import Store

USE = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 2, "b": 2}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4"}]}


def logged(*blocks: Mapping[str, Any], request: Mapping[str, Any] = {}, **response: Any) -> dict[str, Any]:
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    return {
        "request": {"model": "m", "max_tokens": 9, "messages": QUESTION, **request},
        "response": {**answer, "content": list(blocks), **response},
    }


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_blocks_of_text_are_the_response(tmp_path: Path):
    row = {**logged(text("It is "), text("4."), request={"system": "Be brief."}), "reward": 1, "other": 2}
    report = import_rows(store := Store(tmp_path / "store"), written(tmp_path / "log.jsonl", [row]))
    assert report.kind == "anthropic"
    assert dict(report.tally.unread) == {"other": 1}
    (sample,) = store.samples()
    assert (sample.sample_id, sample.response, sample.reward) == ("msg_1", "It is 4.", 1)
    assert sample.finish_reason == "stop"
    assert sample.prompt == ({"role": "system", "content": "Be brief."}, *QUESTION)
    assert sample.log_mu_provenance == "absent"


def test_calls_and_results_are_openais_in_the_history():
    tools = [{"name": "add", "description": "adds", "input_schema": {"type": "object"}}]
    said = {"role": "assistant", "content": [text("I add."), USE]}
    asked = [*QUESTION, said, {"role": "user", "content": [RESULT, text("Well?")]}]
    sample = sample_of("anthropic", logged(text("4"), request={"messages": asked, "tools": tools}))
    function = {"name": "add", "arguments": {"a": 2, "b": 2}}
    assert sample.prompt[1:] == (
        {"role": "assistant", "content": "I add.", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "4", "name": "add"},
        {"role": "user", "content": "Well?"},
    )
    assert json.loads(sample.tools)[0]["function"]["parameters"] == {"type": "object"}


def test_a_call_is_a_turn():
    sample = sample_of("anthropic", logged(USE, stop_reason="tool_use"))
    assert [call.name for call in sample.turns[0].calls] == ["add"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (logged({"type": "thinking", "thinking": "t"}, text("4")), "thoughts kept apart from the response"),
        (logged(), "no response"),
        (
            logged({"type": "server_tool_use", "name": "web_search"}, text("4")),
            "response holds something else than text",
        ),
        (
            {**logged(text("4")), "response": {"type": "error", "error": {"message": "overloaded"}}},
            "the request failed",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(row: Mapping[str, Any], reason: str):
    assert reason_of("anthropic", row) == reason


def test_an_answer_that_was_cut_off_says_so():
    assert sample_of("anthropic", logged(text("4"), stop_reason="max_tokens")).finish_reason == "length"
    assert sample_of("anthropic", logged(text("4"), stop_reason="stop_sequence")).finish_reason == "unknown"


def test_an_answer_that_continues_the_last_message_is_refused():
    asked = [*QUESTION, {"role": "assistant", "content": "It is"}]
    assert (
        reason_of("anthropic", logged(text(" 4"), request={"messages": asked})) == "an answer that continues a message"
    )
