import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from klimb.experience.importing import CutOff, ReadLimits, Reject, Row, read_records
from klimb.experience.reading.packing import NOT_TEXT


def records(path: Path, content: bytes, **limits: int) -> list[Row | Reject | CutOff]:
    path.write_bytes(content)
    return list(read_records(path, ReadLimits(**limits)))


GOOD = b'{"a": 1}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1\n', "not JSON"),
        (b"]\n", "not JSON"),
        (b"[1, 2]\n", "not an object"),
        (b"null\n", "not an object"),
        (b'{"a": "\xff"}\n', "not UTF-8"),
        (b'{"a": "\\ud800"}\n', "half a character"),
        (b'{"a": {"\\uDC00": 1}}\n', "half a character"),
        (b"[" * 100_000 + b"\n", "JSON nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "JSON that cannot be read"),
        (b'{"reward": 0, "reward": 1}\n', "a name twice in one object"),
        (b'{"a": "' + b"x" * 150_000 + b'"}\n', "line too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_line_is_rejected_with_its_place_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str):
    first, broken, last = records(tmp_path / "a.jsonl", GOOD + line + GOOD, max_line_bytes=140_000)
    assert isinstance(first, Row) and isinstance(last, Row) and isinstance(broken, Reject)
    assert (first.place, broken.place, last.place) == ("a.jsonl:1", f"a.jsonl:2 (byte {len(GOOD)})", "a.jsonl:3")
    assert broken.reason == reason


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'\xef\xbb\xbf{"a": "b"}\n', "b"),
        (b'{"a": "b"}\r\n', "b"),
        (b'{"a": "b"}', "b"),
        ('{"a": "b\u2028c"}\n'.encode(), "b\u2028c"),
        (b'{"a": "b\\u0000c"}\n', "b\0c"),
        (b'{"a": "\\ud83e\\uddd7"}\n', "🧗"),
        ('{"a": "🧗 \u202e שלום"}\n'.encode(), "🧗 \u202e שלום"),
        (b'\n  \n{"a": "b"}\n\n', "b"),
    ],
    ids=["BOM", "CRLF", "no line feed", "U+2028", "NUL", "emoji escape", "right to left", "blank lines"],
)
def test_text_comes_through_as_it_was_written(tmp_path: Path, content: bytes, text: str):
    (row,) = records(tmp_path / "a.jsonl", content)
    assert isinstance(row, Row)
    assert row.values == {"a": text}
    assert json.loads(row.raw) == row.values


@pytest.mark.parametrize("end", [b'{"a": ', '{"a": "é'.encode()[:-1]])
def test_a_last_line_that_is_still_being_written_is_neither_a_row_nor_a_reject(tmp_path: Path, end: bytes):
    assert [type(record) for record in records(tmp_path / "a.jsonl", GOOD + end)] == [Row, CutOff]


def test_a_long_line_is_passed_over_without_being_held(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"x" * 30_000_000 + b"\n" + GOOD)
    tracemalloc.start()
    found = [type(record) for record in read_records(path, ReadLimits(max_line_bytes=10_000))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [Row, Reject, Row]
    assert peak < 5_000_000


def says_what_it_is(content: bytes) -> bool:
    """Begins with the mark of another encoding or format, or with NULs as UTF-16 has them."""
    return content.startswith((b"\xff\xfe", b"\xfe\xff", *NOT_TEXT)) or b"\0" in content[:4]


_LINES = st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b'{"a": 1}', b"[", b"\xef\xbb\xbf", b"{}\r\n"])))


@given(lines=_LINES, ends_with_line_feed=st.booleans())
def test_whatever_the_bytes_every_line_is_a_row_a_reject_or_cut_off(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends_with_line_feed: bool
):
    content = b"\n".join(lines) + (b"\n" if ends_with_line_feed else b"")
    assume(not says_what_it_is(content) and b"\r" not in content)
    found = records(tmp_path_factory.mktemp("fuzz") / "a.jsonl", content, max_line_bytes=20)
    expected = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert len(found) == len(expected)
    assert all(not isinstance(record, CutOff) for record in found[:-1])


@given(content=st.binary(max_size=200))
def test_a_json_file_of_any_bytes_ends_in_records(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    assume(not says_what_it_is(content))
    found = records(tmp_path_factory.mktemp("fuzz") / "a.json", content)
    significant = content.removeprefix(b"\xef\xbb\xbf").translate(None, b" \t\r\n")
    assert bool(found) == (significant not in (b"", b"[]"))


@pytest.mark.parametrize(("content", "num_rows"), [(b"]", 0), (b'{"a": 1}]', 1)])
def test_a_closing_bracket_that_nothing_opens_is_rejected(tmp_path: Path, content: bytes, num_rows: int):
    *rows, last = records(tmp_path / "a.json", content)
    assert len(rows) == num_rows and all(isinstance(row, Row) for row in rows)
    assert isinstance(last, Reject) and last.reason == "not JSON"


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=20), max_size=3), max_size=5),
    block=st.integers(1, 9),
)
def test_an_array_is_read_the_same_however_it_falls_into_blocks(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch_blocks: None, rows: list[dict[str, str]], block: int
):
    path = tmp_path_factory.mktemp("blocks") / "a.json"
    path.write_text(json.dumps(rows, indent=block), encoding="utf-8")
    assert [record.values for record in read_records(path) if isinstance(record, Row)] == rows


@pytest.fixture(scope="module")
def monkeypatch_blocks():
    """Blocks of three bytes, so that every value falls into several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klimb.experience.reading.packing.BLOCK_BYTES", 3)
        yield


@pytest.mark.parametrize(
    ("content", "num_rows", "reason"),
    [
        (b'[{"a": 1}, {"a": 2}]', 2, None),
        (b'{"a": 1}', 1, None),
        (b'{"a": 1}\n{"a": 2}\n', 2, None),
        (b"[]", 0, None),
        (b'\xef\xbb\xbf[{"a": 1}]', 1, None),
        (b"\xef\xbb", 0, "not UTF-8"),
        (b'[{"a": 1}, {"a": 2}', 2, "cut off"),
        (b'[{"a": 1}, {"a": ', 1, "not JSON"),
        (b'[{"a": 1} {"a": 2}]', 1, "not JSON"),
        (b'[{"a": 1},]', 1, "not JSON"),
        (b'[{"a": 1}] x', 1, "not JSON"),
        (b'[{"a": 1}, 12]', 1, "not an object"),
        (b'[{"a": "\xff"}]', 0, "not UTF-8"),
        (b'[{"a": "' + b"x" * 3000 + b'"}]', 0, "line too long"),
    ],
)
def test_an_array_gives_its_elements_up_to_where_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, num_rows: int, reason: str | None
):
    monkeypatch.setattr("klimb.experience.reading.packing.BLOCK_BYTES", 16)
    found = records(tmp_path / "a.json", content, max_line_bytes=1000)
    assert sum(isinstance(record, Row) for record in found) == num_rows
    assert [record.reason for record in found if isinstance(record, Reject)] == ([reason] if reason else [])


def test_csv_cells_may_hold_commas_quotes_and_lines(tmp_path: Path):
    content = '\ufeffprompt,response\r\n"a, ""b""\nc",d\u2028e\r\n,x\r\n'.encode()
    first, second = records(tmp_path / "a.csv", content)
    assert isinstance(first, Row) and isinstance(second, Row)
    assert first.values == {"prompt": 'a, "b"\nc', "response": "d\u2028e"}
    assert second.values == {"prompt": None, "response": "x"}
    assert first.is_text


@pytest.mark.parametrize(
    ("line", "reason"), [(b"1,2,3", "wrong number of cells"), (b"1,\xff", "not UTF-8"), (b'1,"a"b', "not CSV")]
)
def test_a_broken_csv_row_is_rejected_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str):
    broken, good = records(tmp_path / "a.csv", b"a,b\n" + line + b"\n3,4\n")
    assert isinstance(broken, Reject) and broken.reason == reason and broken.place == "a.csv:2"
    assert isinstance(good, Row) and good.values == {"a": "3", "b": "4"}


def test_a_quote_that_is_never_closed_is_a_reject(tmp_path: Path):
    assert [type(record) for record in records(tmp_path / "a.csv", b'a,b\n1,2\n"3,4\n5,6\n')] == [Row, Reject]


def test_parquet_rows_come_with_their_numbers(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": list(range(3000)), "b": [[0.5]] * 3000}), path)
    rows = [record for record in read_records(path) if isinstance(record, Row)]
    assert (len(rows), rows[2999].place, rows[2999].values) == (3000, "a.parquet:row 3000", {"a": 2999, "b": [0.5]})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        list(read_records(path))


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


def test_a_packed_file_is_read_like_its_content(tmp_path: Path):
    assert [type(r) for r in records(tmp_path / "a.jsonl.gz", gzip.compress(GOOD * 3))] == [Row] * 3
    assert [type(r) for r in records(tmp_path / "a.json.gz", gzip.compress(b'[{"a": 1}]'))] == [Row]
    with pytest.raises(ValueError, match="not a whole gzip file"):
        records(tmp_path / "a.json.gz", b"[{}]")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path):
    bomb = gzip.compress(b"x" * 10_000_000)
    with pytest.raises(ValueError, match="bomb"):
        records(tmp_path / "a.jsonl.gz", bomb, free_expansion_bytes=1_000_000)


def test_a_packed_file_that_is_cut_short_is_an_error_after_its_rows(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 1000, compresslevel=0)[:-100])
    rows = []
    with pytest.raises(ValueError, match="not a whole gzip file"):
        for record in read_records(path):
            rows.append(record)
    assert len(rows) > 900


@pytest.mark.parametrize(
    ("name", "error"), [("a.txt", ValueError), ("a.parquet.gz", ValueError), ("b.jsonl", FileNotFoundError)]
)
def test_a_file_of_no_known_kind_is_an_error(tmp_path: Path, name: str, error: type[Exception]):
    if error is ValueError:
        (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(error):
        read_records(tmp_path / name)
    with pytest.raises(ValueError, match="a folder without data files"):
        read_records(tmp_path)
