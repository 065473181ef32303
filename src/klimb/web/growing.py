"""A growing file of JSON lines, read from where the last reading ended, as columns of numbers."""

import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.web.files import open_beneath, parsed

MOST_BYTES = 4_000_000
"""Of one file that one answer reads; the reader asks again for the rest."""


MARK_BYTES = 256


NOT_FINITE = "NaN"
"""Stands for a number that was not finite; None stands for one that is not in the row."""


Row = Mapping[str, Any]


Cell = float | str | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a file has been read.

    Attributes:
        offset: bytes, always behind the end of a line.
        mark: checksum of the bytes before the offset. A resumed run cuts its file back and writes on: then they are
            other bytes, and the file must be read from its start.
    """

    offset: int = 0
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The new lines of a file.

    Attributes:
        values: name -> one cell a row.
        num_rows: new rows.
        names: every metric in the new rows, also those not asked for.
        place: where to go on.
        is_from_start: the rows replace whatever was read before.
        has_more: the file goes on.
        num_bad_lines: lines that are not a JSON object; left out.
    """

    values: dict[str, list[Cell]]
    num_rows: int
    names: list[str]
    place: Place
    is_from_start: bool
    has_more: bool
    num_bad_lines: int


def read_columns(
    root: Path, parts: Sequence[str], *, names: Sequence[str], place: Place, as_row: Callable[[Row], Row] = dict
) -> Columns:
    """Return the rows behind `place`, or all of them if the file is no longer the one that was read.

    Args:
        root: the folder that is served.
        parts: the file's path beneath it.
        names: metrics whose values are wanted.
        place: what the last reading returned.
        as_row: from a line's object to the row it stands for.
    """
    try:
        descriptor = open_beneath(root, parts)
    except OSError:
        return Columns(
            values={name: [] for name in names},
            num_rows=0,
            names=[],
            place=Place(),
            is_from_start=place.offset > 0,
            has_more=False,
            num_bad_lines=0,
        )
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        offset = place.offset if _mark(file.fileno(), place.offset) == place.mark else 0
        chunk = os.pread(file.fileno(), MOST_BYTES, offset)
        whole = chunk.rfind(b"\n") + 1
        # A line longer than one reading is no line of ours: skipped in portions, its end counts as a bad line.
        used = whole if whole or len(chunk) < MOST_BYTES else len(chunk)
        end = offset + used
        mark = _mark(file.fileno(), end)
    rows, num_bad = _rows(chunk[:whole], as_row)
    return Columns(
        values={name: [_cell(row, name) for row in rows] for name in names},
        num_rows=len(rows),
        names=sorted({name for row in rows for name, value in row.items() if _is_metric(value)}),
        place=Place(offset=end, mark=mark),
        is_from_start=offset == 0,
        has_more=len(chunk) == MOST_BYTES,
        num_bad_lines=num_bad,
    )


def evaluation_row(line: Row) -> Row:
    """Return a line of evaluations.jsonl under the names that evaluations have in metrics.jsonl."""
    places = {name: line.get(name) for name in ("step", "num_tokens_generated", "elapsed_seconds")}
    fields = ("mean", "low", "high", "greedy", "num_errors", "length_mean", "truncated_fraction")
    values = {f"evaluation_{name}": line[name] for name in fields if line.get(name) is not None}
    pass_at = line.get("pass_at")
    if isinstance(pass_at, Mapping):
        values |= {f"evaluation_pass_at_{k}": value for k, value in pass_at.items()}
    return places | values


def _rows(content: bytes, as_row: Callable[[Row], Row]) -> tuple[list[Row], int]:
    found: Iterable[Any] = (parsed(line) for line in content.split(b"\n") if line.strip())
    rows: list[Row] = []
    num_bad = 0
    for value in found:
        if isinstance(value, dict):
            rows.append(as_row(value))
        else:
            num_bad += 1
    return rows, num_bad


def _cell(row: Row, name: str) -> Cell:
    if name not in row or not _is_metric(row[name]):
        return None
    value = row[name]
    try:
        return float(value) if value is not None and math.isfinite(value) else NOT_FINITE
    except OverflowError:
        return NOT_FINITE


def _is_metric(value: object) -> bool:
    """Numbers, and null: metrics.jsonl has it for a number that is not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _mark(descriptor: int, offset: int) -> str:
    if offset <= 0:
        return ""
    start = max(0, offset - MARK_BYTES)
    tail = os.pread(descriptor, offset - start, start)
    # A file shorter than the offset gives fewer bytes, so another length and another mark.
    return f"{len(tail)}-{zlib.crc32(tail):08x}"
