from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, made_of, reason_of, sample_of, samples_of

from klimb.experience.importing import guess_importer
from klimb.experience.importing.registry import convert_row, importer_named, rename_columns
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Columns

ROW: dict[str, Any] = {"instruction": "Add.", "input": "2 and 2", "output": "4"}


def test_instruction_and_input_are_one_question_with_a_line_feed_between():
    sample = sample_of("alpaca", ROW)
    assert sample.prompt == ({"role": "user", "content": "Add.\n2 and 2"},)
    assert (sample.response, sample.reward, sample.log_mu_provenance) == ("4", None, "absent")


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_part_leaves_no_line_feed(nothing: str | None):
    assert sample_of("alpaca", {**ROW, "input": nothing}).prompt[0]["content"] == "Add."
    assert sample_of("alpaca", {**ROW, "instruction": nothing}).prompt[0]["content"] == "2 and 2"
    assert reason_of("alpaca", {**ROW, "input": nothing, "instruction": nothing}) == "no instruction"


def test_system_and_history_stand_before_the_question():
    sample = sample_of("alpaca", {**ROW, "system": "Short.", "history": [["1 + 1?", "2"], ["", "3"]]})
    assert [(each["role"], each["content"]) for each in sample.prompt] == [
        ("system", "Short."),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", ""),
        ("assistant", "3"),
        ("user", "Add.\n2 and 2"),
    ]


def test_a_pair_is_two_samples_of_one_group():
    chosen, rejected = samples_of("alpaca", {"instruction": "Add.", "chosen": "4", "rejected": "5", "output": None})
    assert [(s.response, s.reward, s.metadata["label"]) for s in (chosen, rejected)] == [
        ("4", 1.0, "chosen"),
        ("5", 0.0, "rejected"),
    ]
    assert chosen.group_id == rejected.group_id


@pytest.mark.parametrize(("tag", "reward"), [(True, 1.0), (False, 0.0), (None, None)])
def test_a_kto_tag_is_a_reward_and_none_is_none(tag: bool | None, reward: float | None):
    assert sample_of("alpaca", {**ROW, "kto_tag": tag}).reward == reward


@pytest.mark.parametrize(("label", "reward"), [(True, 1.0), (False, 0.0), (None, None), ("positive", None), (1, None)])
def test_a_label_that_is_true_or_false_is_a_reward_and_a_class_is_none(label: Any, reward: float | None):
    assert sample_of("alpaca", {**ROW, "label": label}).reward == reward
    dialogue = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert sample_of("sharegpt", {"conversations": dialogue, "label": label}).reward == reward


def test_a_class_is_named_as_not_read():
    row = rename_columns(as_row({**ROW, "label": "sums"}), ImportRules())
    convert_row(row, importer_named("alpaca").read, ImportRules(), kind="alpaca")
    assert isinstance(row.values, Columns) and row.values.unread == ["label"]


def test_rewards_are_taken_as_they_are():
    assert sample_of("alpaca", {**ROW, "score": 4.5}).reward == 4.5
    assert sample_of("alpaca", {**ROW, "reward": -1}).reward == -1


def test_dollys_names_are_read():
    sample = sample_of("alpaca", {"instruction": "Add.", "context": "2 and 2", "response": "4", "category": "sums"})
    assert (sample.prompt[0]["content"], sample.response) == ("Add.\n2 and 2", "4")


def test_columns_that_the_user_maps_are_read_although_the_kind_was_guessed():
    columns = {"prompt": "instruction", "response": "output", "reward": "stars"}
    sample = sample_of("alpaca", {**ROW, "stars": 3}, columns=columns)
    assert (sample.prompt[0]["content"], sample.response, sample.reward) == ("Add.\n2 and 2", "4", 3)


def test_the_row_with_a_template_around_it_is_named_as_not_read():
    values = {**ROW, "text": "Below is an instruction ...", "language": "en"}
    row = rename_columns(as_row(values), ImportRules())
    convert_row(row, importer_named("alpaca").read, ImportRules(), kind="alpaca")
    assert isinstance(row.values, Columns) and list(row.values.unread) == ["text", "language"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ROW, "output": None}, "output is not text"),
        ({**ROW, "output": ["4", "5"]}, "output is not text"),
        ({**ROW, "output": 4}, "output is not text"),
        ({**ROW, "output": ""}, "no response"),
        ({**ROW, "instruction": ["Add."]}, "instruction is not text"),
        ({**ROW, "input": {"a": 2}}, "input is not text"),
        ({**ROW, "system": True}, "system is not text"),
        ({**ROW, "history": "none"}, "history is not a list"),
        ({**ROW, "history": 3}, "history is not a list"),
        ({**ROW, "history": [["1 + 1?"]]}, "a round of history that is no pair"),
        ({**ROW, "history": [["1 + 1?", None]]}, "a round of history that is no pair"),
        ({**ROW, "history": [None]}, "a round of history that is no pair"),
        ({**ROW, "chosen": "4"}, "rejected is not text"),
        ({**ROW, "kto_tag": "blue"}, "a rating that is text"),
        ({**ROW, "score": "blue"}, "the reward is text"),
        ({**ROW, "images": ["cat.png"]}, "a row with more than text"),
        ({**ROW, "reasoning_content": "2 and 2"}, "thoughts kept apart from the response"),
        ({"instruction": "Add.", "output": None, "input": None}, "output is not text"),
    ],
)
def test_what_is_no_question_and_answer_is_refused_with_its_reason(row: dict[str, Any], reason: str):
    assert reason_of("alpaca", row) == reason


def test_history_in_csv_is_json():
    (sample,) = made_of("alpaca", {**ROW, "history": '[["1 + 1?", "2"]]', "score": "0.5"}, is_text=True)
    assert [len(getattr(sample, "prompt", ())), getattr(sample, "reward", None)] == [3, 0.5]
    (plain,) = made_of("alpaca", {**ROW, "history": "", "score": None}, is_text=True)
    assert getattr(plain, "reward", 0) is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({**ROW, "text": "Below"}, "alpaca"),
        ({"instruction": "a", "response": "b"}, "alpaca"),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, "alpaca"),
        ({"instruction": "a", "prompt": "b", "response": "c"}, "table"),
        ({"instruction": "a", "prompt": "b", "chosen": "c", "rejected": "d"}, "preference"),
        ({"instruction": "a", "prompt": "b", "completion": "c", "output": "d"}, "prompt-completion"),
    ],
)
def test_it_is_guessed_by_an_instruction_and_its_answer(values: dict[str, Any], kind: str):
    assert guess_importer(as_row(values)).name == kind
