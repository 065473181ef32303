"""How a setting is declared: what a file's reader knows of it."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from klimb.declarations import OrWord, configurable


@configurable
@dataclass(frozen=True, kw_only=True)
class Pace:
    """A pace."""

    num_steps: Annotated[int, Ge(1)] = 3
    """How many
    steps."""


@configurable
@dataclass(frozen=True, kw_only=True)
class Walk(Pace):
    """A walk."""

    place: str = "park"
    """Where."""


def test_settings_that_extend_others_keep_the_bounds_and_meanings_of_those():
    properties = TypeAdapter(Walk).json_schema()["properties"]
    assert {name: field["description"] for name, field in properties.items()} == {
        "num_steps": "How many\nsteps.",
        "place": "Where.",
    }
    assert properties["num_steps"]["minimum"] == 1


@configurable
@dataclass(frozen=True)
class Rest:
    """A rest."""

    minutes: Annotated[Annotated[float, Ge(1)] | None, OrWord("never", None)] = None
    """How long."""
    at_most: Annotated[Annotated[float, Ge(1)] | float, OrWord("none", math.inf)] = math.inf
    """Most minutes of all rests."""
    kind: Literal["rest"] = "rest"
    """A rest."""


def test_a_word_of_files_is_told_to_callers_from_python_with_the_value_that_it_stands_for():
    with pytest.raises(ValueError, match=r"minutes = 'never' is the word of a run file; .* write minutes = None"):
        Rest("never")  # pyright: ignore[reportArgumentType]
    wrong: dict[str, Any] = {"at_most": "none"}
    with pytest.raises(ValueError, match=r"write at_most = math\.inf"):
        replace(Rest(), **wrong)
    read = TypeAdapter(Rest).validate_python({"minutes": "never", "at_most": "none"})
    assert read == Rest(minutes=None, at_most=math.inf)


def test_a_kind_is_that_of_its_class():
    assert Rest(kind="rest") == Rest()
    wrong: dict[str, Any] = {"kind": "sleep"}
    with pytest.raises(ValueError, match="kind of Rest is always 'rest', got 'sleep'; take the class of the other"):
        replace(Rest(), **wrong)


@pytest.mark.parametrize("key", ["minutes", "at_most"])
@pytest.mark.parametrize("value", [0.5, -1, math.inf, "always"])
def test_a_type_with_a_word_keeps_its_bounds_in_files(key: str, value: object):
    with pytest.raises(ValidationError):
        TypeAdapter(Rest).validate_python({key: value})
