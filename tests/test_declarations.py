"""How a setting is declared: what a file's reader knows of it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from pydantic import TypeAdapter

from klimb.declarations import configurable


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
