"""Plain values of a program that a function of its own reads as globals: another value is another function."""

import dis
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any

READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


LONGEST_TOLD = 200
"""Characters of a value that are told; of a longer one its hash."""


def global_values_of(part: Any) -> dict[str, str]:
    """Return the plain globals that a function reads, itself or in functions of its module that it calls, as text.

    What one of them stores to is its state, and left out. Plain are numbers, texts, truths and tuples of them. What the
    called functions call is not looked into.

    Args:
        part: a function, a method, a `functools.partial`, or an object that can be called.
    """
    function = _function_of(part)
    if function is None:
        return {}
    around = function.__globals__
    codes = [function.__code__, *(helper.__code__ for helper in _helpers_of(function))]
    read = {name for code in codes for name in _names(code, READS)}
    written = {name for code in codes for name in _names(code, WRITES)}
    names = sorted(name for name in read - written if name in around and not name.startswith("__"))
    return {name: _told(around[name]) for name in names if _is_plain(around[name])}


def _function_of(part: Any) -> FunctionType | None:
    """Return the function that is run when the part is called; None where Python has no code of it."""
    while isinstance(part, partial):
        part = part.func
    if not inspect.isroutine(part) and not isinstance(part, type):
        part = inspect.getattr_static(type(part), "__call__", None)
    part = inspect.unwrap(getattr(part, "__func__", part)) if callable(part) else None
    return part if isinstance(part, FunctionType) else None


def _helpers_of(function: FunctionType) -> Iterator[FunctionType]:
    """Yield the functions of the same module that it names."""
    around: Mapping[str, Any] = function.__globals__
    for name in _names(function.__code__, READS):
        helper = around.get(name)
        if isinstance(helper, FunctionType) and helper.__globals__ is around:
            yield helper


def _names(code: CodeType, operations: frozenset[str]) -> set[str]:
    """Return what these operations name in the code and in all that is defined inside of it."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in operations}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return own.union(*(_names(each, operations) for each in inner))


def _is_plain(value: object) -> bool:
    return all(map(_is_plain, value)) if type(value) is tuple else type(value) in (bool, int, float, str)


def _told(value: object) -> str:
    text = repr(value)
    if len(text) <= LONGEST_TOLD:
        return text
    return f"{len(text)} characters, SHA-256 {hashlib.sha256(text.encode(errors='backslashreplace')).hexdigest()[:16]}"
