"""What every server here checks and says before any answer: its own names, and headers that keep others out."""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
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
    """Tell whether a Host header names this server: `localhost`, any IP address, one of `names`; a port may follow.

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
    return name == "localhost" or name in names or is_address(name)


def is_address(name: str) -> bool:
    """Tell an IP address from any other name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine's own; what is no address is not."""
    address = address.partition("%")[0]
    if not is_address(address):
        return False
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return all values of a header of a request, as text; `name` in small letters."""
    return [value.decode("latin-1") for found, value in scope["headers"] if found == name]


def with_headers(send: Send) -> Send:
    """Return `send` with `HEADERS` on every answer."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS.items()]
        await send(message)

    return sending
