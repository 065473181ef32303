"""Files of one JSON object a line, as a run writes them: read whole, or on from where the last reading ended.

Every reader of metrics.jsonl and evaluations.jsonl goes through here: reports of finished runs, the board while a run
writes, a study's progress. The last line counts once it has its end; a crash or a writer may be in the middle of it.
"""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PORTION_BYTES = 4_000_000
"""That one reading takes; the reader asks again for the rest."""


LONGEST_LINE_BYTES = 64_000_000
"""An evaluation's line has every answer in it. What is longer is no line of ours."""


MARK_BYTES = 256


TAIL_BYTES = 100_000
"""In which the last line of metrics.jsonl is looked for."""


Line = dict[str, Any]


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


START = Place()


@dataclass(frozen=True, kw_only=True)
class NewLines:
    """What a file has behind a place.

    Attributes:
        lines: the objects.
        faults: what is wrong with each line that is no JSON object; such a line is left out.
        place: where to go on.
        is_from_start: the lines replace whatever was read before.
        has_more: the file goes on.
    """

    lines: list[Line]
    faults: list[str]
    place: Place
    is_from_start: bool
    has_more: bool


NOTHING = NewLines(lines=[], faults=[], place=START, is_from_start=True, has_more=False)
"""Of a file that is not there."""


def read_on(descriptor: int, place: Place = START) -> NewLines:
    """Return a portion of the lines behind `place`, or of the whole file if it is no longer the one that was read."""
    offset = place.offset if _mark(descriptor, place.offset) == place.mark else 0
    chunk = _portion(descriptor, offset)
    whole = chunk.rfind(b"\n") + 1
    # A line that is too long is skipped in portions, and its end counts as a fault.
    end = offset + (whole if whole or len(chunk) < LONGEST_LINE_BYTES else len(chunk))
    lines, faults = _parsed(chunk[:whole])
    return NewLines(
        lines=lines,
        faults=faults,
        place=Place(offset=end, mark=_mark(descriptor, end)),
        is_from_start=offset == 0,
        has_more=end < os.fstat(descriptor).st_size and end > offset,
    )


def read_lines(path: Path) -> list[Line]:
    """Return all whole lines of a file.

    Raises:
        ValueError: one is no JSON object.
    """
    found: list[Line] = []
    with path.open("rb", buffering=0) as file:
        part = read_on(file.fileno())
        found += part.lines
        while part.has_more and not part.faults:
            part = read_on(file.fileno(), part.place)
            found += part.lines
    if part.faults:
        raise ValueError(part.faults[0])
    return found


def last_line(descriptor: int) -> Line:
    """Return the last whole line that is an object, without reading those before it; empty if there is none."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    for line in reversed(tail.split(b"\n")[:-1]):
        found, _ = _parsed(line)
        if found:
            return found[0]
    return {}


def _portion(descriptor: int, offset: int) -> bytes:
    """Read on until there is the end of a line, the end of the file, or more than a line may have."""
    chunk = os.pread(descriptor, PORTION_BYTES, offset)
    while chunk and b"\n" not in chunk and len(chunk) < LONGEST_LINE_BYTES:
        more = os.pread(descriptor, PORTION_BYTES, offset + len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _parsed(content: bytes) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    faults: list[str] = []
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"a line is not valid JSON ({error})")
            continue
        if isinstance(value, dict):
            lines.append(value)
        else:
            faults.append(f"a line must hold an object, got a {type(value).__name__}")
    return lines, faults


def _mark(descriptor: int, offset: int) -> str:
    if offset <= 0:
        return ""
    start = max(0, offset - MARK_BYTES)
    tail = os.pread(descriptor, offset - start, start)
    # A file shorter than the offset gives fewer bytes, so another length and another mark.
    return f"{len(tail)}-{zlib.crc32(tail):08x}"
