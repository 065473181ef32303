"""Rows of Arrow batches: each type as a value of Python, column by column."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from klimb.experience.reading.python_values import as_cell, as_row
from klimb.experience.reading.records import ReadLimits, Record, Reject
from klimb.experience.reading.strict_json import DECODER

BATCH_ROWS = 1024


Convert = Callable[[Any], object]


_UNREADABLE = (ValueError, OverflowError, KeyError, RecursionError, pa.ArrowException)
"""What pyarrow raises for a value that Python has no form of: text that is not UTF-8, the year 10000, a time zone that
nobody knows."""


def read_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, limits: ReadLimits, *, source: str, place: str
) -> Iterator[Record]:
    """Yield the rows; each place is `place` and the row's number, from 1.

    Raises:
        ValueError: a name twice in the schema; the message begins with `source`.
    """
    check_names(list(schema), f"{source}: the column")
    number = 0
    for whole in batches:
        for start in range(0, whole.num_rows, BATCH_ROWS):
            batch = whole.slice(start, BATCH_ROWS)
            yield from _records(batch, f"{place}row ", number + start + 1, limits)
        number += whole.num_rows


def _records(batch: pa.RecordBatch, place: str, first: int, limits: ReadLimits) -> Iterator[Record]:
    names = batch.schema.names
    try:
        columns = [_values(column) for column in batch.columns]
    except _UNREADABLE:
        for index in range(batch.num_rows):
            yield _record_alone(batch.slice(index, 1), f"{place}{first + index}", limits)
        return
    # Without columns zip would give no row at all.
    rows = zip(*columns, strict=True) if columns else [()] * batch.num_rows
    for number, cells in enumerate(rows, start=first):
        yield as_row(dict(zip(names, cells, strict=True)), f"{place}{number}", limits)


def _record_alone(row: pa.RecordBatch, place: str, limits: ReadLimits) -> Record:
    cells: dict[str, object] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            (cells[name],) = _values(column)
        except UnicodeDecodeError as error:
            return Reject(place, "not UTF-8", f"column {name!r}: {error.reason}", "")
        except _UNREADABLE as error:
            return Reject(
                place, "a value that cannot be read", f"column {name!r}, {column.type}: {as_one_line(error)}"[:200], ""
            )
    return as_row(cells, place, limits)


def _values(column: pa.Array) -> list[object]:
    """Return the cells of a column. Moments are to the microsecond: Python has none to the nanosecond."""
    coarser = _without_nanoseconds(column.type)
    cast = column if coarser == column.type else column.cast(coarser, safe=False)
    values, convert = cast.to_pylist(), _converter(coarser)
    return values if convert is None else [convert(value) for value in values]


def as_one_line(error: BaseException) -> str:
    """Return the message of pyarrow, which may be several lines."""
    return " ".join(str(error).split())


def check_names(fields: Iterable[pa.Field], what: str) -> None:
    """Raise ValueError if a column, or a field of the objects in one, is there twice."""
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{what} {twice!r} is there twice; each needs a name of its own")
    for field in fields:
        check_names(_inner(field.type), f"{what} {field.name!r}, in it the field")


def _inner(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(number) for number in range(kind.num_fields)]


def _is_list(kind: pa.DataType) -> bool:
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def _without_nanoseconds(kind: pa.DataType) -> pa.DataType:
    """Return the type with microseconds in the place of nanoseconds, at any depth."""
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _without_nanoseconds(kind.value_type), kind.ordered)
    if types.is_map(kind):
        return pa.map_(_coarser(kind.key_field), _coarser(kind.item_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_coarser(kind.value_field), kind.list_size)
    for test, make in _LISTS:
        if test(kind):
            return make(_coarser(kind.value_field))
    return pa.struct([_coarser(field) for field in _inner(kind)]) if types.is_struct(kind) else kind


_LISTS = (
    (types.is_list, pa.list_),
    (types.is_large_list, pa.large_list),
    (types.is_list_view, pa.list_view),
    (types.is_large_list_view, pa.large_list_view),
)


def _coarser(field: pa.Field) -> pa.Field:
    return field.with_type(_without_nanoseconds(field.type))


def _converter(kind: pa.DataType) -> Convert | None:
    """Return what makes a cell of what pyarrow gives for this type; None where that is one already."""
    if any(test(kind) for test in _PLAIN):
        return None
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _converter(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json":
        return _from_json
    if types.is_map(kind):
        return _from_map
    if _is_list(kind):
        inner = _converter(kind.value_type)
        return None if inner is None else lambda items: items if items is None else [inner(item) for item in items]
    if types.is_struct(kind):
        converters = {field.name: convert for field in _inner(kind) if (convert := _converter(field.type))}
        return (lambda values: _convert_fields(values, converters)) if converters else None
    return as_cell


_PLAIN = (
    types.is_null,
    types.is_boolean,
    types.is_integer,
    types.is_float32,
    types.is_float64,
    types.is_string,
    types.is_large_string,
    types.is_string_view,
)


def _convert_fields(values: dict[str, object] | None, converters: Mapping[str, Convert]) -> object:
    if values is None:
        return None
    return {name: converters[name](value) if name in converters else value for name, value in values.items()}


def _from_map(pairs: list[tuple[object, object]] | None) -> object:
    """Return an object; pairs where a name is there twice or is no name."""
    if pairs is None:
        return None
    cells = [(as_cell(name), as_cell(value)) for name, value in pairs]
    names = {str(name) for name, _ in cells if isinstance(name, str | int)}
    return {str(name): value for name, value in cells} if len(names) == len(cells) else [list(pair) for pair in cells]


def _from_json(text: str | None) -> object:
    """Return what the text says; text that is not JSON stays."""
    try:
        return None if text is None else DECODER.decode(text)
    except (ValueError, RecursionError):
        return text
