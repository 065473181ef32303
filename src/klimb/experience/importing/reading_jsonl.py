"""JSON lines, one record each."""

from collections.abc import Iterator
from pathlib import Path

from klimb.experience.importing.bytes_of_files import Line, lines, opened
from klimb.experience.importing.json_text import UTF8_BOM, decode_line, parse_object
from klimb.experience.importing.rows import CutOff, ReadLimits, Record, Reject, Row, RowError


def read_jsonl(path: Path, limits: ReadLimits) -> Iterator[Record]:
    """Yields one record per line that is not blank: a row, a reject, or at the end a line that is cut off."""
    with opened(path, limits) as file:
        for line in lines(file, limits.max_line_bytes):
            content = line.content.removeprefix(UTF8_BOM) if line.number == 1 else line.content
            if content.strip():
                yield _record(path.name, line, content, limits)


def _record(name: str, line: Line, content: bytes, limits: ReadLimits) -> Record:
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
    """Returns bytes as text for people; what is not UTF-8 is written in hexadecimal."""
    return content.decode("utf-8", "backslashreplace").strip()
