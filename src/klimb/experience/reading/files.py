"""Read the records of a file one by one, with bounded memory: JSON lines, JSON, CSV and Parquet.

The name's ending says the format; a .gz is unpacked on the way. No line is held beyond a bound. What Python's JSON
reader lets pass and would lose something, a name twice in one object or half a character, is refused.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.reading.records import CutOff, ReadLimits, Record, Reject, Row, RowError
from klimb.experience.reading.strict_json import DECODER

BLOCK_BYTES = 1024**2


LONGEST_KEPT = 2000
"""Bytes kept of a line that is too long."""


@runtime_checkable
class Readable(Protocol):
    """What is asked of an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...

    def readline(self, size: int, /) -> bytes:
        """Up to the next line feed, at most `size` bytes; none at the end."""
        ...


@contextmanager
def open_readable(path: Path, limits: ReadLimits) -> Generator[Readable]:
    """Open the file to be read; a .gz raises ValueError once it has grown beyond `limits` or is found broken."""
    with path.open("rb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        most = max(limits.free_expansion_bytes, int(limits.max_expansion * path.stat().st_size))
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Unpacked(unpacked, most, path)


class _Unpacked:
    """A .gz that is read until it has given more than `most` bytes."""

    def __init__(self, file: gzip.GzipFile, most: int, path: Path) -> None:
        self._file, self._left, self._path = file, most, path

    def read(self, size: int, /) -> bytes:
        try:
            return self._counted(self._file.read(size))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._broken(error) from error

    def readline(self, size: int, /) -> bytes:
        try:
            return self._counted(self._file.readline(size))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._broken(error) from error

    def _counted(self, block: bytes) -> bytes:
        self._left -= len(block)
        if self._left < 0:
            raise ValueError(
                f"{self._path}: grows far more than text does when it is unpacked (a bomb?); "
                "unpack it yourself if you trust it, and import the unpacked file"
            )
        return block

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(f"{self._path}: not a whole gzip file ({error}); the rows before the damage were read")


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its line feed. Of one that is too long, `content` is the beginning."""

    number: int
    offset: int
    content: bytes
    is_too_long: bool = False


def lines(file: Readable, max_line_bytes: int) -> Iterator[Line]:
    """Yield the lines. They end at line feeds alone: JSON text may contain what text mode takes for a line's end."""
    number, offset = 0, 0
    while content := file.readline(max_line_bytes + 1):
        number += 1
        if len(content) <= max_line_bytes or content.endswith(b"\n"):
            yield Line(number, offset, content)
            offset += len(content)
            continue
        kept, length = content[:LONGEST_KEPT], len(content)
        while content and not content.endswith(b"\n"):
            content = file.readline(BLOCK_BYTES)
            length += len(content)
        yield Line(number, offset, kept, is_too_long=True)
        offset += length


UTF8_BOM = b"\xef\xbb\xbf"


def parse_object(text: str) -> dict[str, object]:
    """Return the object that the text is.

    Raises:
        RowError: not JSON, no object, a name twice in one object, nested or digits without end, or half a character.
    """
    try:
        parsed: object = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowError("not JSON", f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RowError("JSON nested too deep", str(error)) from error
    except RowError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise RowError("JSON that cannot be read", str(error)) from error
    return as_row_object(parsed, text)


def as_row_object(parsed: object, text: str) -> dict[str, object]:
    """Return `parsed` if it is an object that can be stored; `text` is where it was read from."""
    if not isinstance(parsed, dict):
        raise RowError("not an object", f"expected {{...}}, got {type(parsed).__name__}")
    values = cast(dict[str, object], parsed)
    # JSON can write half a character (an unpaired \ud800), which no file can store; the pair of an emoji is fine.
    if ("\\ud" in text or "\\uD" in text) and not _is_encodable(values):
        raise RowError("half a character", "an unpaired \\ud... escape stands for no character; write it as UTF-8")
    return values


def decode_line(line: bytes) -> str:
    """Return the line as text; raises RowError if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8", f"{error.reason} at byte {error.start} of the line") from error


def _is_encodable(parsed: object) -> bool:
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    except RecursionError as error:
        raise RowError("JSON nested too deep", str(error)) from error
    return True


def read_csv(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield one record per row; an empty cell is None.

    Raises:
        ValueError: no header, a column twice in it, or a line longer than `limits` allows.
    """
    # The module's own bound is 131 kB, and it is for the whole process; a log's cell may be longer.
    csv.field_size_limit(limits.max_line_bytes)
    with open_readable(path, limits) as file:
        texts = (
            _text(path, line.content, line.number, line.is_too_long) for line in lines(file, limits.max_line_bytes)
        )
        reader = csv.reader(texts, strict=True)
        header = next(reader, list[str]())
        if len(set(header)) != len(header) or not any(header):
            raise ValueError(f"{path}: the first line of a CSV file names each column once, got {header}")
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Reject(f"{name}:{reader.line_num}", "not CSV", str(error), "")
                continue
            if cells is None:
                return
            if cells:
                yield _csv_record(f"{name}:{reader.line_num}", header, cells)


def _csv_record(place: str, header: Sequence[str], cells: Sequence[str]) -> Record:
    raw = json.dumps(cells, ensure_ascii=True)
    if len(cells) != len(header):
        detail = f"{len(cells)} cells for {len(header)} columns; put text with commas between double quotes"
        return Reject(place, "wrong number of cells", detail, raw)
    if not "".join(cells).isascii() and any("\udc80" <= character <= "\udcff" for character in "".join(cells)):
        return Reject(place, "not UTF-8", "save the file as UTF-8", raw)
    values = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    return Row(place, values, json.dumps(values, ensure_ascii=False), is_text=True)


def _text(path: Path, content: bytes, number: int, is_too_long: bool) -> str:
    if is_too_long:
        raise ValueError(f"{path}, line {number}: longer than a CSV line may be; write long texts as JSONL")
    content = content.removeprefix(UTF8_BOM) if number == 1 else content
    return content.decode("utf-8", "surrogateescape")


LONGEST_JSON_KEPT = 2000


_BLANK = " \t\r\n"


def read_json(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield a record per element. What follows a broken element cannot be found and is rejected as one record."""
    with open_readable(path, limits) as file:
        text, number = _Text(file), 0
        try:
            is_array = text.next_character() == "["
            if is_array:
                text.drop(1)
            while text.next_character() not in ("", "]"):
                number += 1
                yield _element(text, f"{name}:element {number}", limits)
                if is_array:
                    text.drop_comma()
            if is_array:
                text.close()
            elif text.next_character():
                raise RowError("not JSON", "a closing bracket that nothing opens")
        except RowError as error:
            place = f"{name}: after element {number}" if number else name
            yield Reject(place, error.reason, error.detail, text.kept[:LONGEST_JSON_KEPT])


def _element(text: "_Text", place: str, limits: ReadLimits) -> Record:
    raw, parsed = text.take_value(limits.max_line_bytes)
    try:
        return Row(place, as_row_object(parsed, raw), raw)
    except RowError as error:
        return Reject(place, error.reason, error.detail, raw[:LONGEST_JSON_KEPT])


class _Text:
    """The part of the file's text that is held: from where reading stands to the last block read."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        # Python's decoder for this mark drops a part of it silently where the file ends there.
        self._start = file.read(len(UTF8_BOM)).removeprefix(UTF8_BOM)
        self.kept = ""
        self._at_end = False

    def next_character(self) -> str:
        """Return the next character that is not blank, which stays; empty at the end of the file."""
        while True:
            self.kept = self.kept.lstrip(_BLANK)
            if self.kept or not self._more(BLOCK_BYTES):
                return self.kept[:1]

    def drop(self, count: int) -> None:
        """Go on behind `count` characters."""
        self.kept = self.kept[count:]

    def drop_comma(self) -> None:
        """Go on behind the comma between elements, if another one follows."""
        following = self.next_character()
        if following == ",":
            self.drop(1)
            if self.next_character() in ("", "]"):
                raise RowError("not JSON", "a comma with no element behind it")
        elif following not in ("", "]"):
            raise RowError("not JSON", f"expected a comma between the elements of an array, got {following!r}")

    def close(self) -> None:
        """Check that the array is closed and that nothing follows."""
        if self.next_character() != "]":
            raise RowError("cut off", "the array is not closed; the elements before were read")
        self.drop(1)
        if self.next_character():
            raise RowError("not JSON", f"text behind the array: {self.kept[:20]!r}")

    def take_value(self, most: int) -> tuple[str, object]:
        """Take the next value and its text. Raises RowError if it is broken or longer than `most` characters."""
        size = BLOCK_BYTES
        while True:
            try:
                parsed, end = DECODER.raw_decode(self.kept)
                # What touches the end of the block may go on in the next one: 1|2.
                if end < len(self.kept) or not self._more(size):
                    raw = self.kept[:end]
                    self.drop(end)
                    return raw, parsed
            except json.JSONDecodeError as error:
                if len(self.kept) > most:
                    raise RowError("line too long", f"an element of more than {most} characters, or broken") from error
                if not self._more(size):
                    raise RowError("not JSON", f"{error.msg}, {len(self.kept)} characters before the end") from error
            except RecursionError as error:
                raise RowError("JSON nested too deep", str(error)) from error
            except RowError:
                raise
            except ValueError as error:  # an integer of thousands of digits
                raise RowError("JSON that cannot be read", str(error)) from error
            size *= 2  # so that a long value is tried a few times only

    def _more(self, size: int) -> bool:
        """Read another block; False at the end of the file."""
        if self._at_end:
            return False
        block, self._start = self._start + self._file.read(size), b""
        self._at_end = not block
        try:
            self.kept += self._decoder.decode(block, final=self._at_end)
        except UnicodeDecodeError as error:
            raise RowError("not UTF-8", f"{error.reason}; save the file as UTF-8") from error
        return not self._at_end


def read_jsonl(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield one record per line that is not blank: a row, a reject, or at the end a line that is cut off."""
    with open_readable(path, limits) as file:
        for line in lines(file, limits.max_line_bytes):
            content = line.content.removeprefix(UTF8_BOM) if line.number == 1 else line.content
            if content.strip():
                yield _jsonl_record(name, line, content, limits)


def _jsonl_record(name: str, line: Line, content: bytes, limits: ReadLimits) -> Record:
    place = f"{name}:{line.number}"
    if line.is_too_long:
        detail = f"more than {limits.max_line_bytes} bytes"
        return Reject(f"{place} (byte {line.offset})", "line too long", detail, shown(content))
    try:
        text = decode_line(content)
        return Row(place, parse_object(text), text.strip())
    except RowError as error:
        if not content.endswith(b"\n") and error.reason in ("not JSON", "not UTF-8"):
            return CutOff(place)
        return Reject(f"{place} (byte {line.offset})", error.reason, error.detail, shown(content))


def shown(content: bytes) -> str:
    """Return bytes as text for people; what is not UTF-8 is written in hexadecimal."""
    return content.decode("utf-8", "backslashreplace").strip()


BATCH_ROWS = 1024


def read_parquet(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield the rows; a row's place is its number, from 1.

    Raises:
        ValueError: the file is cut short or of another kind.
    """
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for index in range(len(batch)):
                    number += 1
                    yield _parquet_record(f"{name}:row {number}", batch, index, limits)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole Parquet file ({error}); it was cut short or is of another kind"
        ) from error


def _parquet_record(place: str, batch: pa.RecordBatch, index: int, limits: ReadLimits) -> Record:
    try:
        values = {column: batch.column(column)[index].as_py() for column in batch.schema.names}
    except UnicodeDecodeError as error:
        return Reject(place, "not UTF-8", error.reason, "")
    raw = json.dumps(values, ensure_ascii=False, default=str)
    if len(raw) > limits.max_line_bytes:
        return Reject(place, "line too long", f"more than {limits.max_line_bytes} characters", raw[:2000])
    return Row(place, values, raw)


READERS: Mapping[str, Callable[[Path, str, ReadLimits], Iterator[Record]]] = MappingProxyType(
    {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".json": read_json, ".csv": read_csv, ".parquet": read_parquet}
)


ENDINGS = tuple(READERS)


def has_known_ending(path: Path) -> bool:
    """Whether the name says a format that is read."""
    return _ending(path) in READERS and not (path.suffix.lower() == ".gz" and _ending(path) == ".parquet")


def _ending(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_file(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield what one file holds, in its order; `name` stands in the places."""
    return READERS[_ending(path)](path, name, limits)
