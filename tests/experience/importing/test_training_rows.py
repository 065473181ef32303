"""Rows that people train from: labels, pairs, weights, rewards, as the tools around write them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.experience.importing.importing_rows import (
    QUESTION,
    as_row,
    made_of,
    reason_of,
    sample_of,
    samples_of,
    written,
)

from klimb.experience.importing import ImportRules, ParsedRow, guess_importer, import_rows, importer_named
from klimb.experience.store import Store

ANSWER = {"role": "assistant", "content": "4"}
OTHER = {"role": "assistant", "content": "5"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def guessed(row: dict[str, Any]) -> str:
    return guess_importer(as_row(row)).name


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*QUESTION, OTHER], "label": False},
        {"messages": [*QUESTION, OTHER], "kto_tag": False},
        {"prompt": "2 + 2?", "response": "5", "label": False},
        {"question": "2 + 2?", "completion": "5", "label": 0.0},
        {"query": "2 + 2?", "response": "5", "label": False, "history": []},
        {"messages": [*QUESTION, OTHER], "label": None, "rating": 0},
        {"messages": [*QUESTION, OTHER], "thumbs": "Thumbs down"},
        {"prompt": "2 + 2?", "completion": "5", "rating": "\N{THUMBS DOWN SIGN}"},
    ],
)
def test_a_label_beside_an_answer_is_its_rating(row: dict[str, Any]):
    assert guessed(row) == "kto"
    sample = sample_of("kto", row)
    assert (sample.prompt, sample.response, sample.reward) == (tuple(QUESTION), "5", 0.0)


def test_a_label_of_text_is_no_rating_without_a_map_and_a_reward_comes_first():
    row = {"messages": [*QUESTION, ANSWER], "label": "maybe"}
    assert reason_of("kto", row) == "a rating that is text"
    assert sample_of("kto", {**row, "label": "spam"}, value_map={"spam": 0.0}).reward == 0.0
    assert guessed({"prompt": "a", "completion": "b", "reward": 0.5, "label": 1}) == "prompt-completion"


def test_a_list_of_labels_is_no_rating_of_an_answer():
    row = {"messages": QUESTION, "label": [1, 3]}
    assert reason_of("kto", row) == "messages do not end with the assistant"


PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "question": {"question": "2 + 2?", "chosen": "4", "rejected": "5"},
    "messages": {"prompt": QUESTION, "chosen": [ANSWER], "rejected": [OTHER]},
    "one message": {"prompt": QUESTION, "chosen": ANSWER, "rejected": {"from": "gpt", "value": "5"}},
    "dialogues": {"chosen": [*QUESTION, ANSWER], "rejected": [*QUESTION, OTHER]},
    "prompt and dialogues": {"prompt": "2 + 2?", "chosen": [*QUESTION, ANSWER], "rejected": [*QUESTION, OTHER]},
    "messages and dialogues": {"prompt": QUESTION, "chosen": [*QUESTION, ANSWER], "rejected": [*QUESTION, OTHER]},
    "human and assistant": {
        "chosen": "\n\nHuman: 2 + 2?\n\nAssistant: 4",
        "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: 5",
    },
    "human's prompt": {"prompt": "\n\nHuman: 2 + 2?\n\nAssistant:", "chosen": " 4", "rejected": " 5"},
    "instruction": {
        "instruction": "2 + 2?",
        "input": "",
        "chosen": [*QUESTION, ANSWER],
        "rejected": [*QUESTION, OTHER],
    },
    "input": {"system": "", "input": "2 + 2?", "chosen": "4", "rejected": "5"},
    "rejected response": {"messages": [*QUESTION, ANSWER], "rejected_response": "5"},
    "rejected messages": {"messages": [*QUESTION, ANSWER], "rejected_messages": [*QUESTION, OTHER]},
    "rejected message": {"messages": [*QUESTION, ANSWER], "rejected_response": [OTHER]},
    "openai": {
        "input": {"messages": QUESTION, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [ANSWER],
        "non_preferred_output": [OTHER],
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_every_form_is_the_same_two_samples(name: str):
    assert guessed(PAIRS[name]) == "preference"
    chosen, rejected = samples_of("preference", PAIRS[name])
    assert [(each.response, each.reward) for each in (chosen, rejected)] == [("4", 1.0), ("5", 0.0)]
    assert chosen.prompt == rejected.prompt == tuple(QUESTION)
    assert chosen.group_id == samples_of("preference", PAIRS["texts"])[0].group_id


def test_columns_beside_a_pair_are_named_as_not_read(tmp_path: Path):
    row = {**PAIRS["prompt and dialogues"], "score_chosen": 8.0, "score_rejected": 2.0, "prompt_id": "p"}
    report = import_rows(Store(tmp_path / "store"), written(tmp_path / "ultra.jsonl", [row]))
    assert report.tally.unread == {"score_chosen": 1, "score_rejected": 1, "prompt_id": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PAIRS["prompt and dialogues"], "prompt": "3 + 3?"}, "a dialogue beside another prompt"),
        ({"chosen": "4", "rejected": "5"}, "no prompt"),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": None}, "a pair with one response"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
            "chosen and rejected answer different prompts",
        ),
        (
            {"messages": [*QUESTION, ANSWER], "rejected_messages": [{"role": "user", "content": "x"}, OTHER]},
            "chosen and rejected answer different prompts",
        ),
        ({"messages": [*QUESTION, ANSWER], "rejected_response": None}, "a pair with one response"),
        ({"messages": QUESTION, "rejected_response": "5"}, "messages do not end with the assistant"),
    ],
)
def test_a_pair_that_does_not_say_what_was_asked_is_refused(row: dict[str, Any], reason: str):
    assert reason_of("preference", row) == reason


def test_a_long_human_assistant_text_keeps_its_turns_and_its_spaces():
    asked = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nMore.\n\nHuman: So?\n\nAssistant:"
    chosen, _ = samples_of("preference", {"chosen": f"{asked}  Yes\n", "rejected": f"{asked} No"})
    assert [(each["role"], each["content"]) for each in chosen.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello.\n\nMore."),
        ("user", "So?"),
    ]
    assert chosen.response == " Yes\n"


def test_system_and_history_columns_belong_to_the_prompt():
    row = {"system": "Be short.", "query": "2 + 2?", "history": [["1 + 1?", "2"]], "response": "4", "label": True}
    assert [each["content"] for each in sample_of("kto", row).prompt] == ["Be short.", "1 + 1?", "2", "2 + 2?"]
    pair = {"system": "Be short.", "question": "2 + 2?", "chosen": "4", "rejected": "5"}
    assert samples_of("preference", pair)[1].prompt[0] == {"role": "system", "content": "Be short."}
    told = [{"role": "system", "content": "Be long."}, *QUESTION, ANSWER]
    assert reason_of("kto", {"system": "Be short.", "messages": told, "label": True}) == "two system messages"
    assert reason_of("kto", {**row, "history": "once"}) == "a history that is no list"


def test_tools_beside_rows_are_kept_as_text_or_list():
    for tools in (TOOLS, json.dumps(TOOLS)):
        for kind, row in (
            ("kto", {"messages": [*QUESTION, ANSWER], "label": True}),
            ("preference", PAIRS["rejected response"]),
            ("prompt-completion", {"messages": [*QUESTION, ANSWER]}),
        ):
            assert json.loads(samples_of(kind, {**row, "tools": tools})[0].tools) == TOOLS
    row = {**PAIRS["openai"], "input": {"messages": QUESTION, "tools": TOOLS}}
    assert json.loads(samples_of("preference", row)[0].tools) == TOOLS


def test_how_the_prompt_was_rendered_is_handed_on_as_a_requests_settings():
    for kind, row in (
        ("kto", {"messages": [*QUESTION, ANSWER], "label": True}),
        ("preference", PAIRS["texts"]),
        ("prompt-completion", {"prompt": "a", "completion": "b"}),
    ):
        stated = as_row({**row, "chat_template_kwargs": {"enable_thinking": False}})
        parts = importer_named(kind).read(stated, ImportRules())
        assert all(isinstance(each, ParsedRow) for each in parts)
        assert {json.dumps(each.request) for each in parts if isinstance(each, ParsedRow)} == {
            '{"chat_template_kwargs": {"enable_thinking": false}}'
        }


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": False}])
def test_a_turn_that_is_none_to_learn_from_is_context_and_no_answer(mark: dict[str, Any]):
    talk = [*QUESTION, ANSWER, *QUESTION, {**OTHER, **mark}]
    sample = sample_of("prompt-completion", {"messages": talk})
    assert (sample.prompt, sample.response) == (tuple(QUESTION), "4")
    assert reason_of("prompt-completion", {"messages": [*QUESTION, {**OTHER, **mark}]}) == "no turn to learn from"
    assert reason_of("kto", {"prompt": "a", "completion": [{**OTHER, **mark}], "label": True}) == (
        "completion has a turn of weight 0"
    )
    first = [*QUESTION, {**OTHER, **mark}, *QUESTION, {**ANSWER, **{name: 1 for name in mark}}]
    assert sample_of("prompt-completion", {"messages": first}).response == "4"


def test_a_weight_between_and_a_part_of_a_message_are_refused():
    for mark in ({"weight": 0.5}, {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}):
        reason = reason_of("prompt-completion", {"messages": [*QUESTION, {**ANSWER, **mark}]})
        assert reason in (
            "a weight of a message that is neither 0 nor 1",
            "a message of which a part is to be learnt",
        )


def test_rewards_beside_messages_and_completions_are_read():
    for row in ({"messages": [*QUESTION, ANSWER]}, {"prompt": "2 + 2?", "completion": "4"}):
        assert sample_of("prompt-completion", {**row, "reward": 0.25}).reward == 0.25


@pytest.mark.parametrize("text", ['{"a": 1}', "[1, 2]", '["x"]', "[]", "{}", '{"role": "admin"}', "[2] and {3}"])
def test_an_answer_that_is_json_is_text_in_csv_and_in_json(text: str):
    for is_text in (True, False):
        for kind, row in (
            ("table", {"prompt": "a", "response": text}),
            ("kto", {"prompt": "a", "completion": text, "label": "1" if is_text else 1}),
            ("prompt-completion", {"prompt": text, "completion": text}),
            ("preference", {"prompt": "a", "chosen": text, "rejected": "b"}),
            ("verl", {"data_source": "s", "prompt": text, "reward_model": "", "response": text}),
        ):
            made = made_of(kind, row, is_text=is_text)
            if '"role"' not in text:
                assert made[0].response == text  # type: ignore[union-attr]


def test_messages_in_a_cell_of_csv_are_messages_also_as_python_writes_them():
    as_json = {"prompt": json.dumps(QUESTION), "completion": json.dumps([ANSWER]), "label": "true"}
    as_python = {"prompt": repr(QUESTION), "completion": repr([ANSWER]), "label": "True"}
    for row in (as_json, as_python):
        (sample,) = made_of("kto", row, is_text=True)
        assert (sample.prompt, sample.response) == (tuple(QUESTION), "4")  # type: ignore[union-attr]
    for text in (json.dumps([*QUESTION, ANSWER]), repr([*QUESTION, ANSWER])):
        for kind in ("kto", "prompt-completion"):
            assert made_of(kind, {"messages": text, "label": "1"}, is_text=True)[0].response == "4"  # type: ignore[union-attr]
    array = {"prompt": "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]", "completion": "c"}
    assert reason_of("prompt-completion", array, is_text=True) == "messages that are no JSON"


def test_an_answer_that_is_python_is_text_in_csv():
    for text in ("{'role': 'admin', 'name': 'Ada'}", "[{'value': 3}]", "{'content': 1", "[{'a': 1}]"):
        assert sample_of("table", {"prompt": "a", "response": text}).response == text
        assert made_of("table", {"prompt": "a", "response": text}, is_text=True)[0].response == text  # type: ignore[union-attr]


def test_calls_without_ids_are_answered_in_their_order():
    talk = [
        *QUESTION,
        {"role": "tool_call", "content": json.dumps({"name": "add", "arguments": {"a": 2}})},
        {"role": "tool_call", "content": json.dumps({"name": "show", "arguments": "{}"})},
        {"role": "tool_response", "content": "4"},
        {"role": "tool_response", "content": "ok"},
        ANSWER,
    ]
    prompt = sample_of("prompt-completion", {"messages": talk}).prompt
    assert prompt[1].get("tool_calls") == [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]
    assert [(each["role"], each.get("name")) for each in prompt[3:]] == [("tool", "add"), ("tool", "show")]


@pytest.mark.parametrize(
    "odd",
    [{"role": ["user"]}, {"role": {"a": 1}}, {"role": 7}, {"role": "user", "tool_call_id": ["c"]}, 7, None, ["a"]],
)
def test_what_is_no_message_is_a_reason_and_no_crash(odd: Any):
    entry = {"content": "a", **odd} if isinstance(odd, dict) else odd
    row = {"messages": [entry, ANSWER]}
    assert isinstance(reason_of("prompt-completion", row), str)
    calls = [*QUESTION, {"role": "assistant", "tool_calls": [{"id": {"a": 1}, "function": {"name": "add"}}]}]
    talk = [*calls, {"role": "tool", "tool_call_id": {"a": 1}, "content": "4"}, ANSWER]
    assert sample_of("prompt-completion", {"messages": talk}).prompt[2].get("name") == "add"


def test_a_refusal_is_what_the_message_says():
    talk = [*QUESTION, {"role": "assistant", "content": None, "refusal": "I cannot add."}]
    assert sample_of("prompt-completion", {"messages": talk}).response == "I cannot add."
    silent = [*QUESTION, {"role": "assistant", "content": None}]
    assert reason_of("prompt-completion", {"messages": silent}) == "messages is not text"


def test_an_object_that_is_no_message_says_so():
    assert reason_of("table", {"prompt": "a", "response": {"a": 1}}) == "response is an object and no message"


def test_completions_of_trl_have_the_values_of_their_reward_functions(tmp_path: Path):
    table = pa.table(
        {
            "step": [5, 5],
            "prompt": ["2 + 2?", "2 + 2?"],
            "completion": ["4", "5"],
            "accuracy_reward": [1.0, 0.0],
            "length_reward": [0.5, None],
            "answer": ["4", "4"],
            "advantage": [0.7, -0.7],
        }
    )
    pq.write_table(table, tmp_path / "completions_00005.parquet")
    store = Store(tmp_path / "store")
    report = import_rows(store, tmp_path / "completions_00005.parquet")
    assert report.kind == "trl-completions"
    assert report.tally.unread == {"advantage": 2, "answer": 2}
    by_response = {each.response: each for each in store.samples()}
    assert by_response["4"].reward_parts == {"accuracy_reward": 1.0, "length_reward": 0.5}
    assert by_response["4"].reward is None
    assert (by_response["5"].reward, by_response["5"].metadata["step"]) == (0.0, "5")


def test_equal_completions_of_trl_are_draws_of_their_own_and_come_once(tmp_path: Path):
    row = {"step": 1, "prompt": "a", "completion": "b", "accuracy": 1.0, "advantage": 0.5}
    path, store = written(tmp_path / "completions.jsonl", [row, row]), Store(tmp_path / "store")
    assert import_rows(store, path).tally.num_added == 2
    assert import_rows(store, path).tally.num_added == 0
    assert len(store.group_ids()) == 1


def test_of_several_rewards_of_trl_the_user_names_one_and_a_single_one_is_the_reward():
    row = {"step": 1, "prompt": "a", "completion": "b", "accuracy": 1.0, "format": 0.5, "advantage": 0.1}
    named = sample_of("trl-completions", row, columns={"reward": "accuracy"})
    assert (named.reward, named.reward_parts) == (1.0, {"reward": 1.0, "format": 0.5})
    (single,) = samples_of("trl-completions", {name: row[name] for name in row if name != "format"})
    assert (single.reward, single.reward_reason) == (1.0, "accuracy")


def test_nothing_is_read_into_rows_without_a_kind_of_their_own():
    assert guessed({"messages": [*QUESTION, ANSWER]}) == "prompt-completion"
    assert guessed({"prompt": "a", "response": "b", "helpfulness": 4}) == "table"
    assert ImportRules().turns is False


@pytest.mark.parametrize("weight", [0, 0.0])
def test_a_row_of_weight_zero_is_none_to_learn_from_and_other_weights_change_nothing(weight: float):
    dialogue = {"messages": [*QUESTION, {"role": "assistant", "content": "4"}]}
    for row in (dialogue, {"prompt": "a", "completion": "b"}):
        assert reason_of("prompt-completion", {**row, "weight": weight}) == "no turn to learn from"
        assert not reason_of("prompt-completion", {**row, "weight": 0.5})
    assert reason_of("prompt-completion", {"prompt": "a", "completion": "b", "weight": "0"}, is_text=True)


@pytest.mark.parametrize("mark", ["loss_mask", "learn"])
def test_a_mask_of_a_message_says_whether_it_is_to_be_learnt(mark: str):
    said = {"role": "assistant", "content": "4"}
    assert reason_of("prompt-completion", {"messages": [*QUESTION, {**said, mark: 0}]}) == "no turn to learn from"
    assert not reason_of("prompt-completion", {"messages": [*QUESTION, {**said, mark: 1}]})
    partly = {"messages": [*QUESTION, {**said, mark: [0, 1]}]}
    assert reason_of("prompt-completion", partly) == "a weight of a message that is neither 0 nor 1"
