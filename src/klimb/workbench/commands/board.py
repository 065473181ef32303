"""`klimb board`: serve the page until Ctrl-C."""

import ipaddress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.workbench.listening import address_of, bind, import_server

DEFAULT_PORT = 6900


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
    uvicorn, server = import_server("klimb.web.server", what="the board")
    with bind(host, port) as listener:
        console.print(Text.assemble("board of ", (str(folder), "bold"), "  ", (address_of(listener), "cyan")))
        if not _is_loopback(listener.getsockname()[0]):
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


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
