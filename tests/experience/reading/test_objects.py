"""Rows of Python objects: lists of dicts, frames, tables, data sets."""

import datetime
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from klimb.experience.importing import ImportRules, ReadLimits, Reject, Row, import_rows, read_records
from klimb.experience.store import Store

pandas: Any = pytest.importorskip("pandas")
datasets: Any = pytest.importorskip("datasets")

MOMENT = datetime.datetime(2026, 5, 28, 20, 26, 39, 123456)
ROWS = [{"prompt": "a", "response": "x", "reward": 1}, {"prompt": "b", "response": "y", "reward": 0}]


def cell(value: object) -> object:
    (row,) = read_records([{"a": value}])
    assert isinstance(row, Row), row
    return row.values["a"]


def values(source: object) -> list[dict[str, object]]:
    found = list(read_records(source))
    assert all(isinstance(record, Row) for record in found), found
    assert [record.place for record in found] == [f"row {number}" for number in range(1, len(found) + 1)]
    return [dict(record.values) for record in found if isinstance(record, Row)]


class Mark(Enum):
    UP = "up"


@dataclass
class Turn:
    role: str
    ids: Any


class Model:
    """As pydantic's, which the clients of servers return."""

    def model_dump(self) -> dict[str, object]:
        return {"id": UUID(int=1), "choices": [Turn("assistant", np.array([1, 2]))]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.bool_(True), True),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["x", None], dtype=object), ["x", None]),
        (np.datetime64("2026-05-28T20:26:39.123456789"), MOMENT),
        (np.array(["2026-05-28T20:26:39.123456789"], "datetime64[ns]"), [MOMENT]),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.datetime64("NaT"), None),
        (pandas.Timestamp("2026-05-28T20:26:39.123456789"), MOMENT),
        (pandas.NaT, None),
        (pandas.NA, None),
        (MOMENT.date(), "2026-05-28"),
        (MOMENT.time(), "20:26:39.123456"),
        (datetime.timedelta(seconds=1.5), 1.5),
        (Decimal("1.10"), 1.1),
        (Decimal(10**25), 10**25),
        (b"x", "x"),
        (b"\xff", b"\xff"),
        (Mark.UP, "up"),
        ((1, [2]), [1, [2]]),
        ({1: {"b": np.int8(2)}}, {"1": {"b": 2}}),
        (Turn("user", None), {"role": "user", "ids": None}),
        (Model(), {"id": str(UUID(int=1)), "choices": [{"role": "assistant", "ids": [1, 2]}]}),
        (10**30, 10**30),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_python_becomes_a_cell(value: object, expected: object):
    found = cell(value)
    assert found == expected and type(found) is type(expected)


def test_a_tensor_becomes_a_list():
    torch: Any = pytest.importorskip("torch")
    assert cell(torch.tensor([0.5, 1.0], dtype=torch.bfloat16)) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": object()}, "a value that is no data"),
        ({"a": {1, 2}}, "a value that is no data"),
        ({"a": {None: 1}}, "a name that is neither text nor a number"),
        ({1: "x", "1": "y"}, "a name twice in one object"),
        ({"a": "\ud800"}, "half a character"),
        ({"a": "x" * 100}, "line too long"),
        (7, "not an object"),
        (None, "not an object"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:30],
)
def test_a_row_that_is_no_data_is_rejected_and_the_next_one_is_read(row: object, reason: str):
    bad, good = read_records([row, {"a": 1}], ReadLimits(max_line_bytes=50))
    assert isinstance(bad, Reject) and (bad.place, bad.reason) == ("row 1", reason)
    bad.text.encode("utf-8")
    assert isinstance(good, Row) and good.place == "row 2"


def test_a_row_that_holds_itself_is_rejected():
    row: dict[str, object] = {}
    row["a"] = row
    (bad,) = read_records([row])
    assert isinstance(bad, Reject) and bad.reason == "nested too deep"


def test_the_given_rows_are_left_as_they_are():
    given: list[dict[str, Any]] = [{"a": {"b": [np.int64(1)]}}]
    (row,) = read_records(given)
    assert isinstance(row, Row) and row.values["a"] is not given[0]["a"]
    assert type(given[0]["a"]["b"][0]) is np.int64


@pytest.mark.parametrize(
    "source",
    [
        ROWS,
        tuple(ROWS),
        iter(ROWS),
        (row for row in ROWS),
        lambda: iter(ROWS),
        pandas.DataFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        pa.RecordBatch.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).to_reader(),
        datasets.Dataset.from_list(ROWS),
        datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        datasets.Dataset.from_list(ROWS).with_format("numpy"),
        lambda: pandas.DataFrame(ROWS),
    ],
    ids=lambda source: type(source).__name__,
)
def test_the_same_rows_of_each_kind_of_object(source: object):
    assert values(source) == ROWS


def test_rows_of_a_data_set_come_in_its_order_without_those_filtered_out():
    given = datasets.Dataset.from_list([{"n": n, "m": [{"role": "user", "content": str(n)}]} for n in range(9)])
    chosen = given.select([7, 2, 5])
    assert [row["n"] for row in values(chosen)] == [7, 2, 5]
    assert values(chosen)[0]["m"] == [{"role": "user", "content": "7"}]


def test_several_data_sets_at_once_are_refused_with_their_names():
    split = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS))
    with pytest.raises(ValueError, match="a DatasetDict holds several data sets; give one of them: train, test"):
        read_records(split)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"prompt": ["a"]}, "a dict is no list: prompt"),
        (7, "rows cannot be read from int"),
        (None, "rows cannot be read from NoneType"),
        (b"a.jsonl", "rows cannot be read from bytes"),
        (dict, "rows cannot be read from type"),
        (pandas.Series([1]), "rows cannot be read from Series"),
        ([], "an empty list holds no rows"),
        (["a.jsonl", {"a": 1}], "a list holds paths or rows, not both"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:30],
)
def test_what_holds_no_rows_is_one_error(source: object, message: str):
    with pytest.raises(ValueError, match=message):
        read_records(source)


def test_what_pandas_takes_for_missing_is_none_and_lists_are_lists():
    frame = pandas.DataFrame(
        {
            "number": [1.5, math.nan],
            "moment": [pandas.Timestamp("2026-05-28"), pandas.NaT],
            "whole": pandas.array([1, None], dtype="Int64"),
            "kind": pandas.Categorical(["x", None]),
            "list": [np.array([1, 2]), None],
            "text": ["x", None],
        }
    )
    first, second = values(frame)
    assert first == {
        "number": 1.5,
        "moment": datetime.datetime(2026, 5, 28),
        "whole": 1,
        "kind": "x",
        "list": [1, 2],
        "text": "x",
    }
    assert second == dict.fromkeys(first)


def test_a_named_index_is_a_column_and_one_without_a_name_is_none():
    frame = pandas.DataFrame([{"id": "p", **ROWS[0]}, {"id": "q", **ROWS[1]}])
    assert values(frame.set_index("id"))[1] == {"id": "q", **ROWS[1]}
    assert values(frame.set_index(["prompt", "id"]))[0] == {"prompt": "a", "id": "p", "response": "x", "reward": 1}
    assert values(frame[frame["id"] == "q"])[0] == {"id": "q", **ROWS[1]}


def test_a_column_twice_in_a_frame_is_one_error():
    frame = pandas.DataFrame([[1, 2]], columns=["reward", "reward"])
    with pytest.raises(ValueError, match="the given DataFrame: the column 'reward' is there twice"):
        list(read_records(frame))
    both = pandas.DataFrame({"id": [1]}, index=pandas.Index([2], name="id"))
    with pytest.raises(ValueError, match="the column 'id' is there twice"):
        list(read_records(both))


def test_objects_are_imported_as_files_are(tmp_path):
    store = Store(tmp_path / "store")
    report = import_rows(store, [*ROWS, {"prompt": "", "response": "z"}])
    assert (report.kind, report.tally.num_added, report.num_rejected) == ("table", 2, 1)
    assert report.reject_file is not None and report.reject_file.name == "rows-1.jsonl"
    (reject,) = map(json.loads, report.reject_file.read_text().splitlines())
    assert reject["place"] == "row 3"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert import_rows(store, path).tally.num_duplicates == 2


def test_an_import_refuses_what_can_be_read_once_and_takes_a_function(tmp_path):
    def rows() -> Iterator[dict[str, object]]:
        yield from ROWS

    for once in (rows(), pa.Table.from_pylist(ROWS).to_reader()):
        with pytest.raises(ValueError, match="can be read once, and an import reads its rows up to three times"):
            import_rows(Store(tmp_path / "store"), once)
    assert import_rows(Store(tmp_path / "store"), rows, rules=ImportRules()).tally.num_added == 2
