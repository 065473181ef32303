"""A value of Python as a cell: what JSON has, or a date. numpy's, pandas' and torch's are recognised by their names."""

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

from klimb.experience.reading.records import ReadLimits, Record, Reject, Row, RowError

LONGEST_KEPT = 2000


def as_record(values: Mapping[Any, object], place: str, limits: ReadLimits) -> Record:
    """Return the row of these cells, or a reject if they are no data or too long."""
    try:
        row = _as_object(values)
    except RowError as error:
        return Reject(place, error.reason, error.detail, repr(values)[:LONGEST_KEPT])
    except RecursionError as error:
        return Reject(place, "nested too deep", str(error), "")
    return as_row(row, place, limits)


def as_row(cells: Mapping[str, object], place: str, limits: ReadLimits) -> Record:
    """Return the row, or a reject if its text is too long or holds half a character."""
    raw = json.dumps(cells, ensure_ascii=False, default=_as_json)
    if len(raw) > limits.max_line_bytes:
        return Reject(place, "line too long", f"more than {limits.max_line_bytes} characters", raw[:LONGEST_KEPT])
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = raw[:LONGEST_KEPT].encode("utf-8", "backslashreplace").decode()
        return Reject(place, "half a character", f"{error.reason}: {raw[error.start]!r}", shown)
    return Row(place, cells, raw)


def _as_json(value: object) -> str:
    """Write a date as people do, and bytes that are no text in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def as_cell(value: object) -> object:
    """Return the value as JSON has it.

    Days and times of day are ISO text, a length of time is its seconds, a decimal is a number, bytes are text if they
    are UTF-8. A moment stays a `datetime`, and bytes that are no text stay bytes. pandas' marks of nothing are None.

    Raises:
        RowError: it is no data.
    """
    if value is None or type(value) in (str, bool, int, float) or type(value).__name__ in ("NAType", "NaTType"):
        return None if type(value).__name__ in ("NAType", "NaTType") else value
    if isinstance(value, Mapping):
        return _as_object(cast("Mapping[object, object]", value))
    if isinstance(value, list | tuple):
        return [as_cell(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, datetime | date | time | timedelta | Decimal):
        return _as_time_or_number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _as_text(bytes(cast(bytes, value)))
    if isinstance(value, Enum):
        return as_cell(value.value)
    if isinstance(value, UUID):
        return str(value)
    return _as_cell_of_library(value)


def _as_object(values: Mapping[object, object]) -> dict[str, object]:
    found = {as_name(name): as_cell(value) for name, value in values.items()}
    if len(found) != len(values):
        raise RowError("a name twice in one object", ", ".join(map(str, values))[:80])
    return found


def as_name(name: object) -> str:
    """Return the name of a column; a number is written out, and the levels of pandas' names are joined by dots."""
    if isinstance(name, tuple):
        return ".".join(as_name(part) for part in cast("tuple[object, ...]", name))
    if isinstance(name, str | int | float):
        return str(name)
    raise RowError("a name that is neither text nor a number", f"got {type(name).__name__}")


def _as_time_or_number(value: datetime | date | time | timedelta | Decimal) -> object:
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if is_whole and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, datetime):
        return value.isoformat()
    # pandas' moments are to the nanosecond, which nothing here needs.
    to_microseconds = getattr(value, "to_pydatetime", None)
    return to_microseconds(warn=False) if to_microseconds else value


def _as_text(content: bytes) -> object:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content


def _as_cell_of_library(value: Any) -> object:
    """Return the value of an array or number of numpy or torch, or of a model of pydantic or a dataclass."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    model: Callable[[], object] | None = getattr(value, "model_dump", None)
    if kind in ("M", "m"):  # in nanoseconds, numpy would give a moment as a number
        return as_cell(value.astype(f"{kind}8[us]").tolist())
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return as_cell(value.tolist())
    if isinstance(value, str | int | float):
        return str(value) if isinstance(value, str) else int(value) if isinstance(value, int) else float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_object({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if model is not None:
        return as_cell(model())
    raise RowError("a value that is no data", f"got {type(value).__name__}; give text, numbers, lists and dicts")
