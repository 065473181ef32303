"""Whatever the bytes: records or one line of a ValueError, and all that was written is accounted for."""

import codecs
import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.experience.importing import CutOff, ReadLimits, Reject, Row, read_records

TEXT = ("a.jsonl", "a.json", "a.csv", "a.tsv")
NAMES = (*TEXT, *(f"{name}{packing}" for name in TEXT for packing in (".gz", ".zst")), "a.parquet", "a.arrow")


def _packed(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def _tables() -> list[bytes]:
    table = pa.table({"a": [1, None, 3], "b": ["x", "y", None], "c": [[{"d": 0.5}], [], None]})
    parquet, arrow, file = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return [parquet.getvalue(), arrow.getvalue(), file.getvalue()]


WHOLE = [
    b'{"a": 1}\n{"a": "\xc3\xa4"}\n',
    b'[{"a": 1}, {"a": [{"b": null}]}]',
    b'{"data": [{"a": 1}, {"a": 2}], "has_more": false}',
    b'a,b\r\n1,"x, ""y""\nz"\r\n',
    b"a;b\r1;2\r",
    codecs.BOM_UTF16_LE + "a,b\n1,ä\n".encode("utf-16-le"),
    *_tables(),
]
WHOLE += [pack(content) for content in WHOLE[:4] for pack in (gzip.compress, _packed)]


@st.composite
def damaged(draw: Any) -> bytes:
    """A whole file of some format of which a few bytes are others, are missing or are there twice."""
    content = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 8))
        content = content[:at] + draw(st.binary(max_size=8)) + content[at + length :]
    return content


def check(path: Path, content: bytes, max_line_bytes: int) -> None:
    path.write_bytes(content)
    try:
        for record in read_records(path, ReadLimits(max_line_bytes=max_line_bytes, free_expansion_bytes=100_000)):
            assert isinstance(record, Row | Reject | CutOff)
            assert record.place.startswith(path.name)
            if isinstance(record, Reject):
                assert record.reason and "\n" not in record.reason + record.detail
                record.text.encode("utf-8")
    except ValueError as error:
        assert type(error) is ValueError and path.name in str(error)
        assert "\n" not in str(error).strip()


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=100), damaged()),
    name=st.sampled_from(NAMES),
    most=st.sampled_from([20, 10**6]),
)
def test_any_bytes_end_in_records_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, most: int
):
    check(tmp_path_factory.mktemp("bytes") / name, content, most)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(content=st.one_of(st.binary(max_size=300), damaged()), name=st.sampled_from(NAMES), most=st.integers(1, 100))
def test_many_bytes_end_in_records_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, most: int
):
    check(tmp_path_factory.getbasetemp() / name, content, most)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_writer_of_csv_quotes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str, end: str, encoding: str
):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([("one", "two"), *rows])
    found = [
        tuple(cell or "" for cell in record.values.values()) for record in read_records(path) if isinstance(record, Row)
    ]
    assert found == rows
