"""Rows of Python objects: lists and iterators of dicts, data frames, Arrow tables, data sets of `datasets`.

pandas, polars and `datasets` are no dependencies: their objects are recognised by what they have.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

import pyarrow as pa

from klimb.experience.reading.arrow_rows import BATCH_ROWS, read_batches
from klimb.experience.reading.python_values import as_name, as_record
from klimb.experience.reading.records import ReadLimits, Record, Reject

LONGEST_SHOWN = 2000


READABLE = (
    "a path, a list of dicts, a function that returns such rows, a DataFrame of pandas or polars, a table or reader of "
    "pyarrow, a Dataset of datasets"
)


def name_object(rows: object) -> str:
    """Return what kind of object it is, for messages.

    Raises:
        ValueError: rows cannot be read from it, or it holds several data sets.
    """
    kind: str = type(rows).__name__
    if isinstance(rows, Mapping):
        names = ", ".join(str(name) for name in rows)[:LONGEST_SHOWN]
        what = f"a {kind} holds several data sets; give one of them" if "Dataset" in kind else f"a {kind} is no list"
        raise ValueError(f"{what}: {names}. Rows are read from {READABLE}")
    is_readable = isinstance(rows, Iterable) or callable(rows) or hasattr(rows, "__arrow_c_stream__")
    if isinstance(rows, type | str | bytes) or not is_readable or _is_of(rows, "pandas", "Series"):
        raise ValueError(f"rows cannot be read from {kind}; give {READABLE}")
    return f"the given {kind}"


def read_object(rows: Any, limits: ReadLimits) -> Iterator[Record]:
    """Yield a record per row; its place is its number, from 1. What pandas takes for missing is None.

    Raises:
        ValueError: a column twice.
    """
    name = name_object(rows)
    if _is_of(rows, "pandas", "DataFrame"):
        return _read_frame(rows, limits)
    if _is_of(rows, "datasets", "Dataset"):
        tables = rows.with_format("arrow").iter(batch_size=BATCH_ROWS)
        batches = (batch for table in tables for batch in table.to_batches())
        return read_batches(batches, rows.features.arrow_schema, limits, source=name, place="")
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        return read_batches(rows.to_batches(), rows.schema, limits, source=name, place="")
    if hasattr(rows, "__arrow_c_stream__"):  # a reader of pyarrow, a frame of polars, a relation of duckdb
        reader = pa.RecordBatchReader.from_stream(rows)
        return read_batches(reader, reader.schema, limits, source=name, place="")
    if callable(rows) and not isinstance(rows, Iterable):
        return read_object(rows(), limits)
    return _read_dicts(rows, limits)


def _is_of(rows: object, library: str, name: str) -> bool:
    return any(base.__module__.split(".")[0] == library and base.__name__ == name for base in type(rows).__mro__)


def _read_dicts(rows: Iterable[object], limits: ReadLimits) -> Iterator[Record]:
    for number, values in enumerate(rows, start=1):
        place = f"row {number}"
        if isinstance(values, Mapping):
            yield as_record(values, place, limits)
        else:
            detail = f"expected a dict, got {type(values).__name__}"
            yield Reject(place, "not an object", detail, repr(values)[:LONGEST_SHOWN])


def _read_frame(frame: Any, limits: ReadLimits) -> Iterator[Record]:
    """Yield the rows of a DataFrame. Levels of the index that have a name are columns."""
    levels = [number for number, name in enumerate(frame.index.names) if name is not None]
    index = [frame.index.get_level_values(number) for number in levels]
    names = [as_name(name) for name in (*(frame.index.names[number] for number in levels), *frame.columns)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the given DataFrame: the column {twice!r} is there twice; each needs a name of its own")
    columns = zip(*index, strict=True) if index else repeat(())
    for number, (first, cells) in enumerate(
        zip(columns, frame.itertuples(index=False, name=None), strict=False), start=1
    ):
        values = (None if isinstance(value, float) and value != value else value for value in (*first, *cells))
        yield as_record(dict(zip(names, values, strict=True)), f"row {number}", limits)
