"""User ids are hashed wherever they stand, and what was said is never taken for one."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, openai_row, reason_of, sample_of, written

from klimb.experience.importing import ImportRules, import_rows
from klimb.experience.importing.registry import anonymise
from klimb.experience.importing.users import UserRules, text_without_users, user_hash, user_in
from klimb.experience.store import Store

SALT = b"s"
ANN = "ann@example.org"
HASH = user_hash(ANN, SALT)
ROW = {"prompt": "a", "response": "b", "reward": 1}


def kept(values: dict[str, Any], *, is_text: bool = False, **rules: Any) -> dict[str, Any]:
    """The row as it may be kept."""
    return json.loads(anonymise(as_row(values, is_text=is_text), ImportRules(salt=SALT, **rules)).raw)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "user",
            "user_id",
            "userId",
            "User ID",
            "end_user",
            "enduser.id",
            "user_email",
            "userEmail",
            "customer_email",
        ),
        *("userName", "username", "user_name", "author_id", "annotator", "annotator_id", "completed_by", "updated_by"),
        *("mlflow.trace.user", "mlflow.user", "safety_identifier", "langfuse.user.id", "comment_authors", "email"),
    ],
)
def test_a_user_is_hashed_under_the_names_that_exporters_write_at_any_depth(name: str):
    assert kept({name: ANN})[name] == HASH
    assert kept({"x": [{"y": {name: ANN}}]}) == {"x": [{"y": {name: HASH}}]}
    assert kept({"x": {name: ANN}}, keep_users=True) == {"x": {name: ANN}}


@pytest.mark.parametrize(
    "values",
    [
        {"x": json.dumps({"user": ANN})},
        {"x": json.dumps({"y": json.dumps({"user": ANN})})},
        {"x": json.dumps(json.dumps({"user": ANN}))},
        {"x": json.dumps({"user": {"id": ANN, "name": "Ann"}})},
        {"x": str({"user": ANN})},
        {"x": '{"user": "' + ANN + '", "cut": '},
        {"input": json.dumps({"messages": [], "user": ANN})},
        {"request": json.dumps([{"role": "user", "content": "a", "user_id": ANN}])},
        {"attributes": [{"key": "user.id", "value": {"stringValue": ANN}}]},
        {"source": {"source_type": "HUMAN", "source_id": ANN}},
        {"user": [ANN, "x"]},
        {"user": json.dumps({"id": ANN})},
        {"us\u0065r": ANN},
    ],
)
@pytest.mark.parametrize("is_text", [False, True])
def test_a_user_is_hashed_in_json_that_is_text_and_in_lists_and_objects(values: dict[str, Any], is_text: bool):
    row = kept(values, is_text=is_text)
    assert ANN not in json.dumps(row) and "Ann" not in json.dumps(row)
    assert HASH in json.dumps(row)


def test_half_a_character_in_an_id_costs_no_more_than_its_row():
    assert "x" not in str(kept({"y": '{"user": "x\\ud800"}'}))


def test_an_escape_in_a_name_does_not_hide_a_user():
    row = as_row({"user": ANN})
    hidden = type(row)(row.place, row.values, '{"us\\u0065r": "' + ANN + '"}')
    assert ANN not in anonymise(hidden, ImportRules(salt=SALT)).raw


def test_a_number_is_one_user_however_it_is_written():
    hashes = [sample_of("table", {**ROW, "user_id": user}, salt=SALT).metadata["user"] for user in (12, 12.0, "12")]
    assert set(hashes) == {user_hash("12", SALT)}
    assert kept({"user_id": "12.0"}, is_text=True) == {"user_id": user_hash("12", SALT)}


@pytest.mark.parametrize("user", [None, "", float("nan"), True, [], {}])
def test_what_is_no_id_is_no_user_and_costs_no_row(user: object):
    assert "user" not in sample_of("table", {**ROW, "user": user}, salt=SALT).metadata


def test_of_an_object_the_id_is_the_user():
    sample = sample_of("table", {**ROW, "user": {"name": "Ann", "id": "u1"}}, salt=SALT)
    assert sample.metadata["user"] == user_hash("u1", SALT)
    assert sample_of("table", {**ROW, "user": {"name": "Ann", "id": "u1"}}, keep_users=True).metadata["user"] == "u1"


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": '{"user": "Bob"}', "response": "b"},
        {"prompt": "a", "completion": '{"user_id": "u1"}'},
        {"messages": [{"role": "user", "content": '{"user": "Bob"}'}]},
        {"tool_calls": [{"function": {"name": "find", "arguments": '{"user_id": "u1"}'}}]},
        {"tool_calls": [{"function": {"name": "find", "arguments": {"user_id": "u1"}}}]},
        {"tools": [{"function": {"parameters": {"properties": {"user_id": {"type": "string"}}}}}]},
        {"turns": [{"user": "What is two and two?", "assistant": "4"}]},
        {"role": "user", "email": "Dear all, please write to me at once."},
        {"source": {"source_type": "LLM_JUDGE", "source_id": "judge-1"}},
        {"user_prompt": "a", "num_users": 3},
    ],
)
def test_what_was_said_and_what_a_tool_takes_are_no_users(values: dict[str, Any]):
    assert kept(values) == values


@pytest.mark.parametrize("theirs", ["user", "userid", "end_user", "username"])
@pytest.mark.parametrize("ours", ["prompt", "response", "id", "group"])
def test_a_mapped_column_is_never_a_user(theirs: str, ours: str):
    values = {**{name: value for name, value in ROW.items() if name != ours}, theirs: "Name a prime."}
    sample = sample_of("table", values, columns={ours: theirs}, salt=SALT)
    assert "user" not in sample.metadata
    assert json.loads(sample.raw)[theirs] == "Name a prime."
    found = {"prompt": sample.prompt[0]["content"], "response": sample.response, "id": sample.sample_id}
    assert found.get(ours, sample.group_id.rpartition("-")[0]) == "Name a prime."


def test_users_inside_a_mapped_column_are_hashed():
    request = {"messages": [{"role": "user", "content": "a"}], "user": ANN}
    values = {"asked": request, "response": openai_row()["response"]}
    sample = sample_of("openai", values, columns={"request": "asked"}, salt=SALT)
    assert sample.metadata["user"] == HASH and ANN not in sample.raw


def test_a_column_mapped_to_the_user_is_hashed_whatever_it_holds():
    sample = sample_of("table", {**ROW, "who": "Ann of the long and winding road."}, columns={"user": "who"}, salt=SALT)
    assert sample.metadata["user"] == user_hash("Ann of the long and winding road.", SALT)


def test_prose_under_the_name_of_a_user_is_no_user_and_is_said(tmp_path: Path):
    rows = [{**ROW, "user": "Name a prime."}, {**ROW, "user": "Ann Example"}]
    store = Store(tmp_path / "store")
    report = import_rows(store, written(tmp_path / "a.jsonl", rows))
    assert report.tally.num_prose_users == 1
    assert sorted("user" in sample.metadata for sample in store.samples()) == [False, True]
    assert all("Name a" not in sample.raw and "Ann" not in sample.raw for sample in store.samples())


def test_rejects_have_no_users_even_where_a_line_is_no_json(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    lines = [
        json.dumps({**ROW, "user": "x"}),
        '{"user": "' + ANN + '", "prompt": }',
        json.dumps({"user": {"mail": ANN}, "prompt": ""}),
        json.dumps({"user_id": 12.0, "x": json.dumps({"user": ANN})}),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = import_rows(Store(tmp_path / "store"), path)
    assert report.num_rejected == 3 and report.reject_file is not None
    assert ANN not in report.reject_file.read_text(encoding="ascii")
    assert "12.0" not in report.reject_file.read_text(encoding="ascii")


def test_what_klimb_exported_keeps_its_hashes(tmp_path: Path):
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    import_rows(store, written(tmp_path / "a.jsonl", [{**ROW, "user": ANN}]))
    (sample,) = store.samples()
    exported = {name: getattr(sample, name) for name in sample.__dataclass_fields__}
    path = written(tmp_path / "b.jsonl", [exported])
    assert import_rows(other, path).kind == "klimb"
    assert list(other.samples()) == [sample]
    assert import_rows(store, path).tally.num_rows_there == 1


def test_a_user_id_of_an_unusable_kind_is_no_traceback():
    assert reason_of("table", {**ROW, "user": {"a": {"b": [1.5]}}}) == ""


def test_a_part_of_an_object_that_is_mapped_is_no_user_and_one_that_is_mapped_to_a_user_is():
    asked = {"data": {"user": "Name a prime", "tag": "x"}, "who": {"tag": ANN}}
    columns = {"prompt": "data.user", "user": "who.tag"}
    assert kept(asked, columns=columns) == {"data": {"user": "Name a prime", "tag": "x"}, "who": {"tag": HASH}}
    assert kept({"data": {"user": ANN}, "more": {"data": {"user": ANN}}}, columns={"prompt": "data.user"}) == {
        "data": {"user": ANN},
        "more": {"data": {"user": HASH}},
    }


@pytest.mark.parametrize("name", ["users", "requester", "visitor_id", "participant_id", "requested_by", "user_names"])
def test_several_users_and_those_who_asked_are_hashed_too(name: str):
    assert kept({name: [ANN]})[name] == [HASH]


@pytest.mark.parametrize("said", ["Prime?", "说出一个质数。", "Назови простое число!"])
def test_one_word_that_ends_as_sentences_do_is_no_user(said: str):
    assert "user" not in sample_of("table", {**ROW, "user": said}).metadata


def test_the_user_of_an_object_in_csv_is_the_id_in_it():
    assert user_in({"user": json.dumps({"id": ANN, "seen": "x"})}) == ANN
    assert user_in({"user": "{ann}"}) == "{ann}"


def test_json_in_json_that_is_text_is_looked_through_where_words_stand():
    assert ANN not in str(kept({"input": json.dumps(json.dumps({"messages": [], "user": ANN}))}))
    words = json.dumps(json.dumps({"user": ANN}))
    assert kept({"input": words}) == {"input": words}


@pytest.mark.parametrize("value", ["4711", '{"id": "ann"}', '["ann", "x"]', '{"id": "ann'])
def test_numbers_and_objects_of_a_user_are_hashed_in_what_is_no_json(value: str):
    found = text_without_users(f'{{"prompt": "a 4711", "user_id": {value}', UserRules(salt=lambda: SALT))
    assert "ann" not in found and found.count("4711") == 1
    assert f'"user_id": "{user_hash(value, SALT)}"' in found


@pytest.mark.parametrize("text", ["{1: 'x', 'user': 'bob'}", "{None: {'user': 'bob'}, (1, 2): [{3: 'x'}]}"])
def test_names_of_any_type_in_a_dictionary_of_python_are_passed_over(text: str):
    meta = kept({**ROW, "meta": text}, is_text=True)["meta"]
    assert "bob" not in meta and "'x'" in meta
