"""The tools of an MCP server, by the official `mcp` package: `pip install 'klimb[mcp]'`.

A server is either a command, which is started here and spoken to over its standard input and output, or an address on
this machine. A thread of its own holds the connection; a tool's function waits there for the server's answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

from klimb.errors import ConfigError
from klimb.tasks.tools.tool import Tool

INSTALL = "pip install 'klimb[mcp]'"


CALL_SECONDS = 60.0


START_SECONDS = 60.0
"""For a server to come up and say what tools it has."""


CONNECT_SECONDS = 10.0


CLOSE_SECONDS = 15.0


MOST_PAGES = 100
"""Of a list of tools, so that a server whose list has no end holds nothing up."""


LOOPBACK = ("127.0.0.1", "localhost", "::1")


Answer = TypeVar("Answer")


class ToolError(RuntimeError):
    """A tool of a server answered that it failed; the message is the server's."""


def mcp_tools(
    *,
    command: str | None = None,
    url: str | None = None,
    call_seconds: float = CALL_SECONDS,
    start_seconds: float = START_SECONDS,
) -> tuple[Tool, ...]:
    """Connect to an MCP server and return its tools, by name; each has the server's `close`.

    A tool's function returns the server's answer as text. It raises ToolError with what the server says of a call that
    failed, and TimeoutError after `call_seconds`.

    Args:
        command: starts the server, as in a shell but without one: `python server.py`.
        url: of a server on this machine: `http://127.0.0.1:8000/mcp`.
        call_seconds: a call takes no longer.
        start_seconds: nor does the server, until its tools are known.

    Raises:
        ConfigError: the package is missing, the server does not come up, or it is not on this machine.
    """
    target = _target_of(command, url)
    _check_package()
    server = Server(target=target, call_seconds=call_seconds)
    try:
        found = server.start(start_seconds)
    except BaseException:
        server.close()
        raise
    return tuple(
        Tool(
            name=each.name,
            description=each.description or "",
            parameters=each.input_schema,
            function=_function_of(server, each.name),
            close=server.close,
        )
        for each in sorted(found, key=lambda tool: tool.name)
    )


@dataclass(frozen=True)
class Target:
    """Where a server is: an address, or a command with its arguments."""

    url: str = ""
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.url or shlex.join(self.words)


def _target_of(command: str | None, url: str | None) -> Target:
    if (command is None) == (url is None):
        raise ConfigError(f"an MCP server is either a command or a url, got {command!r} and {url!r}")
    if url is not None:
        _check_is_here(url)
        return Target(url=url)
    try:
        words = tuple(shlex.split(command or ""))
    except ValueError as error:
        raise ConfigError(f"the command {command!r} of an MCP server cannot be read: {error}") from error
    if not words:
        raise ConfigError("the command of an MCP server is empty; write one such as 'python server.py'")
    return Target(words=words)


def _check_is_here(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise ConfigError(f"the address {url!r} of an MCP server cannot be read: {error}") from error
    if parts.scheme not in ("http", "https") or host not in LOOPBACK:
        raise ConfigError(
            f"an MCP server has an address on this machine, such as http://127.0.0.1:8000/mcp; got {url!r}"
        )


def _function_of(server: Server, name: str) -> Callable[..., str]:
    def call(**arguments: Any) -> str:
        return server.call(name, arguments)

    call.__name__ = name
    return call


@dataclass
class Server:
    """A connection to a server, in a thread of its own."""

    target: Target
    call_seconds: float
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _tools: Future[list[Any]] = field(default_factory=Future)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: threading.Thread | None = None
    _client: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, seconds: float) -> list[Any]:
        """Connect and return what tools the server has.

        Raises:
            ConfigError: it cannot, or not within the time.
        """
        self._thread = threading.Thread(target=self._run, name=f"MCP server {self.target}", daemon=True)
        self._thread.start()
        try:
            return self._tools.result(seconds)
        except TimeoutError as error:
            raise ConfigError(f"the MCP server {self.target} did not come up within {seconds:g} s") from error
        # Whatever the package, the transport or the server raise: the server cannot be used.
        except Exception as error:
            raise ConfigError(f"the MCP server {self.target} cannot be used: {_describe(error)}") from error

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Return what a tool answers.

        Raises:
            ToolError: the server says that it failed, or is closed.
            TimeoutError: it took longer than `call_seconds`.
        """
        client = self._client
        if client is None:
            raise ToolError(f"the MCP server {self.target} is closed")
        result = self._wait(client.call_tool(name, arguments), f"the tool {name}")
        text = text_of(result)
        if result.is_error:
            raise ToolError(text or f"the tool {name} failed and says nothing")
        return text

    def _wait(self, work: Coroutine[Any, Any, Answer], what: str) -> Answer:
        """Do the work in the connection's thread; it is cancelled when its time is over."""
        try:
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise ToolError(f"the MCP server {self.target} is closed") from error
        try:
            return running.result(self.call_seconds)
        except TimeoutError as error:
            running.cancel()
            raise TimeoutError(f"{what} did not answer within {self.call_seconds:g} s") from error
        # Errors of the protocol and of the connection are as many as there are transports.
        except Exception as error:
            raise ToolError(_describe(error)) from error

    def close(self) -> None:
        """End the connection, and the server if it was started here. May be called again."""
        with self._lock:
            thread, self._thread, self._client = self._thread, None, None
        if thread is None:
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        """Hold the connection until it is closed."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connect_until_stopped())
        finally:
            self._loop.close()

    async def _connect_until_stopped(self) -> None:
        """Connect, say what tools there are, and stay; a stop before that ends the attempt."""
        connected = asyncio.ensure_future(self._hold())
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((connected, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not connected.done() and not self._tools.done():
            connected.cancel()
        results = await asyncio.gather(connected, return_exceptions=True)
        if not self._tools.done():
            error = results[0] if isinstance(results[0], Exception) else ConnectionError("it was closed")
            self._tools.set_exception(error)

    async def _hold(self) -> None:
        """Connect, list the tools, and keep the connection until it is to stop."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(import_module("mcp").Client(await self._reach(stack)))
            tools = await _list_tools(client)
            self._client = client
            self._tools.set_result(tools)
            await self._stop.wait()

    async def _reach(self, stack: AsyncExitStack) -> Any:
        """Return what the package's client connects to. An address of this machine is behind no proxy."""
        words = self.target.words
        if words:
            return import_module("mcp").StdioServerParameters(
                command=words[0], args=list(words[1:]), env=dict(os.environ)
            )
        http = import_module("httpx2")  # what the package speaks HTTP with
        waits = http.Timeout(self.call_seconds, connect=CONNECT_SECONDS)
        client = await stack.enter_async_context(http.AsyncClient(trust_env=False, timeout=waits))
        transport = import_module("mcp.client.streamable_http").streamable_http_client
        return transport(self.target.url, http_client=client)


async def _list_tools(client: Any) -> list[Any]:
    """Return all tools of a server, which lists them in pages."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            return found
    raise ConfigError(f"its list of tools has more than {MOST_PAGES} pages")


def text_of(result: Any) -> str:
    """Return a server's answer as text: what is no text in it is named; without any, its structured content as JSON."""
    parts = [_text_of_part(part) for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _text_of_part(part: Any) -> str:
    if part.type == "text":
        return part.text
    inner = getattr(part, "resource", None)
    text = getattr(inner, "text", None)
    return text if isinstance(text, str) else f"[{part.type}: {getattr(part, 'mime_type', None) or 'not shown'}]"


def _describe(error: BaseException) -> str:
    """Return an error in one line; of a group of them the first, which is the one that ended the others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = " ".join(str(error).split())
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _check_package() -> None:
    """Import the optional package here, where its absence has a message."""
    try:
        found = import_module("mcp")
    except ImportError as error:
        raise ConfigError(f"tools of an MCP server need the package mcp: {INSTALL} ({error})") from error
    if not hasattr(found, "Client"):
        raise ConfigError(f"tools of an MCP server need the package mcp of version 2 or newer: {INSTALL}")
