"""How a setting is declared: bounds in its type, its meaning in a docstring below it, in the class that uses it.

`@configurable` marks a frozen dataclass whose fields may also come from a file. Whoever reads files checks the bounds
with pydantic and reads the meanings from the docstrings; nothing of that is imported here. Callers from Python are
checked by the class's own `__post_init__`.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge, Le, MaxLen, MinLen

MOST = 10_000_000
"""Largest count that any setting takes from a file: a typing mistake is caught, a real run is not."""


Count = Annotated[int, Ge(1), Le(MOST)]


CountOrZero = Annotated[int, Ge(0), Le(MOST)]


Fraction = Annotated[float, Ge(0), Le(1)]


ShortText = Annotated[str, MinLen(1), MaxLen(200)]


Class = TypeVar("Class", bound=type)


def configurable(cls: Class) -> Class:
    """Mark a dataclass as one that a table of a file can fill: strictly, with no key that it does not have."""
    cls.__pydantic_config__ = {  # pyright: ignore[reportAttributeAccessIssue]
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }
    cls.__get_pydantic_core_schema__ = classmethod(_from_a_table)  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def _from_a_table(cls: type, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    # Strictness is for the values; of the class itself it would refuse a table in its place.
    return {**handler(source), "strict": False}


@dataclass(frozen=True)
class OrWord:
    """Marks a type whose file has a word for a value that files cannot hold: `none` for inf, `never` for None."""

    word: str
    value: float | None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Take the word besides what the type takes, and give it back."""
        kept = [option for option in get_args(source) if option is not type(None)]
        inner = handler(kept[0] if type(None) in get_args(source) else source)
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


class FromList:
    """Marks a tuple that a file gives as a list."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Take lists too."""
        return {**handler(source), "strict": False}


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
        nearest = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown {name} {value!r}{hint} There are: {', '.join(known)}")
