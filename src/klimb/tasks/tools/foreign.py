"""Tools that somebody else runs: what a request offers, and calls in the form that messages have them in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from klimb.tasks.tools.tool import Tool


def call_entry(name: str, arguments: str) -> dict[str, Any]:
    """Return a call in the form that messages have it in, with its arguments as an object."""
    return {"type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}


def offered(schema: Mapping[str, Any]) -> Tool:
    """Return a tool of a request, for whoever reads calls; nobody here runs it."""
    function = schema["function"]
    return Tool(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
        function=_not_here,
    )


def _not_here(**_: object) -> object:
    raise RuntimeError("a tool of a request is run by the client")
