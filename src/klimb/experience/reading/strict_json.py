"""JSON in which no name is lost: what Python's own reader lets pass is refused.

NaN and Infinity are read as Python writes them, though they are no JSON; what they mean is for whoever reads the cell.
"""

import json
from typing import cast

from klimb.experience.reading.encodings import describe_bytes
from klimb.experience.reading.records import RowError


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Python keeps the last of two equal names silently: a second `reward` would win."""
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise RowError("a name twice in one object", f"{twice!r}")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition)


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
    if ("\\ud" in text or "\\uD" in text) and not is_encodable(values):
        raise RowError("half a character", "an unpaired \\ud... escape stands for no character; write it as UTF-8")
    return values


def is_encodable(parsed: object) -> bool:
    """Return False for text with half a character somewhere; raises RowError if it is nested too deep."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    except RecursionError as error:
        raise RowError("JSON nested too deep", str(error)) from error
    return True


def decode_line(line: bytes) -> str:
    """Return the line as text; raises RowError if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8", describe_bytes(line, error)) from error
