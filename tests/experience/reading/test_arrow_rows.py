"""Each type of Arrow gives a value, or one clear line; Parquet and Arrow files are read alike."""

import datetime
import json
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from klimb.experience.importing import ReadLimits, Reject, Row, read_records

NANOSECONDS = 1_779_999_999_123_456_789
MOMENT = datetime.datetime(2026, 5, 28, 20, 26, 39, 123456)


def cell(kind: Any, value: object) -> object:
    column = value if isinstance(value, pa.Array) else pa.array([value], kind)
    (row,) = read_records(pa.table({"a": column}))
    assert isinstance(row, Row), row
    assert json.loads(row.raw).keys() == {"a"}
    return row.values["a"]


def nanoseconds(kind: Any, value: int = NANOSECONDS) -> Any:
    return pa.array([value], pa.int64()).cast(kind)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.null(), None, None),
        (pa.bool_(), True, True),
        (pa.uint64(), 2**64 - 1, 2**64 - 1),
        (pa.float16(), 1.5, 1.5),
        (pa.float32(), 0.5, 0.5),
        (pa.decimal128(5, 2), Decimal("1.10"), 1.1),
        (pa.decimal128(30, 0), Decimal(10**25 + 1), 10**25 + 1),
        (pa.decimal256(50, 3), None, None),
        (pa.date32(), datetime.date(2026, 5, 28), "2026-05-28"),
        (pa.date64(), datetime.date(2026, 5, 28), "2026-05-28"),
        (pa.time32("s"), datetime.time(1, 2, 3), "01:02:03"),
        (pa.time64("us"), datetime.time(1, 2, 3, 4), "01:02:03.000004"),
        (pa.time64("ns"), nanoseconds(pa.time64("ns"), 1_000_000_999), "00:00:01"),
        (pa.duration("ms"), datetime.timedelta(milliseconds=1500), 1.5),
        (pa.duration("ns"), nanoseconds(pa.duration("ns"), 1_500_000_999), 1.5),
        (pa.timestamp("s"), MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=0)),
        (pa.timestamp("ns"), nanoseconds(pa.timestamp("ns")), MOMENT),
        (pa.timestamp("ns", "UTC"), nanoseconds(pa.timestamp("ns", "UTC")), MOMENT.replace(tzinfo=datetime.UTC)),
        (pa.large_string(), "ä", "ä"),
        (pa.string_view(), "ä", "ä"),
        (pa.binary(), "ä".encode(), "ä"),
        (pa.binary(2), b"ab", "ab"),
        (pa.large_binary(), b"\xff\0", b"\xff\0"),
        (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
        (pa.dictionary(pa.int8(), pa.binary()), b"x", "x"),
        (pa.list_(pa.date32()), [datetime.date(2026, 5, 28), None], ["2026-05-28", None]),
        (pa.large_list(pa.int8()), [1, 2], [1, 2]),
        (pa.list_(pa.int8(), 2), [1, 2], [1, 2]),
        (pa.list_view(pa.int8()), [1, 2], [1, 2]),
        (pa.struct([("b", pa.binary()), ("c", pa.int8())]), {"b": b"x", "c": 1}, {"b": "x", "c": 1}),
        (pa.struct([("b", pa.binary())]), None, None),
        (pa.map_(pa.string(), pa.int8()), [("x", 1), ("y", 2)], {"x": 1, "y": 2}),
        (pa.map_(pa.int8(), pa.decimal128(3, 1)), [(1, Decimal("0.5"))], {"1": 0.5}),
        (pa.map_(pa.string(), pa.int8()), [("x", 1), ("x", 2)], [["x", 1], ["x", 2]]),
        (pa.month_day_nano_interval(), (1, 2, 3), [1, 2, 3]),
    ],
    ids=str,
)
def test_each_type_gives_a_value(kind: Any, value: object, expected: object):
    found = cell(kind, value)
    assert found == expected and type(found) is type(expected)


def test_what_holds_json_by_its_type_gives_what_it_says():
    storage = pa.array(['{"x": [1]}', "{", None])
    rows = list(read_records(pa.table({"a": pa.ExtensionArray.from_storage(pa.json_(), storage)})))
    assert [row.values["a"] for row in rows if isinstance(row, Row)] == [{"x": [1]}, "{", None]


def test_runs_and_unions_give_their_values():
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"])
    union = pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["x", "y", "z"])])
    rows = list(read_records(pa.table({"a": runs, "b": union})))
    assert [row.values for row in rows if isinstance(row, Row)] == [
        {"a": "x", "b": 1},
        {"a": "x", "b": "y"},
        {"a": "y", "b": 3},
    ]


def test_nanoseconds_inside_of_lists_and_objects_are_read():
    moments = nanoseconds(pa.timestamp("ns"))
    lists = pa.ListArray.from_arrays([0, 1], moments)
    objects = pa.StructArray.from_arrays([lists], ["b"])
    assert cell(None, objects) == {"b": [MOMENT]}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([0, 10**15], pa.timestamp("s")), "a value that cannot be read"),
        (pa.array([0, 10**8], pa.int32()).cast(pa.date32()), "a value that cannot be read"),
        (pa.array([0, 10**15], pa.duration("s")), "a value that cannot be read"),
        (pa.array([b"x", b"\xff"]).cast(pa.string(), safe=False), "not UTF-8"),
    ],
    ids=["year", "day", "duration", "text"],
)
def test_a_value_that_python_has_no_form_of_rejects_its_row_alone(column: Any, reason: str):
    good, bad = read_records(pa.table({"n": [1, 2], "a": column}))
    assert isinstance(good, Row) and good.values["n"] == 1
    assert isinstance(bad, Reject) and (bad.reason, bad.place) == (reason, "row 2") and "column 'a'" in bad.detail


def test_a_time_zone_that_nobody_knows_is_one_clear_line_a_row():
    (bad,) = read_records(pa.table({"a": pa.array([0], pa.timestamp("s", "Mars/Olympus"))}))
    assert isinstance(bad, Reject) and "Mars/Olympus" in bad.detail


def write(table: Any, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, str(path))
    else:  # as `datasets` keeps it
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_files_of_three_forms_give_the_same_rows_with_their_numbers(tmp_path: Path, name: str):
    table = pa.table({"a": list(range(3000)), "b": [[0.5]] * 3000})
    rows = list(read_records(write(table, tmp_path / name)))
    last = rows[-1]
    assert isinstance(last, Row) and len(rows) == 3000
    assert (last.place, last.values) == (f"{name}:row 3000", {"a": 2999, "b": [0.5]})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_name_twice_is_one_error_that_says_so(tmp_path: Path, name: str):
    twice = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["reward", "prompt", "reward"])
    path = write(twice, tmp_path / name) if name != "a.feather" else write(twice, tmp_path / "b.arrow")
    with pytest.raises(ValueError, match=f"{path.name}: the column 'reward' is there twice; each needs a name of its"):
        list(read_records(path))


def test_a_name_twice_in_an_object_is_one_error_that_says_where():
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(ValueError, match=r"the column 'a', in it the field .*'x' is there twice"):
        list(read_records(pa.table({"a": pa.ListArray.from_arrays([0, 1], inner)})))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("damage", [lambda content: content[:-60], lambda content: b"not what its name says"])
def test_a_file_that_is_not_whole_is_one_error(tmp_path: Path, name: str, damage: Any):
    path = write(pa.table({"a": list(range(3000))}), tmp_path / name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{name}: not a whole (Parquet|Arrow) file"):
        list(read_records(path))


def test_the_first_feather_is_named(tmp_path: Path):
    (tmp_path / "a.feather").write_bytes(b"FEA1" + b"\0" * 20)
    with pytest.raises(ValueError, match="the first version of Feather, which is not read; write it as Parquet"):
        list(read_records(tmp_path / "a.feather"))


def test_lengths_that_lie_in_an_arrow_file_are_found_before_they_are_followed(tmp_path: Path):
    path = write(pa.table({"a": ["x" * 10, "y" * 10]}), tmp_path / "a.arrow")
    content = path.read_bytes()
    assert content.count((20).to_bytes(4, "little")) >= 1
    path.write_bytes(content.replace((20).to_bytes(4, "little"), (2_000_000_000).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="not a whole Arrow file"):
        list(read_records(path))


def test_moments_to_the_nanosecond_are_read_where_there_is_no_pandas(tmp_path: Path):
    path = write(pa.table({"a": nanoseconds(pa.timestamp("ns", "Europe/Berlin"))}), tmp_path / "a.parquet")
    (tmp_path / "pandas.py").write_text("raise ImportError('no pandas here')")
    program = (
        "import sys; from pathlib import Path; from klimb.experience.reading import read_records\n"
        "print(*(row.values['a'].isoformat() for row in read_records(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2026-05-28T22:26:39.123456+02:00", done.stderr


def test_nan_of_a_file_stays_what_it_is():
    assert math.isnan(float(str(cell(pa.float64(), math.nan))))


def test_parquet_text_that_is_not_utf_8_and_rows_that_are_too_long_are_rejected(tmp_path: Path):
    path = tmp_path / "a.parquet"
    column = pa.array([b"a", b"\xff", b"x" * 100]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"a": column}), path)
    found = list(read_records(path, ReadLimits(max_line_bytes=50)))
    assert [record.reason if isinstance(record, Reject) else "" for record in found] == [
        "",
        "not UTF-8",
        "line too long",
    ]
