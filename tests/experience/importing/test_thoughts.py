import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.experience.importing.importing_rows import (
    QUESTION,
    as_row,
    openai_row,
    reason_of,
    sample_of,
    written,
)

from klimb.experience.importing import ImportRules, ParsedRow, Row, RowError, import_rows, importer_named
from klimb.experience.importing.registry import anonymise, convert_row, rename_columns
from klimb.experience.importing.thoughts import may_hold_thoughts, thoughts_of
from klimb.experience.reading.records import Columns
from klimb.experience.store import Store

APART = "thoughts kept apart from the response"
ANSWER = {"role": "assistant", "content": "7"}
BESIDE: list[dict[str, Any]] = [
    {"reasoning_content": "2, 3, 5, 7"},
    {"reasoning": "2, 3, 5, 7"},
    {"thinking": "2, 3, 5, 7"},
    {"thinking_blocks": [{"type": "thinking", "thinking": "2, 3", "signature": "s"}]},
    {"reasoning_details": [{"type": "reasoning.encrypted", "data": "0aF"}]},
    {"provider_specific_fields": {"reasoning_content": "2, 3"}},
    {"additional_kwargs": {"reasoning_content": "2, 3"}},
    {"content": [{"type": "thinking", "thinking": "2, 3"}, {"type": "text", "text": "7"}]},
    {"content": [{"type": "reasoning", "text": "2, 3"}, {"type": "text", "text": "7"}]},
    {"content": [{"type": "redacted_thinking", "data": "0aF"}, {"type": "text", "text": "7"}]},
    {"content": [{"text": "2, 3", "thought": True}, {"text": "7"}]},
]
PLACES = {
    "messages": lambda said: ("prompt-completion", {"messages": [*QUESTION, said]}),
    "completion": lambda said: ("prompt-completion", {"prompt": QUESTION, "completion": [said]}),
    "label": lambda said: ("kto", {"prompt": QUESTION, "completion": [said], "label": True}),
    "labelled messages": lambda said: ("kto", {"messages": [*QUESTION, said], "label": True}),
    "chosen": lambda said: ("preference", {"prompt": QUESTION, "chosen": [said], "rejected": [ANSWER]}),
    "rejected": lambda said: ("preference", {"chosen": [*QUESTION, ANSWER], "rejected": [*QUESTION, said]}),
    "preferred": lambda said: (
        "preference",
        {"input": {"messages": QUESTION}, "preferred_output": [said], "non_preferred_output": [ANSWER]},
    ),
    "response": lambda said: ("table", {"prompt": QUESTION, "response": [said]}),
    "responses": lambda said: (
        "verl",
        {"data_source": "s", "prompt": QUESTION, "reward_model": {}, "responses": [[said], [ANSWER]]},
    ),
    "choice": lambda said: ("openai", openai_row(choice={"message": said})),
    "output": lambda said: ("langfuse", {"id": "o", "traceId": "t", "input": QUESTION, "output": json.dumps(said)}),
    "rated turn": lambda said: ("prompt-completion", {"messages": [*QUESTION, {**said, "rating": 1}, *QUESTION]}),
}


def _renamed(values: Mapping[str, Any]) -> Row:
    return rename_columns(anonymise(as_row(values), ImportRules()), ImportRules())


@pytest.mark.parametrize("place", PLACES)
def test_thoughts_beside_an_answer_are_refused_wherever_it_stands(place: str):
    for beside in BESIDE:
        kind, row = PLACES[place]({**ANSWER, **beside})
        assert reason_of(kind, row) == APART, beside
    kind, row = PLACES[place]({**ANSWER, "reasoning_content": "", "thinking": None, "reasoning_details": []})
    assert reason_of(kind, row) == ""


def test_thoughts_in_the_text_itself_are_text():
    said = {"role": "assistant", "content": "<think>2, 3, 5</think>7"}
    assert sample_of("prompt-completion", {"messages": [*QUESTION, said]}).response == said["content"]


def test_thoughts_in_a_column_are_refused_and_a_switch_is_none():
    row = {"prompt": "a", "response": "7"}
    for name in ("reasoning_content", "thinking", "reasoning", "Complex_CoT", "thought_process"):
        assert reason_of("table", {**row, name: "2, 3, 5"}) == APART
    for value in ({"effort": "low", "summary": "auto"}, "on", True, None, ""):
        assert reason_of("table", {**row, "reasoning": value}) == ""


def test_a_judges_reasoning_beside_a_pair_is_nobodys_answer_and_is_named():
    row = rename_columns(
        as_row({"prompt": "a", "chosen": "7", "rejected": "8", "reasoning": "7 is prime"}), ImportRules()
    )
    assert len(convert_row(row, importer_named("preference").read, ImportRules(), kind="preference")) == 2
    assert isinstance(row.values, Columns)
    assert row.values.unread == ["reasoning"]


def test_a_kind_that_does_not_look_cannot_lose_thoughts_and_one_that_joins_them_keeps_them():
    def careless(row: Row, rules: ImportRules) -> list[ParsedRow]:
        said: Any = row.values["said"]
        return [ParsedRow(prompt=tuple(QUESTION), response=said["content"])]  # type: ignore[arg-type]

    def careful(row: Row, rules: ImportRules) -> list[ParsedRow]:
        said: Any = row.values["said"]
        joined = f"<think>{said['reasoning_content']}</think>{said['content']}"
        return [ParsedRow(prompt=tuple(QUESTION), response=joined)]  # type: ignore[arg-type]

    said = {"content": "7", "reasoning_content": "2, 3"}
    for cell in (said, json.dumps(said), [{"message": said}]):
        with pytest.raises(RowError, match=APART):
            convert_row(_renamed({"said": cell}), _first_of(careless), ImportRules(), kind="own")
    (sample,) = convert_row(_renamed({"said": said}), careful, ImportRules(), kind="own")
    assert sample.response == "<think>2, 3</think>7"  # type: ignore[union-attr]


def _first_of(read: Any) -> Any:
    """The same reader for cells that hold the message in other ways."""

    def unpacked(row: Row, rules: ImportRules) -> Any:
        cell: Any = row.values["said"]
        cell = json.loads(cell) if isinstance(cell, str) else cell
        cell = cell[0]["message"] if isinstance(cell, list) else cell
        return read(as_row({"said": cell}), rules)

    return unpacked


def test_thoughts_of_earlier_turns_are_left_out_of_the_prompt_and_named(tmp_path):
    past = [*QUESTION, {**ANSWER, "reasoning_content": "2, 3"}, *QUESTION, {**ANSWER, "content": "4"}]
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "past.jsonl", [{"messages": past}]))
    assert report.tally.num_samples == 1
    assert report.tally.unread == {"messages: thoughts of the history": 1}


def test_log_probs_given_thoughts_that_are_not_there_are_refused():
    call = {"role": "assistant", "content": None, "reasoning": "I add", "tool_calls": [{"function": {"name": "add"}}]}
    asked = [*QUESTION, call, {"role": "tool", "content": "4"}]
    logprobs = {"logprobs": {"content": [{"token": "4!", "logprob": -0.5, "bytes": [52, 33]}]}}
    row = openai_row(request={"messages": asked}, choice=logprobs)
    assert reason_of("openai", row) == "log-probabilities given thoughts that are kept apart"
    assert reason_of("openai", openai_row(request={"messages": asked})) == ""


def test_arguments_of_tools_and_settings_of_requests_are_no_thoughts():
    call = {"function": {"name": "think", "arguments": json.dumps({"thought": "add them", "reasoning": "sum"})}}
    asked = [*QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "ok"}]
    tools = [{"type": "function", "function": {"name": "think", "parameters": {"properties": {"thought": {}}}}}]
    request = {"messages": asked, "tools": tools, "reasoning": {"effort": "high"}, "thinking": {"type": "enabled"}}
    assert reason_of("openai", openai_row(request=request)) == ""


@pytest.mark.parametrize("name", ["images", "videos", "audios"])
def test_a_row_with_images_is_refused_in_every_kind(name: str):
    for kind, row in (
        ("table", {"prompt": "a", "response": "b"}),
        ("kto", {"prompt": "a", "completion": "b", "label": True}),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "c"}),
    ):
        assert reason_of(kind, {**row, name: ["a.png"]}) == f"a row with {name}"
        assert reason_of(kind, {**row, name: []}) == ""


def test_names_of_thoughts_are_told_from_their_settings():
    assert all(map(may_hold_thoughts, ("reasoning_content", "thinking", "Complex_CoT", "model_reasoning", "thoughts")))
    others = ("reasoning_effort", "thinking_budget", "finish_reason", "reasoning_tokens", "reason", "cotton")
    assert not any(map(may_hold_thoughts, others))
    assert thoughts_of({"role": "assistant", "content": "7", "reasoning": {"effort": "low"}}) == []


def test_thoughts_beside_a_choice_are_refused_as_those_in_its_message_are():
    assert reason_of("openai", openai_row(choice={"reasoning": "2, 3"})) == APART
    text = {"request": {"prompt": "a"}, "response": {"choices": [{"text": "7", "reasoning_content": "2, 3"}]}}
    assert reason_of("openai", text) == APART
    assert not reason_of("openai", openai_row(choice={"reasoning": None}))


def test_thoughts_of_one_answer_of_a_pair_are_refused_and_those_of_neither_are_named():
    pair = {"prompt": "a", "chosen": "7", "rejected": "8"}
    assert reason_of("preference", {**pair, "chosen_reasoning": "2, 3"}) == APART
    assert reason_of("preference", {**pair, "rejected_thinking": ["2, 3"]}) == APART
    assert not reason_of("preference", {**pair, "reasoning": "7 is a prime"})


def test_several_trajectories_of_thoughts_are_thoughts():
    assert reason_of("table", {"prompt": "a", "response": "7", "thinking_trajectories": ["2, 3"]}) == APART
