"""A tool: a function that the policy may call, and what the policy is told of it.

Which methods of an environment are tools, and what their schemas are, is TRL's rule: an environment written for its
`environment_factory` offers the same tools here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from klimb.tasks.tools.schemas import describe_function

NO_TOOLS = ("reset", "get_reward", "respond", "get_turn_reward", "close")
"""Public methods of an environment that are no tools: TRL's two, and those that only klimb calls."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that the policy may call.

    Attributes:
        name: what the policy calls it.
        description: what it does, for the policy.
        parameters: JSON schema of its arguments.
        function: called with the arguments by name; may be `async def`.
        returns: JSON schema of what it returns, where it says so; few templates show it.
        close: ends what the function needs, such as a server; several tools may share it, and it may be called again.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., object]
    returns: Mapping[str, Any] | None = None
    close: Callable[[], None] | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """What a chat template is given: OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        if self.returns is not None:
            function["return"] = dict(self.returns)
        return {"type": "function", "function": function}

    @property
    def is_async(self) -> bool:
        """Whether what the function returns is to be awaited."""
        return inspect.iscoroutinefunction(self.function)


def tool_of(function: Callable[..., object]) -> Tool:
    """Return the tool that a function or a bound method is: its name, its docstring, and the types of its parameters.

    Raises:
        ValueError: it has no name or no docstring, or a parameter without a type or a description.
    """
    name = getattr(function, "__name__", None)
    if name is None:
        raise ValueError(f"a tool is a function with a name and a docstring, got {type(function).__name__}")
    description, parameters, returns = describe_function(function, name)
    return Tool(name=name, description=description, parameters=parameters, function=function, returns=returns)


def tools_of(environment: object) -> tuple[Tool, ...]:
    """Return the tools of an environment by name: the public methods of its class, but for those of its contract.

    Nothing of the environment is called, and no property of it is read.

    Raises:
        ValueError: one of them has no docstring, or a parameter without a type or a description. A method that is no
            tool has a name that begins with `_`.

    Source: trl.GRPOTrainer, version 1.16 (`environment_factory`).
    """
    kind = type(environment)
    names = [name for name, _ in inspect.getmembers(kind, predicate=inspect.isfunction)]
    tools: list[Tool] = []
    for name in names:
        if name.startswith("_") or name in NO_TOOLS:
            continue
        try:
            tools.append(tool_of(getattr(environment, name)))
        except ValueError as error:
            raise ValueError(
                f"environment {kind.__name__}: {error}; a method that is no tool has a name that begins with '_'"
            ) from error
    return tuple(tools)
