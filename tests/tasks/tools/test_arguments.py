"""Arguments that are not what a tool takes are refused in one line that the policy can act on."""

from typing import Any, Literal

import pytest

from klimb.tasks.tools import Tool, check_arguments, tool_of


def book(
    seats: int,
    price: float,
    name: str,
    extras: list[str] | None = None,
    size: Literal["s", "l"] = "s",
    table: dict[str, int] | None = None,
    pair: tuple[int, str] = (1, "a"),
    either: list[int] | str = "",
    anything: Any = None,
    sure: bool = True,
) -> str:
    """Book.

    Args:
        seats: a
        price: b
        name: c
        extras: d
        size: e
        table: f
        pair: g
        either: h
        anything: i
        sure: j
    """
    return ""


GOOD = {"seats": 2, "price": 3, "name": "Ada"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"price": 2.5},
        {"extras": None},
        {"extras": ["a", "b"]},
        {"size": "l"},
        {"table": {"x": 1}},
        {"pair": [1, "b"]},
        {"either": "text"},
        {"either": [1, 2]},
        {"anything": {"a": [None]}},
        {"anything": None},
    ],
)
def test_arguments_that_the_tool_takes_are_not_complained_of(more: dict[str, Any]):
    assert check_arguments(tool_of(book), {**GOOD, **more}) == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seats": "2"}, "book: 'seats' must be integer, got string \"2\""),
        ({"seats": 2.0}, "book: 'seats' must be integer, got number 2.0"),
        ({"seats": True}, "book: 'seats' must be integer, got boolean true"),
        ({"sure": 1}, "book: 'sure' must be boolean, got integer 1"),
        ({"name": None}, "book: 'name' must be string, got null null"),
        ({"extras": ["a", 3]}, "book: 'extras'[1] must be string, got integer 3"),
        ({"size": "m"}, 'book: \'size\' must be one of ["s", "l"], got "m"'),
        ({"table": {"x": "y"}}, "book: 'table'.x must be integer, got string \"y\""),
        ({"pair": [1]}, "book: 'pair' must have 2 elements, got 1"),
        ({"pair": ["a", "b"]}, "book: 'pair'[0] must be integer, got string \"a\""),
        (
            {"either": 3},
            "book: 'either' is none of what is allowed: 'either' must be array, got integer 3; or 'either' must be "
            "string, got integer 3",
        ),
        (
            {"seat": 2},
            "book: unknown argument 'seat'; it takes 'seats', 'price', 'name', 'extras', 'size', 'table', 'pair', "
            "'either', 'anything' and 'sure'; did you mean 'seats'?",
        ),
    ],
)
def test_the_first_thing_that_is_wrong_is_said_in_one_line(more: dict[str, Any], message: str):
    assert check_arguments(tool_of(book), {**GOOD, **more}) == message


def test_a_missing_argument_is_named_with_its_type():
    assert check_arguments(tool_of(book), {"seats": 2}) == "book: missing argument 'price' (number)"


def test_a_tool_without_arguments_takes_none():
    def now() -> str:
        """Return the time."""
        return ""

    assert check_arguments(tool_of(now), {}) == ""
    assert check_arguments(tool_of(now), {"zone": 1}) == "now: unknown argument 'zone'; it takes none"


def test_arguments_that_are_no_object_are_refused():
    assert check_arguments(tool_of(book), [1]) == "book: expected an object of arguments by name, got [1]"


def test_a_message_stays_one_short_line():
    message = check_arguments(tool_of(book), {**GOOD, "seats": "line\n" * 1000})
    assert "\n" not in message
    assert len(message) < 150


def test_schemas_that_refer_to_others_and_to_themselves_are_followed():
    tree = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}},
        "required": ["value"],
    }
    parameters = {"properties": {"tree": {"$ref": "#/$defs/Tree"}}, "$defs": {"Tree": tree}, "required": ["tree"]}
    tool = Tool(name="walk", description="", parameters=parameters, function=print)
    assert check_arguments(tool, {"tree": {"value": 1, "next": {"value": 2, "next": None}}}) == ""
    wrong = check_arguments(tool, {"tree": {"value": 1, "next": {"next": None}}})
    assert wrong.startswith(
        "walk: 'tree'.next is none of what is allowed: missing key 'value' in 'tree'.next (integer)"
    )


def test_a_schema_that_is_nothing_but_itself_ends():
    tool = Tool(
        name="loop",
        description="",
        parameters={"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
        function=print,
    )
    assert check_arguments(tool, {"a": 1}) == ""


def test_other_keys_are_taken_where_the_schema_lets_them():
    tool = Tool(
        name="free",
        description="",
        parameters={"properties": {}, "additionalProperties": {"type": "integer"}},
        function=print,
    )
    assert check_arguments(tool, {"a": 1}) == ""
    assert check_arguments(tool, {"a": "b"}) == "free: 'a' must be integer, got string \"b\""


def test_values_that_are_nested_as_deeply_as_can_be_are_checked():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert check_arguments(tool_of(book), {**GOOD, "anything": deep}) == ""
    assert check_arguments(tool_of(book), {**GOOD, "extras": [deep]}).startswith("book: 'extras'[0] must be string")
