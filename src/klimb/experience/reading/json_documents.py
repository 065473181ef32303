"""JSON documents: an array, objects one behind the other, or one object around the array of rows."""

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from klimb.experience.reading.json_text import JsonText
from klimb.experience.reading.packing import open_text
from klimb.experience.reading.records import ReadLimits, Record, Reject, Row, RowError
from klimb.experience.reading.strict_json import as_row_object

LONGEST_KEPT = 2000


ROW_LISTS = frozenset(
    (
        *("data", "rows", "records", "items", "results", "examples", "samples", "instances", "entries", "train"),
        *("traces", "runs", "observations", "generations", "feedback", "feedbacks", "conversations", "chats", "logs"),
    )
)
"""Names of an array of rows that other names may stand beside. Any other name is one if it is the object's only one."""


_PARTS = frozenset(["choices", "tools", "tool_calls", "spans", "resourceSpans"])
"""Names of an array of objects that belong to one row."""


def read_json_document(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield a record per element. What follows a broken element cannot be found and is rejected as one record."""
    list_name = _name_of_rows(path, limits)
    with open_text(path, limits) as file:
        text, place = JsonText(file), name
        try:
            for place in _places(text, name, list_name, limits):
                yield _element(text, place, limits)
            if text.next_character():
                raise RowError("not JSON", f"text behind the end: {text.ahead(20)!r}")
        except RowError as error:
            after = place if place == name else f"{place} or after"
            yield Reject(after, error.reason, error.detail, text.ahead(LONGEST_KEPT))


def _places(text: JsonText, name: str, list_name: str, limits: ReadLimits) -> Iterator[str]:
    """Yield the place of each element where reading stands before it; who asks for the next one has read it."""
    if list_name:
        for other in _names(text, limits):
            if other == list_name:
                yield from (f"{name}: {list_name}[{number}]" for number in _numbers(text))
            else:
                deque(_pass_over(text, limits), maxlen=0)
    elif text.next_character() == "[":
        yield from (f"{name}:element {number + 1}" for number in _numbers(text))
    else:
        number = 0
        while text.next_character() not in ("", "]"):
            number += 1
            yield f"{name}:element {number}"


def _element(text: JsonText, place: str, limits: ReadLimits) -> Record:
    raw, parsed = text.take_value(limits.max_line_bytes)
    try:
        if isinstance(parsed, RowError):
            raise parsed
        values = as_row_object(parsed, raw)
        _check_is_no_table(values)
        return Row(place, values, raw)
    except RowError as error:
        return Reject(place, error.reason, error.detail, raw[:LONGEST_KEPT])


def _check_is_no_table(values: Mapping[str, object]) -> None:
    """Refuse what pandas writes by itself: an object of columns, each an object of cells by their index."""
    columns = [cast(Mapping[str, object], value) for value in values.values() if isinstance(value, dict)]
    if len(columns) == len(values) > 0 and all(list(column)[:1] == ["0"] for column in columns):
        raise RowError("columns instead of rows", "write rows: frame.to_json(path, orient='records', lines=True)")


def _numbers(text: JsonText) -> Iterator[int]:
    """Yield 0, 1, ... before each element of the array where reading stands, and go on behind it."""
    text.next_character()
    text.drop(1)
    number = 0
    while text.next_character() not in ("", "]"):
        yield number
        number += 1
        text.drop_comma("]")
    text.drop_closing("]")


def _names(text: JsonText, limits: ReadLimits) -> Iterator[str]:
    """Yield the names of the object where reading stands, each before its value, and go on behind it."""
    text.next_character()
    text.drop(1)
    names: set[str] = set()
    while text.next_character() not in ("", "}"):
        name = text.take_name(limits.max_line_bytes)
        if name in names:
            raise RowError("a name twice in one object", f"{name!r}")
        names.add(name)
        yield name
        text.drop_comma("}")
    text.drop_closing("}")


def _pass_over(text: JsonText, limits: ReadLimits) -> Iterator[object]:
    """Go on behind the next value, yielding the elements of an array."""
    if text.next_character() != "[":
        text.take_value(limits.max_line_bytes)
        return
    for _ in _numbers(text):
        yield text.take_value(limits.max_line_bytes)[1]


def _name_of_rows(path: Path, limits: ReadLimits) -> str:
    """Return the name of the array that holds the rows of a file of one object; empty for any other file.

    It is the only array of objects in it. If these are messages or other parts of a row, the object itself is the row.
    """
    names: list[str] = []
    lists: dict[str, Mapping[str, object]] = {}
    with open_text(path, limits) as file:
        text = JsonText(file)
        try:
            if text.next_character() != "{":
                return ""
            for name in _names(text, limits):
                names.append(name)
                for element in _pass_over(text, limits):
                    if isinstance(element, dict | RowError):
                        lists.setdefault(
                            name, {} if isinstance(element, RowError) else cast(Mapping[str, object], element)
                        )
            is_alone = not text.next_character()
        except RowError:  # met again, and rejected, where the rows are read
            is_alone = True
    if not is_alone or len(lists) != 1:
        return ""
    (name, first), *_ = lists.items()
    is_one = (len(names) == 1 or name in ROW_LISTS) and name not in _PARTS and not _is_message(first)
    return name if is_one else ""


def _is_message(values: Mapping[str, object]) -> bool:
    return "role" in values or ("from" in values and isinstance(values.get("value"), str))
