"""JSON lines: an object a line, and at the end perhaps one that is still being written."""

from collections.abc import Iterator
from pathlib import Path

from klimb.experience.reading.encodings import UTF8_MARK
from klimb.experience.reading.lines import Line, find_line_end, lines
from klimb.experience.reading.packing import open_text
from klimb.experience.reading.records import CutOff, ReadLimits, Record, Reject, Row, RowError
from klimb.experience.reading.strict_json import decode_line, parse_object

DOCUMENT = "; a line must hold a whole object: let the name of a JSON document end in .json"


def read_json_lines(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield one record per line that is not blank: a row, a reject, or at the end a line that is cut off."""
    with open_text(path, limits) as file:
        end = find_line_end(file.peek())
        for line in lines(file, limits.max_line_bytes, end=end):
            content = line.content.removeprefix(UTF8_MARK) if line.number == 1 else line.content
            if content.strip():
                yield _record(name, line, content, limits, is_ended=content.endswith(end))


def _record(name: str, line: Line, content: bytes, limits: ReadLimits, *, is_ended: bool) -> Record:
    place = f"{name}:{line.number}"
    if line.is_too_long:
        detail = f"more than {limits.max_line_bytes} bytes"
        return Reject(f"{place} (byte {line.offset})", "line too long", detail, shown(content))
    try:
        text = decode_line(content)
        return Row(place, parse_object(text), text.strip())
    except RowError as error:
        if not is_ended and error.reason in ("not JSON", "not UTF-8"):
            return CutOff(place)
        hint = DOCUMENT if line.number == 1 and content.strip() in (b"[", b"{") else ""
        return Reject(f"{place} (byte {line.offset})", error.reason, error.detail + hint, shown(content))


def shown(content: bytes) -> str:
    """Return bytes as text for people; what is not UTF-8 is written in hexadecimal."""
    return content.decode("utf-8", "backslashreplace").strip()
