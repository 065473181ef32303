"""`klimb keys`: make, list and revoke the keys of a server."""

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.workbench.options import TextOrNone

keys = App(name="keys", help="Keys for klimb serve: who may ask, who may rate, who may read the metrics.")


Scopes = Annotated[tuple[Literal["serve", "feedback", "admin"], ...], Parameter(consume_multiple=True, negative="")]


@keys.command(name="new")
def new(*, scope: Scopes, into: Path, note: TextOrNone = "") -> None:
    """Make a key and show it, once: the file holds its hash.

    Args:
        scope: What it opens: serve, feedback, admin; several may be given.
        into: The file of keys; it is made if need be.
        note: For people, e.g. who gets it.
    """
    from klimb.web.serve.keys import add_key

    key, row = add_key(into, scope, note=note)
    Console(stderr=True).print(
        Text(f"key {row.key_id} for {', '.join(row.scopes)} is in {into}; it is shown this once:", style="dim")
    )
    # For programs that read it: the key alone, unbroken, on the standard output.
    print(key)


@keys.command(name="ls")
def ls(path: Path, /) -> None:
    """List the keys of a file, without what they are.

    Args:
        path: The file of keys.
    """
    from klimb.web.serve.keys import read_keys

    table = Table("key", "opens", "made", "revoked", "note", box=None, pad_edge=False)
    for key in read_keys(path):
        revoked = _date(key.revoked_at) if key.revoked_at else ""
        table.add_row(key.key_id, ", ".join(key.scopes), _date(key.created_at), Text(revoked), Text(key.note))
    Console().print(table)


@keys.command(name="revoke")
def revoke(path: Path, key_id: str, /) -> None:
    """Revoke a key: servers that use the file stop answering it at once.

    Args:
        path: The file of keys.
        key_id: As `klimb keys ls` lists it; the twelve digits in the key.
    """
    from klimb.web.serve.keys import revoke_key

    key = revoke_key(path, key_id)
    Console().print(Text(f"key {key.key_id} opens nothing from now on"))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
