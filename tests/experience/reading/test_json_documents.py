"""JSON documents: arrays and objects, read an element at a time."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from klimb.experience.importing import CutOff, ReadLimits, Reject, Row, read_records
from klimb.experience.reading.packing import NOT_TEXT


def records(path: Path, content: bytes, **limits: int) -> list[Row | Reject | CutOff]:
    path.write_bytes(content)
    return list(read_records(path, ReadLimits(**limits)))


def says_what_it_is(content: bytes) -> bool:
    """Begins with the mark of another encoding or format, or with NULs as UTF-16 has them."""
    return content.startswith((b"\xff\xfe", b"\xfe\xff", *NOT_TEXT)) or b"\0" in content[:4]


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


@pytest.fixture(scope="module")
def monkeypatch_blocks():
    """Blocks of three bytes, so that every value falls into several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klimb.experience.reading.packing.BLOCK_BYTES", 3)
        yield


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
