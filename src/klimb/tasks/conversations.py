"""Messages as a question: a system message, turns of user and assistant, and the user's turn to be answered.

Examples put before a question are earlier turns of the same kind.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from klimb.experience.reading.strict_json import DECODER
from klimb.tasks.protocol import Problem

if TYPE_CHECKING:  # for annotations only, as in protocol
    from klimb.experience.samples import Message

Turns = tuple["Message", ...]


def find_messages(cell: object, column: str, place: str) -> Turns | None:
    """Return the messages that a cell holds, ending with the user's; None where it holds something else.

    Args:
        cell: of the question. Messages are a list of objects with a role, or such a list as JSON or Python writes it.
        column: its name.
        place: of the row.

    Raises:
        ValueError: naming the row, for another role, content that is not text, or an end without the user.
    """
    value = _decode(cell)
    if not _are_objects(value):
        return None
    try:
        turns: Turns = import_module("klimb.experience.importing.cells").messages(value, what="the conversation")
    except ValueError as error:
        raise ValueError(f"{place}: column {column!r}: {error}") from error
    if turns[-1]["role"] != "user":
        raise ValueError(
            f"{place}: column {column!r}: a conversation must end with the message of the user that is to be answered, "
            f"and this one ends with one of {turns[-1]['role']!r}"
        )
    if not turns[-1]["content"].strip():
        raise ValueError(f"{place}: column {column!r}: the last message is empty")
    return turns


def _decode(cell: object) -> object:
    if not (isinstance(cell, str) and cell.lstrip().startswith("[")):
        return cell
    for read in (DECODER.decode, ast.literal_eval):
        try:
            return read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return cell


def _are_objects(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return bool(value) and all(isinstance(entry, Mapping) and "role" in entry for entry in value)


def has_system(messages: Sequence[Message]) -> bool:
    """Return whether the conversation begins with a system message."""
    return bool(messages) and messages[0]["role"] == "system"


def put_system_first(messages: Turns, system_prompt: str | None) -> Turns:
    """Return the messages behind this system message, unless they begin with one of their own."""
    if system_prompt is None or has_system(messages):
        return messages
    return ({"role": "system", "content": system_prompt}, *messages)


def conversation_key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Return what makes two conversations the same: every role and text, white space aside."""
    return tuple((message["role"], " ".join(message["content"].split())) for message in messages)


def as_example(problem: Problem, answer: str) -> Turns:
    """Return the turns of a problem with its answer as the assistant's, without a system message."""
    asked = problem.messages[1:] if has_system(problem.messages) else problem.messages
    return (*asked, {"role": "assistant", "content": answer})


def put_examples_first(problem: Problem, examples: Turns) -> Problem:
    """Return the problem asked after these turns, which follow its system message."""
    start = int(has_system(problem.messages))
    return replace(problem, messages=(*problem.messages[:start], *examples, *problem.messages[start:]))


def find_cell(values: Mapping[str, Any], column: str) -> object:
    """Return what a column holds; `reward_model.ground_truth` names a part of an object, which may be JSON text.

    Raises:
        KeyError: there is no such column or part.
    """
    if column in values:
        return values[column]
    inner: object = values
    for name in column.split("."):
        if isinstance(inner, str):
            inner = _decode_object(inner)
        if not isinstance(inner, Mapping) or name not in inner:
            raise KeyError(column)
        inner = inner[name]
    return inner


def _decode_object(text: str) -> object:
    try:
        return DECODER.decode(text) if text.lstrip().startswith("{") else text
    except (json.JSONDecodeError, RecursionError):
        return text


def names_of(values: Mapping[str, Any]) -> list[str]:
    """Return the columns, and `column.part` for the parts of those that hold an object."""
    parts = [
        f"{name}.{part}"
        for name, value in values.items()
        if name is not None and isinstance(value, Mapping)
        for part in value
    ]
    return [name for name in values if name is not None] + parts
