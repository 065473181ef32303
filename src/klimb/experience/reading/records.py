"""What a reader hands on: rows with their place, and what could not become one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

DateOrder = Literal["", "day-first", "month-first", "year-first"]
"""What stands in which place in a date of three numbers; empty where that is not known, or plain."""


class RowError(ValueError):
    """A row that cannot be imported.

    Attributes:
        reason: short and without the row's own values, so that rows can be counted by it.
        detail: what came and what was expected.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class UnsettledError(Exception):
    """A cell that can be read in several ways, of which the whole column decides.

    Attributes:
        what: a `date`, or a `rating`.
        text: the cell's.
    """

    def __init__(self, what: Literal["date", "rating"], text: str) -> None:
        super().__init__(f"a {what} that can be read in several ways: {text[:40]!r}")
        self.what = what
        self.text = text


def has_cell(cells: Mapping[str, object], name: str) -> bool:
    """Tell whether there is a column of this name, or an object with it: `data.question` is in the column `data`."""
    return name in cells or _inner(cells, name.split(".")) is not None


def cell_of(cells: Mapping[str, object], name: str) -> object:
    """Return the cell of this name, or what an object in a cell has under it; raises KeyError for neither."""
    if name not in cells and (inner := _inner(cells, name.split("."))) is not None:
        return inner[0]
    return cells[name]


def _inner(value: object, path: Sequence[str]) -> tuple[object] | None:
    if not path:
        return (value,)
    if not isinstance(value, Mapping) or path[0] not in value:
        return None
    return _inner(cast(Mapping[str, object], value)[path[0]], path[1:])


class Columns(Mapping[str, object]):
    """The cells of a row by column, which note what was looked up: the other columns were not read.

    Going through the names reads nothing; asking whether one is there does not either. A column that is called
    otherwise here is no longer there under its own name; one that is a part of an object in a cell stays in it too.

    Attributes:
        names: name of a column here -> its name in the file, where they differ.
        read: names, as they are here, of the cells that were looked up.
        also_unread: what of the cells that were looked up was left out, for people.
        remarks: what was found of the row that refuses nothing, and its detail; rows are counted by it.
    """

    __slots__ = ("_cells", "also_unread", "names", "read", "remarks")

    def __init__(self, cells: Mapping[str, object], names: Mapping[str, str] | None = None) -> None:
        self.names = names or {}
        renamed = set(self.names.values())
        kept = {name: value for name, value in cells.items() if name not in renamed} if renamed else cells
        self._cells = (
            {**kept, **{ours: cell_of(cells, theirs) for ours, theirs in self.names.items()}} if renamed else kept
        )
        self.read: set[str] = set()
        self.also_unread: set[str] = set()
        self.remarks: dict[str, str] = {}

    def __getitem__(self, name: str) -> object:
        value = self._cells[name]
        self.read.add(name)
        return value

    def get(self, name: str, default: object = None, /) -> object:
        """Look up a cell that need not be there, without the exception by which `Mapping` does it."""
        if name not in self._cells:
            return default
        self.read.add(name)
        return self._cells[name]

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def cells(self) -> Mapping[str, object]:
        """The cells themselves: looking one up here reads nothing."""
        return self._cells

    @property
    def unread(self) -> Sequence[str]:
        """Names, as they are in the file, of the cells that hold something and that nobody looked up; `also_unread`."""
        left = [name for name, value in self._cells.items() if name not in self.read and value not in (None, "")]
        return [*(self.names.get(name, name) for name in left), *sorted(self.also_unread)]


@dataclass(frozen=True, slots=True)
class DateRule:
    """What is known of the dates of a file.

    Attributes:
        order: of dates of three numbers; empty as long as nothing has shown it.
        latest: seconds since the epoch; what is later is no date of something that happened.
    """

    order: DateOrder = ""
    latest: float = math.inf


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    Attributes:
        place: `data.jsonl:17` for people.
        values: its cells.
        raw: the record as JSON.
        is_text: every cell is text, as in CSV: numbers, booleans and lists have to be read out of it.
        dates: how its dates are to be read.
    """

    place: str
    values: Mapping[str, object]
    raw: str
    is_text: bool = False
    dates: DateRule = DateRule()

    def remark(self, finding: str, detail: str) -> None:
        """Note what was found of the row and refuses nothing; it is counted where the row is imported."""
        if isinstance(self.values, Columns):
            self.values.remarks[finding] = detail


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not imported: where it stands, why, and its text."""

    place: str
    reason: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class CutOff:
    """The last line of a file that is still being written: it has no line feed and is not whole JSON."""

    place: str


Record = Row | Reject | CutOff


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What bounds the memory of reading.

    Attributes:
        max_line_bytes: a longer line, or element of a JSON array, is rejected without being held.
        max_expansion: a .gz may grow to this many times its own size.
        free_expansion_bytes: below this many bytes nothing is asked of a .gz.
    """

    max_line_bytes: int = 16 * 1024**2
    max_expansion: float = 200.0
    free_expansion_bytes: int = 64 * 1024**2
