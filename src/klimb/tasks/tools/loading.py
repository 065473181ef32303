"""Tools by where they are: `python:my_tools.search`, `mcp:http://127.0.0.1:8000/mcp`, `mcp:python server.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Annotated

from annotated_types import MaxLen

from klimb.declarations import Matching
from klimb.errors import ConfigError
from klimb.own_parts import LOCATION, is_own, load_function
from klimb.tasks.tools.mcp_server import CALL_SECONDS, mcp_tools
from klimb.tasks.tools.tool import Tool, tool_of, tools_of

MCP_PREFIX = "mcp:"


SETTING = "environment.tools"


ToolLocation = Annotated[
    str,
    MaxLen(1000),
    Matching(rf"^{MCP_PREFIX}\s*\S|{LOCATION.pattern}", "'python:module.function', 'mcp:http://...' or 'mcp:COMMAND'"),
]
"""Where a tool, or a set of them, is."""


def load_tools(locations: Sequence[str], *, call_seconds: float = CALL_SECONDS) -> tuple[Tool, ...]:
    """Return the tools that these locations name, in their order; `close_tools` ends what they need.

    `python:module.name` is a function, or a class: then an instance's public methods are tools, as an environment's
    are. `mcp:` stands before the address of an MCP server on this machine, or a command that starts one.

    Args:
        locations: where the tools are.
        call_seconds: a call of a server takes no longer.

    Raises:
        ConfigError: there is no such tool, it lacks a type or a docstring, or two tools have one name.
    """
    tools: list[Tool] = []
    try:
        for location in locations:
            tools += _load(location, call_seconds)
        _check_names(tools)
    except BaseException:
        close_tools(tools)
        raise
    return tuple(tools)


def close_tools(tools: Iterable[Tool]) -> None:
    """End what the tools need, such as servers; each once."""
    for close in dict.fromkeys(tool.close for tool in tools if tool.close is not None):
        close()


def _load(location: str, call_seconds: float) -> tuple[Tool, ...]:
    if location.startswith(MCP_PREFIX):
        where = location.removeprefix(MCP_PREFIX).strip()
        is_address = where.startswith(("http://", "https://"))
        try:
            if is_address:
                return mcp_tools(url=where, call_seconds=call_seconds)
            return mcp_tools(command=where, call_seconds=call_seconds)
        except ConfigError as error:
            raise ConfigError(f"{SETTING} = {location!r}: {error}") from error
    if not is_own(location):
        raise ConfigError(
            f"{SETTING} = {location!r}: expected 'python:module.function', 'mcp:http://127.0.0.1:8000/mcp' or "
            "'mcp:python server.py'"
        )
    return _load_own(location)


def _load_own(location: str) -> tuple[Tool, ...]:
    found = load_function(location, setting=SETTING, expected="a function, or a class whose methods are tools")
    try:
        return tools_of(_make(found)) if inspect.isclass(found) else (tool_of(found),)
    except ValueError as error:
        raise ConfigError(f"{SETTING} = {location!r}: {error}") from error


def _make(found: type) -> object:
    try:
        return found()
    # Code of others, which may raise anything.
    except Exception as error:
        raise ValueError(f"{found.__name__}() raised {type(error).__name__}: {error}") from error


def _check_names(tools: Sequence[Tool]) -> None:
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise ConfigError(f"{SETTING}: two tools are named {tool.name!r}; a call could mean either, rename one")
        seen.add(tool.name)
