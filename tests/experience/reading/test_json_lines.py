"""JSON lines: each a row, a reject, or the last one cut off."""

import json
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from klimb.experience.importing import CutOff, ReadLimits, Reject, Row, read_records
from klimb.experience.reading.packing import NOT_TEXT
from klimb.experience.reading.records import RowError
from klimb.experience.reading.strict_json import parse_object


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


@pytest.mark.parametrize("content", [b'{"a": 1}\r{"a": 2}\r', b'{"a": 1}\r\r{"a": 2}'])
def test_lines_may_end_in_bare_carriage_returns(tmp_path: Path, content: bytes):
    first, second = records(tmp_path / "a.jsonl", content)
    assert isinstance(first, Row) and isinstance(second, Row) and (first.values, second.values) == ({"a": 1}, {"a": 2})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_lines_of_another_encoding_are_read_by_their_mark(tmp_path: Path, encoding: str):
    (row,) = records(tmp_path / "a.jsonl", '{"a": "größer 🧗"}\n'.encode(encoding))
    assert isinstance(row, Row) and row.values == {"a": "größer 🧗"}


def test_a_document_in_place_of_lines_is_called_one(tmp_path: Path):
    first, *_ = records(tmp_path / "a.jsonl", b'[\n{"a": 1},\n{"a": 2}\n]\n')
    assert isinstance(first, Reject) and first.detail.endswith("let the name of a JSON document end in .json")


def test_a_name_that_is_there_twice_among_many_is_found_in_one_pass():
    names = ",".join(f'"k{number}":0' for number in range(100_000))
    began = time.perf_counter()
    with pytest.raises(RowError, match="a name twice in one object: 'k99999'"):
        parse_object(f'{{{names},"k99999":1}}')
    assert time.perf_counter() - began < 5  # in as many passes as there are names it would be a minute and a half
