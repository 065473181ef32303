"""Files of one JSON object a line, as a run writes them: read whole, or on from where the last reading ended.

Every reader of metrics.jsonl and evaluations.jsonl goes through here: reports of finished runs, the board while a run
writes, a study's progress. The last line counts once it has its end; a crash or a writer may be in the middle of it.
A line that cannot be read is named by its number, and those behind it count all the same.
"""

import json
import os
import zlib
from collections.abc import Mapping
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
        faulty: the numbers of the faulty lines, counted from the place.
        sound: the numbers of the others.
        num_lines: that the portion has in all, blank ones included.
        place: where to go on.
        is_from_start: the lines replace whatever was read before.
        has_more: the file goes on.
    """

    lines: list[Line]
    faults: list[str]
    place: Place
    is_from_start: bool
    has_more: bool
    faulty: tuple[int, ...] = ()
    sound: tuple[int, ...] = ()
    num_lines: int = 0


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
        lines=list(lines.values()),
        faults=list(faults.values()),
        faulty=tuple(faults),
        sound=tuple(lines),
        num_lines=chunk[:whole].count(b"\n"),
        place=Place(offset=end, mark=_mark(descriptor, end)),
        is_from_start=offset == 0,
        has_more=end < os.fstat(descriptor).st_size and end > offset,
    )


@dataclass(frozen=True, kw_only=True)
class SoundLines:
    """All whole lines of a file that can be read, and what is wrong with the others.

    Attributes:
        lines: the objects, in order.
        numbers: of each its line in the file, from 1.
        faults: line number -> what is wrong with it.
    """

    lines: list[Line]
    numbers: list[int]
    faults: dict[int, str]


def describe_faults(faults: Mapping[int, str], *, num_lines: int) -> str:
    """Say which lines cannot be read, and why the first of them cannot; empty where all can.

    Args:
        faults: line number -> what is wrong with it.
        num_lines: of the file.
    """
    if not faults:
        return ""
    numbers = ", ".join(map(str, sorted(faults)[:MOST_NAMED]))
    more = f" and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
    which = f"line {numbers}" if len(faults) == 1 else f"lines {numbers}{more}"
    return f"{which} of {num_lines} cannot be read ({faults[min(faults)]})"


MOST_NAMED = 5
"""Faulty lines that are named by their number."""


def read_sound_lines(path: Path) -> SoundLines:
    """Return what can be read of a file; blank lines and a last line without its end are left out."""
    found = SoundLines(lines=[], numbers=[], faults={})
    done = 0
    with path.open("rb", buffering=0) as file:
        part = read_on(file.fileno())
        while True:
            found.faults.update({done + number: what for number, what in zip(part.faulty, part.faults, strict=True)})
            found.lines.extend(part.lines)
            found.numbers.extend(done + number for number in part.sound)
            done += part.num_lines
            if not part.has_more:
                return found
            part = read_on(file.fileno(), part.place)


def read_lines(path: Path) -> list[Line]:
    """Return all whole lines of a file.

    Raises:
        ValueError: one is no JSON object.
    """
    found = read_sound_lines(path)
    for number, fault in found.faults.items():
        raise ValueError(f"{fault}, line {number}")
    return found.lines


def last_line(descriptor: int) -> Line:
    """Return the last whole line that is an object, without reading those before it; empty if there is none."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    for line in reversed(tail.split(b"\n")[:-1]):
        found, _ = _parsed(line)
        if found:
            return found[1]
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


def _parsed(content: bytes) -> tuple[dict[int, Line], dict[int, str]]:
    """Return the objects, and what is wrong with each other line, by the number of the line."""
    lines: dict[int, Line] = {}
    faults: dict[int, str] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            faults[number] = f"a line is not valid JSON ({error.msg} at character {error.pos + 1})"
            continue
        except (ValueError, RecursionError) as error:
            faults[number] = f"a line is not valid JSON ({error})"
            continue
        if isinstance(value, dict):
            lines[number] = value
        else:
            faults[number] = f"a line must hold an object, got a {type(value).__name__}"
    return lines, faults


def _mark(descriptor: int, offset: int) -> str:
    if offset <= 0:
        return ""
    start = max(0, offset - MARK_BYTES)
    tail = os.pread(descriptor, offset - start, start)
    # A file shorter than the offset gives fewer bytes, so another length and another mark.
    return f"{len(tail)}-{zlib.crc32(tail):08x}"
