"""An OpenEnv server as an environment: `openenv:http://127.0.0.1:8000`, by the official client, `klimb[openenv]`.

Each conversation is a session of the server, which must allow as many at a time as there are
(`max_concurrent_envs`). A server that offers MCP tools has those; of another one the tool is `step`, with the fields of
its action. The rewards of all steps make the reward, and `done` ends the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

from klimb.errors import ConfigError
from klimb.tasks.tools import Tool

CONNECT_SECONDS = 10.0


GRACE_SECONDS = 60.0
"""The client waits so much longer for an answer than a call may take: who calls it says when it is over."""


NOT_OF_ACTIONS = ("metadata", "type")
"""Fields of an action that are not the policy's to fill in."""


@runtime_checkable
class Session(Protocol):
    """What is used of OpenEnv's client, in its form that waits."""

    def reset(self, **kwargs: Any) -> Any:
        """Begin an episode."""
        ...

    def step(self, action: Any, **kwargs: Any) -> Any:
        """Carry out an action."""
        ...

    def close(self) -> None:
        """End the session."""
        ...


def find_server(address: str, *, call_seconds: float, setting: str) -> Callable[[], OpenEnvironment]:
    """Return what opens a session of the server each time it is called; the client is imported now.

    Raises:
        ConfigError: the client is not installed, or the server does not answer.
    """
    if find_spec("openenv") is None:
        raise ConfigError(f"{setting} = 'openenv:{address}' needs OpenEnv's client: pip install 'klimb[openenv]'")
    client = import_module("openenv").GenericEnvClient
    parts = urlsplit(address)
    url = urlunsplit(parts._replace(scheme=parts.scheme.replace("ws", "http"), path=parts.path.rstrip("/") + "/schema"))
    try:
        with urlopen(url, timeout=CONNECT_SECONDS) as answer:
            schema = json.load(answer)["action"]
    except (URLError, TimeoutError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{setting} = 'openenv:{address}': {url} gives no schema of actions ({error}); is the server running?"
        ) from error
    connect = partial(client, base_url=address, connect_timeout_s=CONNECT_SECONDS)
    return lambda: OpenEnvironment(connect(message_timeout_s=call_seconds + GRACE_SECONDS).sync(), schema)


class OpenEnvironment:
    """A session of a server, in the contract of TRL's environments; its tools are known once it is open.

    Attributes:
        observation: the last one.
        rewards: of the steps so far; None where a step had none.
        done: whether the server says that the episode is over.
    """

    def __init__(self, session: Session, action_schema: Mapping[str, Any]) -> None:
        self._session = session
        self._schema = action_schema
        self._is_given_up = False
        self.observation: Mapping[str, Any] = {}
        self.rewards: list[float | None] = []
        self.done = False

    def reset(self, seed: int, **row: Any) -> str:
        """Begin an episode with the seed and the problem's columns; the server takes those that it knows."""
        return self._read(self._ask(partial(self._session.reset, seed=seed, **row)))

    def get_reward(self) -> float | None:
        """Return the sum of the rewards of the steps; None where none had one."""
        given = [reward for reward in self.rewards if reward is not None]
        return sum(given) if given else None

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def _offer_tools(self) -> tuple[Tool, ...]:
        """Return the server's MCP tools, or the one tool that a server of actions has."""
        properties = self._schema.get("properties", {})
        if properties.get("type", {}).get("const") != "call_tool":
            return (self._step_tool(),)
        listed = self._ask(partial(self._session.step, {"type": "list_tools"})).observation["tools"]
        return tuple(map(self._mcp_tool, listed))

    def _step_tool(self) -> Tool:
        properties = {
            name: each for name, each in self._schema.get("properties", {}).items() if name not in NOT_OF_ACTIONS
        }
        fixed = {
            name: each["const"]
            for name, each in self._schema.get("properties", {}).items()
            if name in NOT_OF_ACTIONS and "const" in each
        }
        required = [name for name in self._schema.get("required", ()) if name in properties]
        parameters = {**self._schema, "properties": properties, "required": required}
        description = parameters.pop("description", "") or "Carry out an action."
        return Tool(name="step", description=description, parameters=parameters, function=partial(self._step, fixed))

    def _step(self, fixed: Mapping[str, Any], **action: Any) -> str:
        result = self._ask(partial(self._session.step, {**fixed, **action}))
        self.rewards.append(result.reward)
        return self._read(result)

    def _mcp_tool(self, listed: Mapping[str, Any]) -> Tool:
        name = listed["name"]
        return Tool(
            name=name,
            description=listed.get("description") or name,
            parameters=listed.get("input_schema") or listed.get("inputSchema") or {"type": "object", "properties": {}},
            function=partial(self._call, name),
        )

    def _call(self, tool_name: str, /, **arguments: Any) -> str:
        result = self._ask(
            partial(self._session.step, {"type": "call_tool", "tool_name": tool_name, "arguments": arguments})
        )
        self.rewards.append(result.reward)
        self._read(result)
        error = self.observation.get("error")
        if error:
            raise RuntimeError(error.get("message", "") if isinstance(error, Mapping) else str(error))
        returned = self.observation.get("result")
        if isinstance(returned, Mapping) and returned.get("is_error", returned.get("isError")):
            raise RuntimeError(_text_of(returned))
        return _text_of(returned)

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """Return the server's answer. After one that was not waited for, the next would be taken for it."""
        if self._is_given_up:
            raise RuntimeError("the session was given up when a call took too long")
        self._is_given_up = True
        try:
            answer = ask()
        # What the server says of an action leaves the session as it was.
        except Exception:
            self._is_given_up = False
            raise
        self._is_given_up = False
        return answer

    def _read(self, result: Any) -> str:
        """Take note of a result, and return what it shows."""
        self.observation, self.done = dict(result.observation), bool(result.done)
        shown = {name: value for name, value in self.observation.items() if name != "metadata" and value is not None}
        if len(shown) == 1:
            (only,) = shown.values()
            return only if isinstance(only, str) else json.dumps(only, ensure_ascii=False)
        return json.dumps(shown, ensure_ascii=False) if shown else ""


def _text_of(returned: Any) -> str:
    """Return what an MCP tool returned: the texts of its content, its data, or itself."""
    if not isinstance(returned, Mapping):
        return returned if isinstance(returned, str) else json.dumps(returned, ensure_ascii=False)
    content = returned.get("content")
    if isinstance(content, list) and content and all(each.get("type") == "text" for each in content):
        return "".join(each["text"] for each in content)
    return _text_of(returned["data"]) if returned.get("data") is not None else json.dumps(returned, ensure_ascii=False)
