"""Rows of a data file, each with the line it stands on. The extension says the format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

UTF8_BOM = b"\xef\xbb\xbf"
LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Row:
    """One record and where it is: `place` is `data.jsonl:17` for people."""

    place: str
    values: Mapping[str, object]


def read_rows(path: Path) -> list[Row]:
    """Returns all rows of a `.jsonl`, `.csv` or `.parquet` file.

    Raises:
        ValueError: naming file and line, if the file is missing, empty, of another kind, or a line cannot be read.
    """
    readers = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "; write one object per line and call it .jsonl" if path.suffix.lower() == ".json" else ""
        raise ValueError(f"{path}: a data file must end in {', '.join(readers)}, got {path.suffix!r}{hint}")
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else f"does not exist (looked in {path.absolute().parent})"
        raise ValueError(f"data file {path} {what}")
    rows = list(reader(path))
    if not rows:
        raise ValueError(f"data file {path} has no rows")
    return rows


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yields one row per line that is not blank.

    Lines end at line feeds alone: text mode's `splitlines` would also cut at U+2028, which JSON strings may contain.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(UTF8_BOM) if number == 1 else line
            if line.strip():
                yield Row(f"{path.name}:{number}", parse_object(line, f"{path}, line {number}"))


def parse_object(line: bytes, place: str) -> dict[str, object]:
    """Returns the JSON object on a line, or raises ValueError with the place."""
    try:
        parsed = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}; got {short(line)}") from error
    except (RecursionError, ValueError) as error:  # nested or digits without end
        raise ValueError(f"{place}: JSON that cannot be read: {error}; got {short(line)}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{place}: expected an object {{...}}, one per line, got {short(line)}")
    if b"\\ud" in line.lower() and not is_encodable(parsed):
        raise ValueError(f"{place}: half a character (an unpaired \\ud... escape); got {short(line)}")
    return parsed


def is_encodable(parsed: object) -> bool:
    """Returns False for text with lone surrogates: JSON can write them, no file can store them."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def short(line: bytes) -> str:
    """Returns the beginning of a line for an error message."""
    return repr(line[:LONGEST_SHOWN].decode("utf-8", "replace").rstrip())


def read_csv(path: Path) -> Iterator[Row]:
    """Yields one row per record; the first line names the columns."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            if None in values or None in values.values():
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} cells as in the first "
                    "line; put text that contains commas between double quotes"
                )
            yield Row(f"{path.name}:{reader.line_num}", values)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def read_parquet(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet file; a row's place is its number, from 1."""
    values = import_module("klimb.tasks.parquet_rows").read_parquet_values(path)
    return (Row(f"{path.name}:{number}", row) for number, row in enumerate(values, start=1))
