"""Spans of traces, taken out of what exporters write: a row each, with its attributes as columns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from klimb.experience.importing.cells import first_of, listed, mapping, unpacked
from klimb.experience.reading.records import Row, RowError

EVALUATION = "gen_ai.evaluation.result"
"""Name of an event that rates what a span or log record holds."""


SPAN_IDS = ("spanId", "span_id", "context.span_id", "spanID", "SpanId")


DEEPEST = 60
"""Levels of lists and objects in an attribute."""


_EXPORTS: Sequence[Sequence[Sequence[str]]] = (
    (
        ("resourceSpans", "resource_spans", "batches"),
        ("scopeSpans", "scope_spans", "instrumentationLibrarySpans"),
        ("spans",),
    ),
    (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"), ("logRecords", "log_records")),
)
"""OTLP's levels, for spans and for log records: the names of each level's list. `batches` is Grafana Tempo's."""


_JAEGER: Sequence[Sequence[str]] = (("data",), ("spans",))


_ATTRIBUTES = ("attributes", "span_attributes", "SpanAttributes", "LogAttributes", "tags", "fields")


_USERS: Mapping[str, str] = dict.fromkeys(
    ("user.id", "enduser.id", "langfuse.user.id", "traceloop.association.properties.user_id"), "user_id"
)
"""Attributes that name who asked -> the name under which ids are looked for and hashed."""


_PREFIX = "attributes."
"""Of columns, in tables of spans as Phoenix writes them."""


def split_spans(row: Row) -> Iterator[Row]:
    """Yield each span or log record of a record of an export, and behind it each evaluation in its events.

    So one span that cannot be read costs no other, and an evaluation that comes with a later export changes nothing of
    the span's row. A record that is a span itself is one row. One that is broken is left as it is: reading it says why.

    Columns of a row are those of the span, and its attributes under their names; `events` are `{"name", "attributes"}`.
    """
    try:
        spans = list(spans_in(row.values))
    except RowError:
        yield row
        return
    for number, span in enumerate(spans, start=1):
        place = row.place if is_span(row.values) else f"{row.place} span {number}"
        yield from _rows(span, place, row)


def is_span(values: Mapping[str, object]) -> bool:
    """Tell whether a record is one span, and no export of several."""
    return _levels_of(mapping(values.get("trace")) or values) is None


def spans_in(values: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield the spans of a record with flat attributes; the record itself if it is one.

    Raises:
        RowError: what should be a list of objects is none, or an attribute is nested too deep.
    """
    export = mapping(values.get("trace")) or values
    levels = _levels_of(export)
    yield from [_flat(values)] if levels is None else map(_flat, _exported(export, levels))


def has_export(values: Mapping[str, object]) -> bool:
    """Tell whether a record holds spans in one of the forms of exporters."""
    return not is_span(values)


def attribute(values: Mapping[str, object], path: str) -> object:
    """Return an attribute; of one that is written as many (`path.0.role`), the list or object that these make."""
    if (value := values.get(path)) is not None:
        return unpacked(value)
    names = [name for name in values if name.startswith(f"{path}.")]
    tree: dict[str, Any] = {}
    for name in names:
        _place(tree, name[len(path) + 1 :].split("."), values[name])
    return _with_lists(tree) if tree else None


def undotted(entry: Mapping[str, object]) -> Mapping[str, object]:
    """Return an object in which `message.role` is `role` in `message`."""
    if not any("." in str(name) for name in entry):
        return entry
    tree: dict[str, Any] = {}
    for name, value in entry.items():
        _place(tree, str(name).split("."), value)
    return mapping(_with_lists(tree))


def _levels_of(export: Mapping[str, object]) -> Sequence[Sequence[str]] | None:
    """Return the levels that the record has, from the outermost on; a reader may have taken the first one off."""
    for levels in _EXPORTS:
        for depth, names in enumerate(levels[:2]):
            if any(name in export for name in names):
                return levels[depth:]
    first = mapping(next(iter(listed(export.get("data")) or ()), None))
    if "spans" in first and "traceID" in first:
        return _JAEGER
    return _JAEGER[1:] if "spans" in export and "traceID" in export else None


def _exported(outer: Mapping[str, object], levels: Sequence[Sequence[str]]) -> Iterator[Mapping[str, object]]:
    names, *inner = levels
    entries = first_of(outer, *names)
    found = () if entries is None else listed(entries)
    if found is None or not all(isinstance(entry, Mapping) for entry in found):
        raise RowError("an export of spans that is broken", f"{names[0]} is no list of objects")
    for entry in map(mapping, found):
        yield from _exported(entry, inner) if inner else [entry]


def _rows(span: Mapping[str, object], place: str, row: Row) -> Iterator[Row]:
    events = [mapping(event) for event in listed(span.get("events")) or ()]
    kept = [event for event in events if event.get("name") != EVALUATION]
    yield _row(span if len(kept) == len(events) else {**span, "events": kept}, place, row)
    own_id = next((name for name in ("gen_ai.response.id", *SPAN_IDS) if span.get(name) is not None), None)
    of_span = {own_id: span[own_id]} if own_id else {}
    for number, event in enumerate((event for event in events if event not in kept), start=1):
        named = {name: value for name, value in event.items() if name != "attributes"}
        rated = {**of_span, **named, **mapping(event.get("attributes"))}
        yield _row(rated, f"{place} evaluation {number}", row)


def _row(values: Mapping[str, object], place: str, row: Row) -> Row:
    return Row(place, values, json.dumps(values, ensure_ascii=False, default=str), row.is_text)


def _flat(span: Mapping[str, object]) -> Mapping[str, object]:
    flat: dict[str, object] = {}
    found: dict[str, object] = {}
    for name, value in span.items():
        if name in _ATTRIBUTES:
            _unfold(_attributes(unpacked(value)), "", found, depth=DEEPEST)
        elif name.startswith(_PREFIX):
            _unfold({name.removeprefix(_PREFIX): value}, "", found, depth=DEEPEST)
        elif name == "context":
            flat.update((f"context.{part}", inner) for part, inner in mapping(value).items())
        elif name in ("events", "logs"):
            flat["events"] = [_event(mapping(event)) for event in listed(unpacked(value)) or ()]
        else:
            flat[name] = value
    if "events" in found:
        flat["events"] = [*(listed(flat.get("events")) or ()), *_written_events(found.pop("events"))]
    return {**{_column_of(name, flat): value for name, value in found.items()}, **flat}


def _column_of(name: str, flat: Mapping[str, object]) -> str:
    """Return the column of an attribute; one that is called as something of the span itself keeps its prefix."""
    return f"{_PREFIX}{name}" if name in flat else _USERS.get(name, name)


def _written_events(value: object) -> list[Mapping[str, object]]:
    """Return events that were written into an attribute as JSON, as Logfire does."""
    entries = [mapping(entry) for entry in listed(unpacked(value)) or ()]
    return [{"name": entry.get("event.name", ""), "attributes": entry} for entry in entries]


def _event(event: Mapping[str, object]) -> Mapping[str, object]:
    attributes: dict[str, object] = {}
    _unfold(_attributes(unpacked(first_of(event, *_ATTRIBUTES))), "", attributes, depth=DEEPEST)
    rest = {name: value for name, value in event.items() if name not in _ATTRIBUTES}
    return {"name": attributes.get("event", attributes.get("event.name", "")), **rest, "attributes": attributes}


def _attributes(value: object) -> Mapping[str, object]:
    """Return attributes as an object: OTLP and Jaeger have a list of keys and values."""
    if found := mapping(value):
        return found
    pairs = [mapping(_as_pair(pair)) for pair in listed(value) or ()]
    return {str(pair["key"]): _value(pair.get("value"), depth=DEEPEST) for pair in pairs if "key" in pair}


def _as_pair(pair: object) -> object:
    """Return a pair as an object; a map column of Parquet has tuples."""
    both = listed(pair) or ()
    return {"key": both[0], "value": both[1]} if len(both) == 2 else pair


def _value(value: object, *, depth: int) -> object:
    """Return what OTLP's boxed value holds; a value without a box is itself."""
    if depth == 0:
        raise RowError("JSON nested too deep", f"an attribute of more than {DEEPEST} levels")
    box = mapping(value)
    if len(box) != 1:
        return value if box or not isinstance(value, Mapping) else None
    ((name, inner),) = box.items()
    kind = name.replace("_v", "V")
    if kind == "arrayValue":
        return [_value(each, depth=depth - 1) for each in listed(mapping(inner).get("values")) or ()]
    if kind == "kvlistValue":
        pairs = [mapping(pair) for pair in listed(mapping(inner).get("values")) or ()]
        return {str(pair.get("key")): _value(pair.get("value"), depth=depth - 1) for pair in pairs}
    if kind in ("intValue", "doubleValue") and isinstance(inner, str):
        return _number(inner, is_whole=kind == "intValue")
    return inner if kind in ("stringValue", "boolValue", "bytesValue", "intValue", "doubleValue") else value


def _number(text: str, *, is_whole: bool) -> object:
    """OTLP writes whole numbers, which may have 64 bits, as text."""
    try:
        return int(text) if is_whole else float(text)
    except ValueError:
        return text


def _unfold(value: Mapping[str, object], prefix: str, into: dict[str, object], *, depth: int) -> None:
    """Write attributes that are nested (`{"llm": {"model_name"}}`) under their full names."""
    if depth == 0:
        raise RowError("JSON nested too deep", f"an attribute of more than {DEEPEST} levels")
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            _unfold(mapping(cast(object, inner)), f"{prefix}{name}.", into, depth=depth - 1)
        else:
            into[f"{prefix}{name}"] = inner


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A value as it was given: objects in it are its own, whatever their names."""

    value: object


def _place(tree: dict[str, Any], names: Sequence[str], value: object) -> None:
    *outer, last = names
    for name in outer:
        inner = tree.setdefault(name, {})
        if isinstance(inner, _Leaf):
            raise RowError("attributes that contradict each other", f"{name!r} is a value, and holds others"[:80])
        tree = inner
    if last in tree:
        raise RowError("attributes that contradict each other", f"{last!r} is there twice"[:80])
    tree[last] = _Leaf(value)


def _with_lists(tree: dict[str, Any]) -> object:
    """Return the tree; where all names of an object are numbers, it is a list in their order."""
    made = {name: part.value if isinstance(part, _Leaf) else _with_lists(part) for name, part in tree.items()}
    if made and all(name.isdecimal() and len(name) < 10 for name in made):
        return [made[name] for name in sorted(made, key=int)]
    return made
