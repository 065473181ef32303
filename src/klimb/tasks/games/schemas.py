"""Small databases by number: a theme, names of columns that differ from one to the next, and rows drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MIN_ROWS, MAX_ROWS = 10, 20


Value = str | int


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its name, and `text` or `integer`."""

    name: str
    type: Literal["text", "integer"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its rows."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def definition(self) -> str:
        """The table in one line, such as `books(title text, pages integer)`."""
        return f"{self.name}({', '.join(f'{column.name} {column.type}' for column in self.columns)})"


@dataclass(frozen=True, kw_only=True)
class Database:
    """Tables that belong together."""

    tables: tuple[Table, ...]

    @property
    def definition(self) -> str:
        """The tables, one a line."""
        return "\n".join(table.definition for table in self.tables)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A column of numbers.

    Attributes:
        noun: how a question calls it.
        names: what the column may be called.
        lowest: of its values, and of those that questions ask for.
        highest: likewise.
    """

    noun: str
    names: tuple[str, ...]
    lowest: int
    highest: int


@dataclass(frozen=True, kw_only=True)
class Theme:
    """What a database is about: things, each in a group, and a second table that says where a group is.

    Attributes:
        things: the name of the first table, and how a question calls its rows.
        thing: one of them.
        names: what they are called; the first column.
        key_names: what the first column may be called.
        group: how a question calls what things are grouped by.
        group_names: what its column may be called.
        groups: the groups.
        numbers: two columns of numbers.
        places_table: the name of the second table.
        places: where groups may be.
    """

    things: str
    thing: str
    names: tuple[str, ...]
    key_names: tuple[str, ...]
    group: str
    group_names: tuple[str, ...]
    groups: tuple[str, ...]
    numbers: tuple[Number, Number]
    places_table: str
    places: tuple[str, ...] = ("Rome", "Oslo", "Lima")


NOUNS = (
    *("Amber", "Birch", "Cedar", "Delta", "Ember", "Flint", "Grove", "Heath", "Ivory", "Jade", "Kestrel", "Laurel"),
    *("Maple", "Nettle", "Onyx", "Pearl", "Quartz", "Raven", "Sable", "Thorn", "Umber", "Violet", "Willow", "Zephyr"),
)
"""What things are called, whatever they are; a database has 20 of them at most."""


THEMES: Mapping[str, Theme] = {
    "library": Theme(
        things="books",
        thing="book",
        names=NOUNS,
        key_names=("title", "name"),
        group="author",
        group_names=("author", "writer"),
        groups=("Ann", "Ben", "Cleo", "Dan"),
        numbers=(
            Number(noun="number of pages", names=("pages", "num_pages", "length"), lowest=50, highest=900),
            Number(noun="year", names=("year", "published"), lowest=1950, highest=2020),
        ),
        places_table="authors",
    ),
    "shop": Theme(
        things="products",
        thing="product",
        names=NOUNS,
        key_names=("name", "product"),
        group="brand",
        group_names=("brand", "maker"),
        groups=("Acme", "Bolt", "Crest", "Dune"),
        numbers=(
            Number(noun="price", names=("price", "cost"), lowest=1, highest=200),
            Number(noun="stock", names=("stock", "in_stock", "quantity"), lowest=0, highest=90),
        ),
        places_table="brands",
    ),
    "school": Theme(
        things="pupils",
        thing="pupil",
        names=NOUNS,
        key_names=("name", "pupil"),
        group="teacher",
        group_names=("teacher", "tutor"),
        groups=("Eve", "Finn", "Gus", "Hana"),
        numbers=(
            Number(noun="score", names=("score", "points", "mark"), lowest=0, highest=100),
            Number(noun="height", names=("height", "height_cm"), lowest=110, highest=190),
        ),
        places_table="teachers",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the columns of a database are called."""

    key: str
    group: str
    numbers: tuple[str, str]


def name_columns(theme: Theme, generator: random.Random) -> Names:
    """Return names of the columns: the same question may need another query."""
    first, second = theme.numbers
    return Names(
        key=generator.choice(theme.key_names),
        group=generator.choice(theme.group_names),
        numbers=(generator.choice(first.names), generator.choice(second.names)),
    )


def make_database(theme: Theme, names: Names, *, seed: int) -> Database:
    """Return the database with these names and rows of this seed. No number stands twice in its column."""
    generator = random.Random(seed)
    num_rows = generator.randint(MIN_ROWS, MAX_ROWS)
    keys = generator.sample(theme.names, num_rows)
    groups = generator.choices(theme.groups, k=num_rows)
    first, second = (generator.sample(range(each.lowest, each.highest + 1), num_rows) for each in theme.numbers)
    places = [(group, generator.choice(theme.places)) for group in theme.groups]
    things = Table(
        name=theme.things,
        columns=(
            Column(name=names.key, type="text"),
            Column(name=names.group, type="text"),
            Column(name=names.numbers[0], type="integer"),
            Column(name=names.numbers[1], type="integer"),
        ),
        rows=tuple(zip(keys, groups, first, second, strict=True)),
    )
    lookup = Table(
        name=theme.places_table,
        columns=(Column(name=names.group, type="text"), Column(name="city", type="text")),
        rows=tuple(places),
    )
    return Database(tables=(things, lookup))
