"""What forgetting a person does, for people to agree to."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

from klimb.ui.text import relative_to_working_directory

MOST_SHOWN = 1_000
"""Files of a kind in the list."""


class Changed(Protocol):
    """A file that changes."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def what(self) -> str:
        """What of it goes: rows, lines, or the file."""
        ...

    @property
    def number(self) -> int:
        """How many."""
        ...


class Saw(Protocol):
    """A model that saw something."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def why(self) -> str:
        """How that is known."""
        ...


class Planned(Protocol):
    """What is to be done."""

    @property
    def changes(self) -> Sequence[Changed]:
        """File by file."""
        ...

    @property
    def left(self) -> Sequence[tuple[Path, str]]:
        """Files that stay, with why."""
        ...

    @property
    def models(self) -> Sequence[Saw]:
        """Models that saw it."""
        ...


def print_plan(console: Console, plan: Planned) -> None:
    """Print what goes, what stays, and which models saw it."""
    if not plan.changes:
        console.print(Text("nothing of the person is in the files that can be changed"))
    _list(console, "goes:", [(each.path, _goes(each)) for each in plan.changes])
    _list(console, "stays, and is yours to edit or delete:", plan.left)
    _list(console, "saw it, and forget nothing by this:", [(each.path, each.why) for each in plan.models])


def print_rest(console: Console, left: Sequence[tuple[Path, str]]) -> None:
    """Print what a search for the person found after all was done."""
    if left:
        _list(console, "done, but for these:", left)
    else:
        console.print(Text("done: a search for the person over these folders finds nothing"))


def _goes(change: Changed) -> str:
    if change.what == "file":
        return "the whole file; klimb report makes pages of runs anew"
    return f"{change.number:,} {change.what if change.number != 1 else change.what.removesuffix('s')}"


def _list(console: Console, title: str, rows: Iterable[tuple[Path, str]]) -> None:
    listed = list(rows)
    if not listed:
        return
    console.print(Text(title, style="bold"))
    for path, why in listed[:MOST_SHOWN]:
        console.print(Text(f"  {relative_to_working_directory(path)}: {why}"), soft_wrap=True)
    if len(listed) > MOST_SHOWN:
        console.print(Text(f"  and {len(listed) - MOST_SHOWN:,} more"))
