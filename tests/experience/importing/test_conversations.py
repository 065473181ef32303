"""Conversations in plain form: what is asked, what is the policy's, and what stands between."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, openai_row, reason_of, sample_of, samples_of, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.store import Store

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
PLAIN_CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
TALK = [
    {"role": "system", "content": "Short."},
    {"role": "user", "content": "2 and 3?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "5"},
    {"role": "assistant", "content": "Five"},
    {"role": "user", "content": "Twice?"},
    {"role": "assistant", "content": "Ten"},
]
ROW = {"messages": TALK, "tools": TOOLS, "reward": 0.5}


def test_the_last_message_is_the_response_and_calls_stay_in_the_prompt():
    sample = sample_of("prompt-completion", ROW)
    assert (sample.response, sample.turns, sample.reward) == ("Ten", (), 0.5)
    assert sample.prompt[2:4] == (
        {"role": "assistant", "content": "", "tool_calls": [PLAIN_CALL]},
        {"role": "tool", "content": "5", "name": "add"},
    )
    assert json.loads(sample.tools) == TOOLS


def test_with_turns_all_that_the_assistant_says_behind_the_first_question_is_drawn():
    sample = sample_of("prompt-completion", ROW, turns=True)
    assert [message["role"] for message in sample.prompt] == ["system", "user"]
    assert [(turn.role, turn.text, turn.name) for turn in sample.turns] == [
        ("assistant", "", ""),
        ("tool", "5", "add"),
        ("assistant", "Five", ""),
        ("user", "Twice?", ""),
        ("assistant", "Ten", ""),
    ]
    assert sample.turns[0].calls[0].arguments == '{"a": 2}'
    assert (sample.response, sample.response_ids, sample.log_mu) == ("\n\nFive\n\nTen", (), None)


def test_a_greeting_and_leading_turns_of_weight_0_belong_to_the_prompt():
    greeting = [{"role": "assistant", "content": "Hi"}, *TALK[1:2]]
    weighed = [*greeting, {"role": "assistant", "content": "no", "weight": 0}, *TALK[5:]]
    sample = sample_of("prompt-completion", {"messages": weighed}, turns=True)
    assert [message["content"] for message in sample.prompt] == ["Hi", "2 and 3?", "no", "Twice?"]
    assert sample.response == "Ten"
    between = [*TALK[:5], TALK[5], {**TALK[6], "weight": 0}, TALK[5], TALK[6]]
    assert "weight 0 among others" in reason_of("prompt-completion", {"messages": between}, turns=True)


def test_a_completion_of_several_messages_has_turns_without_being_asked():
    sample = sample_of("prompt-completion", {"prompt": TALK[:2], "completion": TALK[2:], "tools": json.dumps(TOOLS)})
    whole = sample_of("prompt-completion", ROW, turns=True)
    assert (sample.prompt, sample.turns, sample.tools) == (whole.prompt, whole.turns, whole.tools)
    assert sample.group_id == whole.group_id


def test_prompts_that_differ_in_calls_or_tools_are_of_different_groups():
    other = json.loads(json.dumps(ROW).replace('\\"a\\": 2', '\\"a\\": 3'))
    groups = {sample_of("prompt-completion", row).group_id for row in (ROW, other, {**ROW, "tools": []})}
    assert len(groups) == 3


def test_chosen_and_rejected_conversations_have_one_prompt_and_turns_of_their_own():
    row = {"chosen": TALK, "rejected": [*TALK[:2], {"role": "assistant", "content": "Six"}]}
    chosen, rejected = samples_of("preference", row, turns=True)
    assert chosen.prompt == rejected.prompt and chosen.group_id == rejected.group_id
    assert (len(chosen.turns), rejected.turns, rejected.response) == (5, (), "Six")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (TALK[:2], "messages do not end with the assistant"),
        ([*TALK[:6], {**TALK[6], "reasoning_content": "hm"}], "thoughts kept apart from the response"),
        (
            json.loads(json.dumps(TALK).replace('{\\"a\\": 2}', "a=2")),
            "messages has a tool call whose arguments are no JSON object",
        ),
        ([{**TALK[1], "tool_calls": [CALL]}, *TALK[6:]], "messages has a tool call of another than the assistant"),
    ],
)
def test_a_conversation_that_does_not_say_what_was_drawn_is_rejected(messages: list[Any], reason: str):
    assert reason_of("prompt-completion", {"messages": messages}, turns=True) == reason


def test_a_requests_tools_and_the_calls_in_its_history_are_kept():
    row = openai_row(request={"messages": TALK[:6], "tools": TOOLS})
    sample = sample_of("openai", row)
    assert sample.prompt[2].get("tool_calls") == [PLAIN_CALL] and json.loads(sample.tools) == TOOLS
    older = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}}
    history = [QUESTION[0], older, {"role": "function", "name": "add", "content": "5"}]
    prompt = sample_of("openai", openai_row(request={"messages": history})).prompt
    assert prompt[1].get("tool_calls") == [{"type": "function", "function": {"name": "add", "arguments": {}}}]
    assert prompt[2] == {"role": "tool", "content": "5", "name": "add"}


def test_a_response_that_calls_is_one_turn_with_its_calls():
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    sample = sample_of("openai", openai_row(choice=choice))
    (turn,) = sample.turns
    assert (turn.text, turn.calls[0].name, turn.finish_reason, sample.finish_reason) == ("", "add", "stop", "stop")


def test_a_servers_call_with_token_ids_has_the_text_that_they_spell():
    choice = {"message": {"content": None, "tool_calls": [CALL]}, "token_ids": [5, 2]}
    sample = sample_of("vllm", openai_row(choice=choice), decode=lambda ids: "<call>add</call>")
    assert (sample.response, sample.drawn_ids, sample.turns[0].num_tokens) == ("<call>add</call>", (5, 2), 2)
    assert reason_of("vllm", openai_row(choice=choice)) == "a turn whose text as it was drawn is not recorded"


def test_langfuses_tools_and_calls_are_kept():
    row = {
        "id": "o",
        "traceId": "t",
        "input": json.dumps({"messages": TALK[:4], "tools": TOOLS}),
        "output": json.dumps({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    }
    sample = sample_of("langfuse", row)
    assert sample.prompt[3] == {"role": "tool", "content": "5", "name": "add"}
    assert sample.turns[0].calls[0].name == "add" and json.loads(sample.tools) == TOOLS


def test_a_model_gives_turns_their_tokens_and_what_it_cannot_render_stays_text_with_a_note():
    def encode(sample):
        turns = tuple(replace(turn, num_tokens=1) for turn in sample.turns)
        return [replace(sample, response_ids=(1, 2, 3, 4, 5), turns=turns)]

    def refuse(sample):
        raise ValueError("the template refuses it")

    assert sample_of("prompt-completion", ROW, turns=True, encode=encode).drawn_ids == (1, 3, 5)
    assert reason_of("prompt-completion", ROW, turns=True, encode=encode, max_tokens=4) == "too many tokens"
    kept = sample_of("prompt-completion", ROW, turns=True, encode=refuse)
    assert kept.response_ids == () and kept.metadata["turns_note"].endswith("the template refuses it")


def test_a_conversation_that_is_imported_twice_is_one_sample_and_with_turns_or_without_a_conflict(tmp_path):
    path, store = written(tmp_path / "talks.jsonl", [ROW, ROW]), Store(tmp_path / "store")
    first = import_rows(store, path, rules=ImportRules(turns=True))
    again = import_rows(store, path, rules=ImportRules(turns=True))
    assert (first.tally.num_added, first.tally.num_duplicates, again.tally.num_added) == (1, 1, 0)
    (sample,) = store.samples()
    assert sample.turns == sample_of("prompt-completion", ROW, turns=True).turns
    assert import_rows(store, path).tally.num_conflicts > 0
    assert store.count() == 1
