"""Where a server listens."""

import socket
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from klimb.errors import ConfigError

LAST_PORT = 65_535


NEEDED = ("fastapi", "uvicorn", "httpx")


def import_server(module: str, *, what: str) -> tuple[Any, Any]:
    """Return uvicorn and a module of the server, which only its command needs.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        return import_module("uvicorn"), import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in NEEDED:
            raise
        raise ConfigError(f"{what} needs {missing}, which is not installed: pip install 'klimb[serve]'") from error


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        ConfigError: the address cannot be had.
    """
    if not 0 <= port <= LAST_PORT:
        raise ConfigError(f"--port is {port}: expected 0, for any that is free, to {LAST_PORT}")
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise ConfigError(
                f"can't listen on {host} port {port}: {error}; choose another with --port, or 0 for any"
            ) from None
        stack.pop_all()
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address as a browser takes it."""
    address = listener.getsockname()
    shown = f"[{address[0]}]" if listener.family == socket.AF_INET6 else address[0]
    return f"http://{shown}:{address[1]}/"
