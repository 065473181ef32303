"""What of an addition is new, what is there already, and what contradicts what is there. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """What came of an addition.

    Attributes:
        num_added: rows that are in the store now and were not before.
        num_duplicates: rows that were there already, with the same content.
        conflicts: ids that were there already with other content; these rows were not added.
    """

    num_added: int
    num_duplicates: int
    conflicts: tuple[str, ...]


def sort_out(
    rows: Sequence[Row], known: Iterable[Row], *, id_of: Callable[[Row], str], normal: Callable[[Row], Row]
) -> tuple[list[Row], AppendResult]:
    """The rows to add, in their order, and the counts. Of two rows with one id in `rows`, the first is the one.

    Args:
        rows: what is to be added.
        known: those rows of the store that have one of their ids.
        id_of: a row's id.
        normal: a row as it would be read back; only then are two rows that differ compared.
    """
    there = {id_of(row): row for row in known}
    added: list[Row] = []
    conflicts: list[str] = []
    for row in rows:
        first = there.get(id_of(row))
        if first is None:
            there[id_of(row)] = row
            added.append(row)
        elif first != row and repr(normal(first)) != repr(normal(row)):  # as texts, because NaN equals nothing
            conflicts.append(id_of(row))
    num_duplicates = len(rows) - len(added) - len(conflicts)
    return added, AppendResult(
        num_added=len(added), num_duplicates=num_duplicates, conflicts=tuple(dict.fromkeys(conflicts))
    )
