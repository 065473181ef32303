"""Rows of Python objects: lists and iterators of dicts, data frames, Arrow tables, data sets of `datasets`."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from klimb.experience.reading.records import ReadLimits, Record, Reject, Row


def name_object(rows: object) -> str:
    """Return what kind of object it is, for messages; raises ValueError for one that rows cannot be read from."""
    kind: str = type(rows).__name__
    if isinstance(rows, Mapping) or not (isinstance(rows, Iterable) or callable(rows)):
        raise ValueError(f"rows cannot be read from {kind}; give a path, or a list of dicts")
    return f"the given {kind}"


def read_object(rows: object, limits: ReadLimits) -> Iterator[Record]:
    """Yield a record per row; its place is its number, from 1."""
    given = cast(Callable[[], object], rows)() if callable(rows) else rows
    for number, values in enumerate(cast(Iterable[object], given), start=1):
        place = f"row {number}"
        if not isinstance(values, Mapping):
            yield Reject(place, "not an object", f"expected a dict, got {type(values).__name__}", repr(values)[:2000])
            continue
        raw = json.dumps(values, ensure_ascii=False, default=str)
        if len(raw) > limits.max_line_bytes:
            yield Reject(place, "line too long", f"more than {limits.max_line_bytes} characters", raw[:2000])
            continue
        yield Row(place, dict(cast(Mapping[str, object], values)), raw)
