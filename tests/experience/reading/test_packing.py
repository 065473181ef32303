"""Packed text: read like its content, bounded, and never guessed."""

import codecs
import gzip
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from klimb.experience.importing import ReadLimits, Row, read_records

GOOD = b'{"a": 1}\n'
CSV = b"a\n1\n"


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def plain_gzip(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=0)


PACKINGS = [(".gz", gzip.compress), (".zst", zstd)]


def rows(path: Path, content: bytes, **limits: int):
    path.write_bytes(content)
    return list(read_records(path, ReadLimits(**limits)))


@pytest.mark.parametrize(("ending", "pack"), PACKINGS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", GOOD * 3),
        ("a.ndjson", codecs.BOM_UTF16_LE + (GOOD * 3).decode().encode("utf-16-le")),
        ("a.json", b'{"data": [{"a": 1}, {"a": 1}, {"a": 1}]}'),
        ("a.csv", b"a;b\r1;2\r1;2\r1;2\r"),
        ("a.tsv", b"a\tb\n1\t2\n1\t2\n1\t2\n"),
    ],
)
def test_a_packed_file_is_read_like_its_content(
    tmp_path: Path, name: str, content: bytes, ending: str, pack: Callable[[bytes], bytes]
):
    found, plain = rows(tmp_path / (name + ending), pack(content)), rows(tmp_path / name, content)
    assert len(found) == 3
    for packed, unpacked in zip(found, plain, strict=True):
        assert isinstance(packed, Row) and isinstance(unpacked, Row)
        assert (packed.values, packed.raw, packed.is_text) == (unpacked.values, unpacked.raw, unpacked.is_text)
        assert packed.place == unpacked.place.replace(name, name + ending)


@pytest.mark.parametrize(("ending", "pack"), PACKINGS)
def test_several_parts_one_behind_the_other_are_one_file(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]):
    assert len(rows(tmp_path / f"a.jsonl{ending}", pack(GOOD) + pack(GOOD * 2))) == 3


@pytest.mark.parametrize(("ending", "pack"), PACKINGS)
def test_a_bomb_is_not_unpacked(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]):
    bomb = pack(b"x" * 30_000_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="bomb"):
        rows(tmp_path / f"a.jsonl{ending}", bomb, free_expansion_bytes=1_000_000, max_line_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15_000_000


@pytest.mark.parametrize(("ending", "pack"), [(".gz", plain_gzip), (".zst", zstd)])
@pytest.mark.parametrize("damage", [lambda content: content[:-50], lambda content: content + b"more"])
def test_a_damaged_file_is_one_error_behind_the_rows_before_the_damage(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
):
    path = tmp_path / f"a.jsonl{ending}"
    draw = random.Random(0)
    lines = b"".join(b'{"a": "%s"}\n' % draw.randbytes(500).hex().encode() for _ in range(3000))
    path.write_bytes(damage(pack(lines)))
    found = []
    with pytest.raises(ValueError, match=r"a.jsonl\.(gz|zst): not a whole (gzip|zstd) file .*; the rows before"):
        for record in read_records(path):
            found.append(record)
    assert len(found) > 1000 and all(isinstance(record, Row) for record in found)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_is_not_packed_as_its_name_says_is_one_error(tmp_path: Path, ending: str):
    with pytest.raises(ValueError, match=r"not a whole (gzip|zstd) file"):
        rows(tmp_path / f"a.jsonl{ending}", GOOD)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(GOOD, mtime=0), "packed with gzip, which its name does not say: add .gz"),
        (zstd(GOOD), "packed with zstd, which its name does not say: add .zst"),
        (b"PK\x03\x04....", "a zip archive or an Excel workbook"),
        (b"PAR1....PAR1", "a Parquet file: let its name end in .parquet"),
        (gzip.compress(zstd(GOOD), mtime=0), "packed with gzip"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_what_is_no_text_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, what: str):
    with pytest.raises(ValueError, match=f"{name}: {what}"):
        rows(tmp_path / name, content)


def test_a_file_packed_twice_is_called_what_it_is(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a.jsonl.gz: packed with zstd"):
        rows(tmp_path / "a.jsonl.gz", gzip.compress(zstd(GOOD)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7\n1 0 obj\n", "a PDF: export the data itself"),
        (b"<!DOCTYPE html>\n<html>sign in</html>\n", "a web page: was it saved in place of the file"),
        (b"<html>\n", "a web page"),
        (b"SQLite format 3\0\x10\0", "an SQLite database: export the table"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_what_is_no_data_under_the_name_of_data_says_what_it_is(
    tmp_path: Path, name: str, content: bytes, message: str
):
    with pytest.raises(ValueError, match=message):
        rows(tmp_path / name, content)
