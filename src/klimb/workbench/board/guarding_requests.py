"""What a request must be to get an answer: to a name of this server, and reading only."""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
"""On every answer. There is no header that would let a page of another origin read one."""


def is_own_name(host: str, names: frozenset[str]) -> bool:
    """True for a Host header that names this server: `localhost`, any IP address, one of `names`; a port may follow.

    A page elsewhere can make its own name lead to this machine (DNS rebinding) and would then be of one origin with us;
    the header still holds that name. It cannot hold an address, since a page from an address has no name to rebind.
    """
    name = host.strip().lower()
    if name.startswith("["):
        name, bracket, port = name[1:].partition("]")
        port = port.removeprefix(":") if bracket else "?"
    else:
        name, _, port = name.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    return name == "localhost" or name in names or _is_address(name)


@dataclass(frozen=True)
class GuardedApp:
    """The app, behind the checks.

    Attributes:
        app: what answers.
        names: host names that are ours, besides `localhost` and addresses.
    """

    app: App
    names: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, or refuses it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_own_name(hosts[0], self.names):
            await _refuse(
                send, 421, "this server is not known by that name: use its address, or start it with --host NAME"
            )
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405, "the board only reads")
        elif scope["method"] == "HEAD":
            # The app's routes are of GET; what they say of a body is to be told without it (RFC 9110, 9.3.2).
            await self.app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self.app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS.items()]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
