"""Importers of the user's own: `python:my_parts.my_importer` reads rows of a kind that klimb does not know."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from klimb.errors import ConfigError
from klimb.experience.feedback import Feedback
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError, UnsettledError
from klimb.experience.samples import Turn
from klimb.own_parts import load_part, source_hash

SOURCE = "importer_source"
"""In the metadata of a sample that an importer of the user's own made: the hash of its source."""


WITHOUT_SUMMARY = "rows of a kind of your own"


def load_importer(location: str) -> Importer:
    """Return the importer that `python:module.name` names: a function like `Importer.read`, or an `Importer`.

    A row for which it fails is put aside, as one that cannot be imported.

    Raises:
        ConfigError: there is no such module or name, or it is neither.
    """
    found = load_part(location, setting="--as")
    expected = "a function of (row, rules) that returns a list of ParsedRow, or an Importer"
    if not (callable(found) or isinstance(found, Importer)):
        raise ConfigError(
            f"--as = {location!r}: expected {expected}, both of klimb.experience.importing, got {type(found).__name__}"
        )
    if not isinstance(found, Importer):
        summary = next(iter((inspect.getdoc(found) or "").splitlines()), "") or WITHOUT_SUMMARY
        read = cast(ReadRow, found)
        found = Importer(name=location, read=read, summary=summary)
    return replace(found, name=location, read=partial(_read, found.read, location, source_hash(location)))


def _read(read: ReadRow, location: str, source: str, row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """Return what the user's own function reads in a row, with the hash of its source."""
    try:
        found: list[object] = list(read(row, rules))
    except (RowError, UnsettledError):
        raise
    # Other people's code: what it raises for one row says nothing of the others.
    except Exception as error:
        raise RowError(f"{location} raised {type(error).__name__}", str(error)) from error
    return [_checked(part, location, source) for part in found]


def _checked(part: object, location: str, source: str) -> ParsedRow | Feedback:
    """Return the part if what all later steps take for granted holds: klimb's own importers see to it themselves."""
    if isinstance(part, Feedback):
        return part
    if not isinstance(part, ParsedRow):
        came = type(part).__name__
        raise RowError(f"{location} returned no ParsedRow", f"expected a list of ParsedRow, and one in it is {came}")
    for name, (holds, expected) in _SHAPES.items():
        value: object = getattr(part, name)
        if not holds(value):
            came = type(value).__name__
            raise RowError(f"{location} returned another {name}", f"expected {expected}, got {came}")
    return replace(part, metadata={**part.metadata, SOURCE: source})


def _are_messages(prompt: object) -> bool:
    return isinstance(prompt, tuple) and all(map(_is_message, cast(tuple[object, ...], prompt)))


def _is_message(message: object) -> bool:
    if not isinstance(message, Mapping):
        return False
    content = cast(Mapping[str, object], message)
    return all(isinstance(content.get(key), str) for key in ("role", "content"))


_SHAPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "prompt": (_are_messages, 'a tuple of {"role": ..., "content": ...}'),
    "response": (lambda value: isinstance(value, str), "a text"),
    "turns": (
        lambda value: (
            isinstance(value, tuple) and all(isinstance(turn, Turn) for turn in cast(tuple[object, ...], value))
        ),
        "a tuple of Turn",
    ),
    "reward": (lambda value: value is None or isinstance(value, int | float), "a number or None"),
}
