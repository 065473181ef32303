"""Values and calls in the notations of Python and of Gemma, read without running anything.

Python's own parser is not asked: it warns on standard error of what a model writes, and does not say where a call ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import make_call, show, skip_space
from klimb.tasks.tools.tool import Tool

DEEPEST = 60
"""Lists and mappings inside of each other."""


Part = tuple[Any, int]
"""A value and where it ends."""


@dataclass(frozen=True)
class Notation:
    """What differs between two notations.

    Attributes:
        read_string: returns the string at a position; None where none begins there.
        read_key: returns the key of a mapping.
    """

    read_string: Callable[[str, int], tuple[str, int] | None]
    read_key: Callable[[str, int], tuple[str, int]]


NUMBER = re.compile(r"[+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")


WORD = re.compile(r"[^\W\d]\w*")


WORDS: Mapping[str, object] = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}


def read_value(text: str, at: int, notation: Notation, depth: int = 0) -> Part:
    """Return the value at a position and where it ends.

    Raises:
        ValueError: there is none, in one line.
    """
    at = skip_space(text, at)
    string = notation.read_string(text, at)
    if string is not None:
        return string
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} lists and mappings inside of each other")
    if text.startswith(("[", "("), at):
        return _read_list(text, at, notation, depth)
    if text.startswith("{", at):
        return read_mapping(text, at, notation, depth)
    number = NUMBER.match(text, at)
    if number:
        return _as_number(number[0]), number.end()
    word = WORD.match(text, at)
    if word and word[0] in WORDS:
        return WORDS[word[0]], word.end()
    raise ValueError(f"no value at {_near(text, at)}; a value is a text in quotes, a number, a list or a mapping")


def read_mapping(text: str, at: int, notation: Notation, depth: int = 0) -> tuple[dict[str, Any], int]:
    """Return the mapping whose brace stands at a position, and where it ends."""
    found: dict[str, Any] = {}
    at = skip_space(text, at + 1)
    while not text.startswith("}", at):
        key, at = notation.read_key(text, at)
        at = expect(text, at, ":")
        found[key], at = read_value(text, at, notation, depth + 1)
        at = _skip_comma(text, at, "}")
    return found, at + 1


def _read_list(text: str, at: int, notation: Notation, depth: int) -> tuple[list[Any], int]:
    closing = "]" if text[at] == "[" else ")"
    found: list[Any] = []
    at = skip_space(text, at + 1)
    while not text.startswith(closing, at):
        value, at = read_value(text, at, notation, depth + 1)
        found.append(value)
        at = _skip_comma(text, at, closing)
    return found, at + 1


def expect(text: str, at: int, mark: str) -> int:
    """Return the position behind a mark that must stand next.

    Raises:
        ValueError: something else does.
    """
    at = skip_space(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"{mark} was expected at {_near(text, at)}")
    return at + len(mark)


def _skip_comma(text: str, at: int, closing: str) -> int:
    """Return the position behind a comma, or of the closing bracket."""
    at = skip_space(text, at)
    if text.startswith(closing, at):
        return at
    return skip_space(text, expect(text, at, ","))


def _near(text: str, at: int) -> str:
    return show(text[at : at + 30]) if at < len(text) else "the end of the text"


def _as_number(written: str) -> int | float:
    digits = written.replace("_", "")
    return int(digits) if digits.lstrip("+-").isdigit() else float(digits)


OPENING_QUOTES = re.compile(r"([rRuU]?)(\"\"\"|'''|\"|')")


ESCAPE = re.compile(r"\\(\r?\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)


ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": "", "\r\n": ""}
"""Any other character that is escaped, but for a quote or a backslash, keeps its backslash, as in Python."""


def _read_python_string(text: str, at: int) -> tuple[str, int] | None:
    found = OPENING_QUOTES.match(text, at)
    if not found:
        return None
    quotes, start = found[2], found.end()
    end = start
    while not text.startswith(quotes, end):
        if end >= len(text):  # a line may end inside: templates of these models write it so
            raise ValueError(f"a text is not closed: {_near(text, at)}")
        end += 2 if text[end] == "\\" else 1
    inside = text[start:end]
    return inside if found[1] in ("r", "R") else ESCAPE.sub(_unescape, inside), end + len(quotes)


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if code in ESCAPED:
        return ESCAPED[code]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
        if number > 0x10FFFF:
            raise ValueError(f"there is no character \\{code}")
        return chr(number)
    return code if code in "\\'\"" else f"\\{code}"


def _read_python_key(text: str, at: int) -> tuple[str, int]:
    found = _read_python_string(text, skip_space(text, at))
    if found is None:
        raise ValueError(f"a key in quotes was expected at {_near(text, at)}")
    return found


PYTHON = Notation(read_string=_read_python_string, read_key=_read_python_key)


FUNCTION_NAME = re.compile(r"[^\W\d][\w.-]*(?=\s*\()")


ARGUMENT_NAME = re.compile(r"([^\W\d]\w*)\s*=(?!=)")


def read_python_call(text: str, at: int, tools: Mapping[str, Tool]) -> tuple[ToolCall, int]:
    """Return the call `tool(a=1, b="x")` at a position, and where it ends.

    Arguments without a name are named in the order of the tool's parameters.

    Raises:
        ValueError: there is no such call, or an argument without a name has none among the tools on offer.
    """
    at = skip_space(text, at)
    name = FUNCTION_NAME.match(text, at)
    if not name:
        raise ValueError(f"no call at {_near(text, at)}")
    arguments: dict[str, Any] = {}
    unnamed: list[Any] = []
    at = skip_space(text, expect(text, name.end(), "("))
    while not text.startswith(")", at):
        key = ARGUMENT_NAME.match(text, at)
        value, at = read_value(text, key.end() if key else at, PYTHON)
        if key:
            arguments[key[1]] = value
        elif arguments:
            raise ValueError(f"an argument of {name[0]} without a name stands behind one with a name")
        else:
            unnamed.append(value)
        at = _skip_comma(text, at, ")")
    return make_call(name[0], {**_name_arguments(name[0], unnamed, tools), **arguments}), at + 1


def _name_arguments(name: str, values: list[Any], tools: Mapping[str, Tool]) -> dict[str, Any]:
    known = list(tools[name].parameters.get("properties", {})) if name in tools else []
    if len(values) > len(known):
        raise ValueError(f"argument {len(known) + 1} of {name} has no name; write NAME=VALUE")
    return dict(zip(known, values, strict=False))


GEMMA_QUOTE = '<|"|>'


def _read_gemma_string(text: str, at: int) -> tuple[str, int] | None:
    if not text.startswith(GEMMA_QUOTE, at):
        return _read_python_string(text, at) if text.startswith('"', at) else None
    start = at + len(GEMMA_QUOTE)
    end = text.find(GEMMA_QUOTE, start)
    if end < 0:
        raise ValueError(f"a text is not closed by {GEMMA_QUOTE}: {_near(text, at)}")
    return text[start:end], end + len(GEMMA_QUOTE)


GEMMA_KEY = re.compile(r"\s*([^\s:,{}\[\]\"<]+)\s*(?=:)")


def _read_gemma_key(text: str, at: int) -> tuple[str, int]:
    string = _read_gemma_string(text, skip_space(text, at))
    if string is not None:
        return string
    found = GEMMA_KEY.match(text, at)
    if not found:
        raise ValueError(f"a name and a colon were expected at {_near(text, at)}")
    return found[1], found.end()


GEMMA = Notation(read_string=_read_gemma_string, read_key=_read_gemma_key)
