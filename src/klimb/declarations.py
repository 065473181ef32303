"""How a setting is declared: bounds in its type, its meaning in a docstring below it, in the class that uses it.

`@configurable` marks a frozen dataclass whose fields may also come from a file. Whoever reads files checks the bounds
with pydantic and reads the meanings from the docstrings; nothing of that is imported here. Callers from Python are
checked by the class's own `__post_init__`, and told where they say what only a file can say.
"""

import ast
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, wraps
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from klimb.own_parts import LOCATION, is_own

MOST = 10_000_000
"""Largest count that any setting takes from a file: a typing mistake is caught, a real run is not."""


Count = Annotated[int, Ge(1), Le(MOST)]


CountOrZero = Annotated[int, Ge(0), Le(MOST)]


Fraction = Annotated[float, Ge(0), Le(1)]


ShortText = Annotated[str, MinLen(1), MaxLen(200)]


LongText = Annotated[str, MaxLen(20_000)]


Seed = Annotated[int, Ge(0), Le(2**31 - 1)]


Seconds = Annotated[float, Gt(0), Le(86_400 * 365)]


Class = TypeVar("Class", bound=type)


def configurable(cls: Class) -> Class:
    """Mark a dataclass as one that a table of a file can fill: strictly, with no key that it does not have."""
    cls.__pydantic_config__ = {  # pyright: ignore[reportAttributeAccessIssue]
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "json_schema_extra": _describe_fields,
    }
    cls.__get_pydantic_core_schema__ = classmethod(_from_a_table)  # pyright: ignore[reportAttributeAccessIssue]
    _check_callers(cls)
    return cls


def _check_callers(cls: type) -> None:
    """Let the constructor refuse a file's word for a value, and a kind that is another class's."""
    construct = cls.__init__
    by_position = [entry.name for entry in fields(cls) if entry.init and not entry.kw_only]

    # Whoever reads files fills the fields without the constructor.
    @wraps(construct)
    def check_and_construct(self: Any, *values: Any, **named: Any) -> None:
        for name, value in (*zip(by_position, values, strict=False), *named.items()):
            _check_given(cls.__name__, name, value, _hints(cls).get(name))
        construct(self, *values, **named)

    cls.__init__ = check_and_construct


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _check_given(owner: str, name: str, value: object, hint: Any) -> None:
    for word in (mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, OrWord)):
        if value == word.word:
            meant = "None" if word.value is None else f"math.{word.value}"
            raise ValueError(f"{name} = {value!r} is the word of a run file; from Python write {name} = {meant}")
    if get_origin(hint) is Literal and len(get_args(hint)) == 1 and value != get_args(hint)[0]:
        only = get_args(hint)[0]
        raise ValueError(f"{name} of {owner} is always {only!r}, got {value!r}; take the class of the other {name}")


def _describe_fields(schema: dict[str, Any], cls: type) -> None:
    """Give each field the meaning that stands below it, in this class or in one that it extends.

    Sources are read here, when somebody asks for words, and not when a file is checked: reading them takes a while.
    """
    for owner in cls.__mro__[:-1]:
        for name, meaning in _meanings_in(owner.__module__).get(owner.__qualname__, {}).items():
            if name in schema.get("properties", {}):
                schema["properties"][name].setdefault("description", meaning)


@cache
def _meanings_in(module: str) -> dict[str, dict[str, str]]:
    """Return what stands in a docstring below each field, by the classes of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _meanings_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _meanings_of(tree: ast.ClassDef) -> dict[str, str]:
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _from_a_table(cls: type, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    # Strictness is for the values; of the class itself it would refuse a table in its place.
    return {**handler(source), "strict": False}


@dataclass(frozen=True)
class OrWord:
    """Marks a type whose file has a word for a value that files cannot hold: `none` for inf, `never` for None."""

    word: str
    value: float | None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Take the word besides what the type takes, and give it back.

        Of a union a file gives the first type: the others hold the value that the word stands for.
        """
        inner = handler(get_args(source)[0] if get_origin(source) in (Union, UnionType) else source)
        word = {"type": "literal", "expected": [self.word]}
        as_value = {"type": "function", "function": {"type": "no-info", "function": lambda _: self.value}}
        return {
            "type": "union",
            "choices": [inner, {**as_value, "type": "function-after", "schema": word}],
            "serialization": {"type": "function-plain", "function": self._in_file},
        }

    def _in_file(self, value: Any) -> Any:
        return self.word if value == self.value else value


@dataclass(frozen=True)
class InWords:
    """Marks a type with what an error should say it takes, where its bounds would say nothing to most people."""

    allowed: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Put the words beside the type's own schema."""
        return {**handler(schema), "allowed": self.allowed}


@dataclass(frozen=True)
class Matching:
    """Marks a text with the regular expression that it must match, and what an error should say it takes."""

    pattern: str
    allowed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Check the text against the pattern."""
        return {**handler(source), "pattern": self.pattern}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Put the words beside the type's own schema."""
        return {**handler(schema), "allowed": self.allowed}


@dataclass(frozen=True)
class Checked:
    """Marks a text that a function looks at: it returns it, or raises a ValueError that says what is wrong."""

    check: Callable[[str], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Check the text once it is known to be a short one."""
        function = {"type": "no-info", "function": self.check}
        return {"type": "function-after", "function": function, "schema": handler(ShortText)}


def one_of(words: Iterable[str]) -> Matching:
    """Mark a text that must be one of these words; where it is checked when it is used, and not by its type."""
    listed = tuple(words)
    return Matching(f"^({'|'.join(map(re.escape, listed))})$", f"one of {', '.join(map(repr, listed))}")


PathText = Annotated[
    str,
    MinLen(1),
    MaxLen(4_000),
    Matching(r"^[^\x00-\x1f\x7f]+$", "a path of at most 4000 characters"),
]


OWN_KIND = "python:module.name"
"""What stands for the kind of a part of the user's own where kinds are listed."""


NONE_OF_UNION = "none_of_union"
"""The type of the error that `Otherwise` makes."""


@dataclass(frozen=True)
class Otherwise:
    """Marks a union with the one thing to say of a value that is none of it."""

    expected: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Say one thing in place of one for each type of the union."""
        error = {"custom_error_type": NONE_OF_UNION, "custom_error_message": f"expected {self.expected}"}
        return {**handler(source), **error}


Parameter = bool | int | float | ShortText


Parameters = Annotated[
    dict[
        ShortText,
        Annotated[Parameter | list[Parameter], Otherwise("true, false, a number, a short text, or a list of those")],
    ],
    MaxLen(100),
]
"""What a part with settings of its own is told, by name."""


OwnName = Annotated[str, MinLen(1), MaxLen(200), Matching(LOCATION.pattern, repr(OWN_KIND))]


@dataclass(frozen=True)
class OneOf:
    """Marks a type that a file gives as a table of one of several classes, told apart by a key of it.

    Attributes:
        rows: name -> class of settings.
        own: the class where the name is `python:module.name`; None where the user can give none of their own.
        key: that tells them apart, a field of every class.
    """

    rows: Mapping[str, type]
    own: type | None = None
    key: str = "kind"

    def name_of(self, value: Any) -> str | None:
        """Return the name of a table or of settings; one word for all that are the user's own."""
        name = value.get(self.key) if isinstance(value, Mapping) else getattr(value, self.key, None)
        return OWN_KIND if isinstance(name, str) and is_own(name) else name

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """Take a table of the class that it names."""
        rows = {**self.rows, **({} if self.own is None else {OWN_KIND: self.own})}
        choices = {name: handler.generate_schema(row) for name, row in rows.items()}
        return {"type": "tagged-union", "choices": choices, "discriminator": self.name_of}

    def __hash__(self) -> int:
        """Tell two of them apart by what they name."""
        return hash((tuple(self.rows), self.own, self.key))


class FromList:
    """Marks a tuple that a file gives as a list."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Take lists too."""
        return {**handler(source), "strict": False}


Settings = TypeVar("Settings")


def narrow(settings: Any, kind: type[Settings]) -> Settings:
    """Return the values of settings that extend others as those others: only what this class declares."""
    return kind(**{entry.name: getattr(settings, entry.name) for entry in fields(kind) if entry.init})  # pyright: ignore[reportArgumentType]


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise unless the claim holds.

    Raises:
        ValueError: `name must be expected, got value`.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")


def require_known(name: str, value: object, known: Sequence[str]) -> None:
    """Raise unless the value is one of the names there are.

    Raises:
        ValueError: the message lists them and the nearest.
    """
    if value not in known:
        nearest = difflib.get_close_matches(str(value).lower(), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown {name} {value!r}{hint} There are: {', '.join(known)}")
