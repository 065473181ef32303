from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, as_row, made_of, reason_of, sample_of, samples_of

from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.registry import convert_row, importer_named, rename_columns
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Columns
from klimb.experience.store import Store

HUMAN, GPT = {"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}
CALL = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 2}}'}
RESULT = {"from": "observation", "value": "4"}
ROW: dict[str, Any] = {"conversations": [HUMAN, GPT]}


def test_the_last_entry_of_a_dialogue_is_the_response():
    sample = sample_of("sharegpt", {**ROW, "id": "identity_0"})
    assert (sample.sample_id, sample.prompt, sample.response) == ("identity_0", tuple(QUESTION), "4")
    assert (sample.reward, sample.log_mu, sample.source) == (None, None, "log")


@pytest.mark.parametrize("asks", ["human", "user", "USER", "User ", "prompter"])
@pytest.mark.parametrize("answers", ["gpt", "assistant", "bing", "bard", "chatgpt", "model", "Assistant", "ai"])
def test_names_of_who_speaks_are_those_in_use(asks: str, answers: str):
    row = {"conversation": [{"from": asks, "value": "2 + 2?"}, {"role": answers, "content": "4"}]}
    assert sample_of("sharegpt", row).prompt == tuple(QUESTION)
    assert sample_of("sharegpt", row).response == "4"


def test_with_turns_all_answers_behind_the_first_question_are_drawn():
    row = {"items": [HUMAN, GPT, {"from": "human", "value": "And 3 + 3?"}, {"from": "gpt", "value": "6"}]}
    last, all_of_them = sample_of("sharegpt", row), sample_of("sharegpt", row, turns=True)
    assert (len(last.prompt), last.response) == (3, "6")
    assert all_of_them.prompt == tuple(QUESTION)
    assert [(turn.role, turn.text) for turn in all_of_them.turns] == [
        ("assistant", "4"),
        ("user", "And 3 + 3?"),
        ("assistant", "6"),
    ]


@pytest.mark.parametrize(
    "dialogue",
    [[HUMAN], [HUMAN, GPT, HUMAN], [{"from": "system", "value": "Short."}, HUMAN, CALL, RESULT]],
)
def test_a_dialogue_that_does_not_end_with_the_assistant_is_refused(dialogue: list[Any]):
    assert reason_of("sharegpt", {"conversations": dialogue}) == "conversations do not end with the assistant"


def test_the_column_of_the_system_stands_before_the_dialogue_and_is_never_lost():
    system = {"from": "system", "value": "Short."}
    first = {"role": "system", "content": "Short."}
    assert sample_of("sharegpt", {**ROW, "system": "Short."}).prompt == (first, *QUESTION)
    assert sample_of("sharegpt", {"conversations": [system, HUMAN, GPT], "system": "Short."}).prompt[:1] == (first,)
    assert sample_of("sharegpt", {**ROW, "system": ""}).prompt == tuple(QUESTION)
    two = {"conversations": [system, HUMAN, GPT], "system": "Long."}
    assert reason_of("sharegpt", two) == "two system messages"


def test_calls_are_read_out_of_their_text_and_a_result_names_its_tool():
    tools = '[{"name": "add", "description": "", "parameters": {"type": "object"}}]'
    sample = sample_of("sharegpt", {"conversations": [HUMAN, CALL, RESULT, GPT], "tools": tools})
    asked, called, answered = sample.prompt
    assert [call["function"] for call in called.get("tool_calls", ())] == [
        {"name": "add", "arguments": {"a": 2, "b": 2}}
    ]
    assert answered == {"role": "tool", "content": "4", "name": "add"}
    assert '"name": "add"' in sample.tools
    assert asked == QUESTION[0]


def test_results_of_two_calls_at_once_name_their_tools_in_order():
    both = {"from": "function_call", "value": '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]'}
    row = {"conversations": [HUMAN, both, RESULT, {**RESULT, "value": "5"}, GPT]}
    assert [each.get("name") for each in sample_of("sharegpt", row).prompt] == [None, None, "f", "g"]


def test_a_call_can_be_the_response():
    sample = sample_of("sharegpt", {"conversations": [HUMAN, CALL]})
    assert [(call.name, call.arguments) for call in sample.turns[0].calls] == [("add", '{"a": 2, "b": 2}')]
    assert reason_of("sharegpt", {"conversations": [HUMAN, {**CALL, "value": "add(2, 2)"}]}) == (
        "conversations with a call that is no JSON"
    )


def test_xtuners_entries_hold_a_question_and_its_answer():
    row = {"conversation": [{"system": "Short.", "input": "2 + 2?", "output": "4"}, {"input": "3?", "output": "3"}]}
    sample = sample_of("sharegpt", row)
    assert [each["role"] for each in sample.prompt] == ["system", "user", "assistant", "user"]
    assert sample.response == "3"


def test_a_pair_has_the_dialogue_as_its_prompt():
    row = {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "5"}, "id": 7}
    chosen, rejected = samples_of("sharegpt", row)
    assert [(s.sample_id, s.response, s.reward) for s in (chosen, rejected)] == [("7", "4", 1.0), ("7#1", "5", 0.0)]
    assert chosen.prompt == tuple(QUESTION)
    assert chosen.group_id == rejected.group_id
    texts = samples_of("sharegpt", {**row, "chosen": "4", "rejected": "5"})
    assert [s.response for s in texts] == ["4", "5"]


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ({"chosen": GPT}, "no rejected"),
        ({"chosen": GPT, "rejected": []}, "no rejected"),
        ({"chosen": GPT, "rejected": 5}, "no rejected"),
        ({"chosen": GPT, "rejected": HUMAN}, "rejected begins with another than the assistant"),
        ({"chosen": {"from": "gpt", "value": None}, "rejected": GPT}, "chosen is not text"),
        ({"chosen": {"value": "4"}, "rejected": GPT}, "chosen with an entry of nobody"),
    ],
)
def test_half_a_pair_is_none(sides: dict[str, Any], reason: str):
    assert reason_of("sharegpt", {"conversations": [HUMAN], **sides}) == reason


def test_a_pair_behind_an_answer_is_refused():
    assert reason_of("sharegpt", {**ROW, "chosen": GPT, "rejected": GPT}) == "chosen and rejected behind an answer"


@pytest.mark.parametrize(("tag", "reward"), [(True, 1.0), (False, 0.0), (None, None)])
def test_a_kto_tag_is_a_reward_and_none_is_none(tag: bool | None, reward: float | None):
    assert sample_of("sharegpt", {**ROW, "kto_tag": tag}).reward == reward


def test_each_rated_turn_is_a_response_with_its_history():
    again = [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes.", "rating": 0}]
    row = {"conversations": [HUMAN, {**GPT, "rating": 1}, *again, {"from": "human", "value": "Thanks."}], "id": "c"}
    first, second = samples_of("sharegpt", row)
    assert [(s.sample_id, s.response, s.reward) for s in (first, second)] == [("c#1", "4", 1.0), ("c#3", "Yes.", 0.0)]
    assert (first.prompt, len(second.prompt)) == (tuple(QUESTION), 3)
    stars = {"conversations": [HUMAN, {**GPT, "rating": 5}]}
    assert reason_of("sharegpt", stars) == "a rating outside its scale"
    assert sample_of("sharegpt", stars, scale=(1, 5)).reward == 1.0


def test_rewards_are_taken_as_they_are():
    assert sample_of("sharegpt", {**ROW, "score": 3.5}).reward == 3.5
    assert sample_of("sharegpt", {**ROW, "reward": 0, "score": 3.5}).reward == 0
    assert reason_of("sharegpt", {**ROW, "reward": "blue"}) == "the reward is text"


def test_a_column_that_says_whether_to_think_holds_no_thoughts():
    assert sample_of("sharegpt", {**ROW, "reasoning": "off"}).response == "4"


def test_turns_that_are_none_to_learn_from_are_not_drawn():
    poor = {**GPT, "train": False}
    row = {"conversations": [HUMAN, poor, {"from": "human", "value": "Again?"}, {**GPT, "train": True}]}
    sample = sample_of("sharegpt", row, turns=True)
    assert (len(sample.prompt), sample.response) == (3, "4")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": None}, "no conversations"),
        ({"conversations": []}, "no conversations"),
        ({"conversations": "hello"}, "no conversations"),
        ({"conversations": {"from": "gpt"}}, "no conversations"),
        ({"conversations": [None]}, "conversations with an entry of nobody"),
        ({"conversations": ["hello", 3]}, "conversations with an entry of nobody"),
        ({"conversations": [{"from": 3, "value": "a"}, GPT]}, "conversations has a message of another role"),
        ({"conversations": [{"from": ["gpt"], "value": "a"}, GPT]}, "conversations has a message of another role"),
        ({"conversations": [{"from": "critic", "value": "a"}, GPT]}, "conversations has a message of another role"),
        ({"conversations": [{"from": "human", "value": None}, GPT]}, "conversations is not text"),
        ({"conversations": [{"from": "human", "value": 4}, GPT]}, "conversations is not text"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": ""}]}, "no response"),
        ({"conversations": [GPT]}, "no prompt"),
        (
            {"conversations": [HUMAN, {"from": "function_call", "value": "[]"}]},
            "conversations with a call that is no JSON",
        ),
        ({**ROW, "system": 3}, "conversations is not text"),
        ({**ROW, "tools": "calculator"}, "tools are not a list"),
        ({**ROW, "id": [1]}, "an id that is neither text nor a whole number"),
        ({**ROW, "images": ["cat.png"]}, "a row with more than text"),
        ({**ROW, "image": "cat.png"}, "a row with more than text"),
        ({**ROW, "kto_tag": "blue"}, "a rating that is text"),
        ({**ROW, "reasoning": "2 and 2"}, "thoughts kept apart from the response"),
        ({"conversations": [HUMAN, {**GPT, "reasoning_content": "2"}]}, "thoughts kept apart from the response"),
        ({"conversations": [{"input": "a"}]}, "conversations with an entry of nobody"),
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_reason(row: dict[str, Any], reason: str):
    assert reason_of("sharegpt", row) == reason


@pytest.mark.parametrize("is_text", [True, False])
def test_a_dialogue_that_is_json_text_is_read(is_text: bool):
    text = '[{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "[4]"}]'
    (sample,) = made_of("sharegpt", {"conversations": text}, is_text=is_text)
    assert getattr(sample, "response", None) == "[4]"
    assert guess_importer(as_row({"conversations": text})).name == "sharegpt"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({**ROW, "chosen": GPT, "rejected": GPT}, "sharegpt"),
        ({**ROW, "system": "", "tools": "[]"}, "sharegpt"),
        ({"items": [HUMAN, GPT], "id": "a"}, "sharegpt"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "4"}], "items": ["milk"]}, "prompt-completion"),
        ({"prompt": "a", "response": "b", "conversation": "c-1"}, "table"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "conversations": []}, "preference"),
    ],
)
def test_it_is_guessed_by_entries_that_say_who_speaks(values: dict[str, Any], kind: str):
    assert guess_importer(as_row(values)).name == kind


def test_columns_that_are_not_used_are_known():
    row = rename_columns(as_row({**ROW, "language": "en", "id": "a", "kto_tag": True}), ImportRules())
    convert_row(row, importer_named("sharegpt").read, ImportRules(), kind="sharegpt")
    assert isinstance(row.values, Columns) and list(row.values.unread) == ["language"]


def test_rows_of_a_file_are_samples_and_rejects_and_no_more(tmp_path: Any):
    path = tmp_path / "dialogues.json"
    path.write_text(
        '[{"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},'
        ' {"conversations": [{"from": "human", "value": "2 + 2?"}]}]'
    )
    report = import_rows(Store(tmp_path / "store"), path)
    assert (report.kind, report.tally.num_rows, report.tally.num_added, report.num_rejected) == ("sharegpt", 2, 1, 1)
