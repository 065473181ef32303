"""`klimb board`: serve the page until Ctrl-C."""

import ipaddress
import socket
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError

DEFAULT_PORT, LAST_PORT = 6900, 65_535


NEEDED = ("fastapi", "uvicorn")


def board(folder: Path = Path("."), /, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
    """Serve a page over the runs beneath a folder: curves that update, settings side by side, reports.

    Args:
        folder: Holds runs and studies at any depth, or is a run.
        host: Address to listen on; another than this machine's own lets others read the runs.
        port: Where to listen; 0 takes any port that is free.
    """
    run_board(folder, host=host, port=port, console=Console())


def run_board(folder: Path, *, host: str, port: int, console: Console) -> None:
    """Serve the runs beneath the folder until Ctrl-C.

    Raises:
        ConfigError: a package is missing, the folder is none, or the address cannot be had.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: give one that holds runs, or the folder of a run")
    uvicorn, server = _imported()
    with _bound(host, port) as listener:
        address = listener.getsockname()
        shown = f"[{address[0]}]" if listener.family == socket.AF_INET6 else address[0]
        console.print(
            Text.assemble("board of ", (str(folder), "bold"), "  ", (f"http://{shown}:{address[1]}/", "cyan"))
        )
        if not _is_loopback(address[0]):
            console.print(
                Text(
                    "every machine that reaches this address can read the runs: there is no password. "
                    "Without --host the board answers this machine alone; ssh -L brings it to another",
                    style="yellow",
                ),
                soft_wrap=True,
            )
        console.print("stop with Ctrl-C", style="dim")
        app = server.make_app(folder, names=frozenset({host.lower()}))
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        try:
            uvicorn.Server(settings).run(sockets=[listener])
        except KeyboardInterrupt:
            console.print("stopped")


def _imported() -> tuple[Any, Any]:
    """Uvicorn and the server, which only this command needs."""
    try:
        return import_module("uvicorn"), import_module("klimb.web.server")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in NEEDED:
            raise
        raise ConfigError(f"the board needs {missing}, which is not installed: pip install 'klimb[serve]'") from error


def _bound(host: str, port: int) -> socket.socket:
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


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
