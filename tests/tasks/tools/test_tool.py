"""A tool is a function with types and a docstring; its schema is the one that transformers makes."""

import json
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Literal, Optional, Union

import pytest
from transformers.utils.chat_template_utils import get_json_schema

from klimb.tasks.tools import Tool, tool_of, tools_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    NONE = None


def no_arguments() -> str:
    """Return the time."""
    return ""


def add(a: int, b: float, *, exact: bool = False) -> float:
    """Add two numbers.

    The second paragraph
    has two lines.

    Args:
        a: the first number
        b: the second number, which
            goes on in another line
        exact: whether to
    round: or not

    Returns:
        The sum of both.

    Raises:
        ValueError: never.
    """
    return a + b


def several(
    texts: list[str],
    table: dict[str, list[int]],
    pair: tuple[int, str],
    either: int | str,
    maybe: int | None = None,
    odd: Union[list[int], str, None] = None,  # noqa: UP007  # both spellings
    anything: Any = 0,
    same: list | tuple = (),
    loose: Optional[dict] = None,  # noqa: UP045
) -> list[dict[str, Any]]:
    """Take many types.

    Args:
        texts: a
        table: b
        pair: c
        either: d
        maybe: e
        odd: f
        anything: g
        same: h
        loose: i
    """
    return []


def choices(drink: str, size: Literal["s", "l", 3], colour: Colour, level: Level, mixed: Literal[1, True] = 1):
    """
    Choose.

    Args:
        drink: what to drink (choices: ["tea ", "coffee"])
        size: how much
        colour: which
        level: how
        mixed: or
    """


def returns_something_else(a: str) -> Tool | None:
    """Return what no schema describes.

    Args:
        a: a text: with a colon
    """


async def waits(a: "int | None", *rest: int, **named: str) -> None:
    """Wait.
    Args:
        a: a

        rest: b
        named: c
    Returns: nothing at all
    """


FUNCTIONS = [no_arguments, add, several, choices, returns_something_else, waits]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_schema_is_that_of_transformers_to_the_letter(function: Callable[..., Any]):
    # As JSON: a chat template writes it so, and the order of keys is part of what the policy reads.
    assert json.dumps(tool_of(function).schema) == json.dumps(get_json_schema(function))


def test_a_method_has_no_self_in_its_schema():
    class Counter:
        def count(self, up_to: int) -> int:
            """Count.

            Args:
                up_to: the last number
            """
            return up_to

    assert tool_of(Counter().count).schema == get_json_schema(Counter().count)
    assert list(tool_of(Counter().count).parameters["properties"]) == ["up_to"]


def test_a_schema_by_hand():
    assert tool_of(add).parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "the first number"},
            "b": {"type": "number", "description": "the second number, which goes on in another line"},
            "exact": {"type": "boolean", "description": "whether to"},
        },
        "required": ["a", "b"],
    }


def without_docstring(a: int):
    pass


def without_type(a):
    """Do.

    Args:
        a: a
    """


def without_description(a: int, b: int):
    """Do.

    Args:
        a: a
    """


def of_a_class(a: Tool):
    """Do.

    Args:
        a: a
    """


def of_any_number(a: tuple[int, ...]):
    """Do.

    Args:
        a: a
    """


def with_broken_choices(a: str):
    """Do.

    Args:
        a: a (choices: ["x", y])
    """


def of_nowhere(a: "Nowhere"):  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
    """Do.

    Args:
        a: a
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_docstring, "tool without_docstring: it has no docstring"),
        (without_type, "tool without_type: parameter 'a' has no type; write `a: str`"),
        (without_description, "the docstring does not describe 'b'; add a line `b: what it is` below `Args:`"),
        (of_a_class, r"parameter 'a' has the type .*Tool.*; a model can write int, float"),
        (of_any_number, r"write list\[...\]"),
        (with_broken_choices, "choices that are no JSON list"),
        (of_nowhere, "cannot be found at the top of its module: name 'Nowhere'"),
    ],
)
def test_what_transformers_refuses_is_refused_with_a_reason(function: Callable[..., Any], message: str):
    with pytest.raises(ValueError, match=message):
        tool_of(function)
    with pytest.raises(Exception):  # noqa: B017  # of whichever kind
        get_json_schema(function)


def test_what_is_no_function_is_no_tool():
    with pytest.raises(ValueError, match="a tool is a function with a name and a docstring, got partial"):
        tool_of(partial(add, 1))


class Base:
    def inherited(self) -> str:
        """Say."""
        return ""


class Environment(Base):
    attribute = 3

    def __init__(self):
        self.on_instance = lambda: None

    def reset(self, **row) -> str | None: ...

    def get_reward(self) -> float:
        return 0.0

    def get_turn_reward(self) -> float:
        return 0.0

    def respond(self, text): ...

    def close(self): ...

    def _hidden(self, anything): ...

    @property
    def done(self) -> bool:
        raise AssertionError("a property is not read")

    @classmethod
    def of_the_class(cls): ...

    def zebra(self, stripes: int) -> str:
        """Paint.

        Args:
            stripes: how many
        """
        return "z" * stripes

    async def ask(self) -> str:
        """Ask."""
        return "?"

    @staticmethod
    def fixed(a: int) -> int:
        """Return it.

        Args:
            a: it
        """
        return a


def test_public_methods_are_tools_by_name_and_those_of_the_contract_are_not():
    tools = tools_of(Environment())
    assert [tool.name for tool in tools] == ["ask", "fixed", "inherited", "zebra"]
    assert [tool.is_async for tool in tools] == [True, False, False, False]
    assert tools[3].function(stripes=3) == "zzz"


def test_a_method_without_a_docstring_is_named_with_its_environment_and_the_way_out():
    class Broken:
        def helper(self, x: int): ...

    with pytest.raises(ValueError, match=r"environment Broken: tool helper: it has no docstring.*begins with '_'"):
        tools_of(Broken())


def test_tools_load_neither_torch_nor_transformers():
    code = """
import sys
from klimb.tasks.tools import FORMATS, check_arguments, choose_format, load_tools, mcp_tools, tool_of
sys.exit(bool({"torch", "transformers", "mcp", "numpy"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
