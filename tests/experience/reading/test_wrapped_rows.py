"""JSON documents that are one object: around the array of rows, or the row itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from klimb.experience.importing import ReadLimits, Reject, Row, read_records

ROWS: list[dict[str, Any]] = [{"prompt": f"p{n}", "reward": n} for n in range(4)]
MESSAGES = [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "7"}]
TURNS = [{"from": "human", "value": "Name a prime."}, {"from": "gpt", "value": "7"}]


@pytest.fixture(autouse=True, params=[5, 1024**2])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Blocks of five bytes, so that every value falls into several; and the usual ones."""
    monkeypatch.setattr("klimb.experience.reading.packing.BLOCK_BYTES", request.param)


def records(path: Path, document: object, **limits: int):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return list(read_records(path, ReadLimits(**limits)))


@pytest.mark.parametrize(
    "document",
    [
        {"data": ROWS},
        {"my own name": ROWS},
        {"object": "list", "data": ROWS, "has_more": False, "meta": {"page": 1}, "errors": []},
        {"schema": {"fields": [{"name": "prompt"}]}, "data": ROWS},
        {"version": 1, "feedback": ROWS, "tags": ["a", "b"]},
    ],
)
def test_the_only_array_of_objects_holds_the_rows(tmp_path: Path, document: dict[str, object]):
    name = next(name for name, value in document.items() if value is ROWS)
    found = records(tmp_path / "a.json", document)
    assert [record.values for record in found if isinstance(record, Row)] == ROWS
    assert [record.place for record in found] == [f"a.json: {name}[{number}]" for number in range(4)]
    assert [json.loads(record.raw) for record in found if isinstance(record, Row)] == ROWS


@pytest.mark.parametrize(
    "document",
    [
        {"messages": MESSAGES},
        {"conversations": TURNS},
        {"data": MESSAGES},
        {"messages": MESSAGES, "tools": [{"name": "search"}]},
        {"prompt": "a", "response": "b", "sources": [{"url": "x"}]},
        {"prompt": "a", "completions": [{"text": "b", "reward": 1}]},
        {"tools": [{"name": "search"}], "prompt": "a"},
        {"request": {"messages": MESSAGES}, "response": {"choices": [{"index": 0}]}},
        {"train": ROWS, "test": ROWS},
        {"prompt": "a", "data": [1, 2]},
        {"prompt": "a"},
        {},
    ],
)
def test_an_object_that_is_a_row_stays_one(tmp_path: Path, document: dict[str, object]):
    (row,) = records(tmp_path / "a.json", document)
    assert isinstance(row, Row) and row.values == document and row.place == "a.json:element 1"


def test_objects_one_behind_the_other_are_rows_each_whatever_they_hold(tmp_path: Path):
    found = records(tmp_path / "a.json", json.dumps({"data": ROWS}) + "\n" + json.dumps({"data": ROWS[:1]}))
    assert [record.values for record in found if isinstance(record, Row)] == [{"data": ROWS}, {"data": ROWS[:1]}]


def test_lines_of_json_are_never_opened(tmp_path: Path):
    (row,) = records(tmp_path / "a.jsonl", {"data": ROWS})
    assert isinstance(row, Row) and row.values == {"data": ROWS}


def test_the_rows_may_be_more_than_a_value_may_be_long(tmp_path: Path):
    found = records(tmp_path / "a.json", {"data": ROWS * 100, "object": "list"}, max_line_bytes=60)
    assert len(found) == 400 and all(isinstance(record, Row) for record in found)


@pytest.mark.parametrize(
    ("text", "num_rows", "reason", "place"),
    [
        ('{"data": [{"a": 1}, {"a": 2}', 2, "cut off", "a.json: data[1] or after"),
        ('{"data": [{"a": 1}, {"a": ', 1, "not JSON", "a.json: data[1] or after"),
        ('{"data": [{"a": 1}], "x": ', 1, "not JSON", "a.json: data[0] or after"),
        ('{"data": [{"a": 1}], "data": [{"a": 2}]}', 1, "a name twice in one object", "a.json: data[0] or after"),
        ('{"data": [{"a": 1}, 2, {"a": 3}]}', 2, "not an object", "a.json: data[1]"),
        ('{"data": [{"a": 1, "a": 2}, {"a": 3}]}', 1, "a name twice in one object", "a.json: data[0]"),
        ('{"data": [{"a": 1}, {"a": ' + "9" * 5000 + "}]}", 1, "JSON that cannot be read", "a.json: data[1]"),
        ('[{"a": [{"b": 1, "b": 2}, 3]}, {"a": 3}]', 1, "a name twice in one object", "a.json:element 1"),
        ('{"data": [{"a": 1}],}', 1, "not JSON", "a.json: data[0] or after"),
        ('{"data" [{"a": 1}]}', 0, "not JSON", "a.json:element 1 or after"),
    ],
)
def test_what_is_broken_is_rejected_behind_the_rows_before_it(
    tmp_path: Path, text: str, num_rows: int, reason: str, place: str
):
    found = records(tmp_path / "a.json", text)
    assert sum(isinstance(record, Row) for record in found) == num_rows
    assert [(record.reason, record.place) for record in found if isinstance(record, Reject)] == [(reason, place)]


def test_a_frame_written_by_columns_is_refused_with_the_way_out(tmp_path: Path):
    by_columns = {"prompt": {"0": "a", "1": "b"}, "reward": {"0": 1, "1": 0}}
    (reject,) = records(tmp_path / "a.json", by_columns)
    assert isinstance(reject, Reject) and reject.reason == "columns instead of rows"
    assert "orient='records'" in reject.detail


def test_nan_and_infinity_come_as_python_wrote_them(tmp_path: Path):
    (row,) = records(tmp_path / "a.json", '[{"a": NaN, "b": -Infinity}]')
    assert isinstance(row, Row) and row.values["b"] == float("-inf") and row.values["a"] != row.values["a"]
