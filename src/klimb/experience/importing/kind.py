"""A kind of row: what reads it, and how it is told from others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from klimb.experience.feedback import Feedback
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row

ReadRow = Callable[[Row, ImportRules], Sequence[ParsedRow | Feedback]]

RatingOf = Callable[[Row], tuple[str, object] | list[tuple[str, object]]]
"""What a row rates, and the rating as it stands there; a list where it has several."""


def is_never(values: Mapping[str, object]) -> bool:
    """Tell of no row that it is of a kind."""
    return False


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One kind of row.

    Attributes:
        name: what `--as` takes.
        read: what a row says; it raises RowError for a row that says nothing usable.
        summary: one line for people.
        looks_alike: whether a row is likely of this kind; one that is never guessed leaves it out.
        rank: where a row looks like several kinds, the one of the smallest rank is taken: the most telling.
        because: what `looks_alike` saw, for people.
        guessed: our names of columns that are guessed by well-known names where the file has none of our name.
        needed: columns without which no row is of this kind, and which can be mapped.
        rating_in: what a row rates and the rating as it stands there, or a list of these; None for a kind without
            ratings. Rewards are none: they have no scale that could be mistaken for another.
        split: the rows in a record of a kind whose records hold several; None where a record is a row.
        is_in_front: the program may stand in front of `klimb serve`: its answers are then looked for among those that
            were served.
        nothing: what the rows are of which `read` returns nothing by design, for people.
    """

    name: str
    read: ReadRow
    summary: str
    looks_alike: Callable[[Mapping[str, object]], bool] = is_never
    rank: int = 0
    because: str = ""
    guessed: Sequence[str] = ()
    needed: Sequence[str] = ()
    rating_in: RatingOf | None = None
    split: Callable[[Row], Iterator[Row]] | None = None
    is_in_front: bool = False
    nothing: str = "rows without a response or a rating"


def has_columns(*names: str) -> Callable[[Mapping[str, object]], bool]:
    """Return what tells whether a row has all of these columns."""
    return lambda values: all(name in values for name in names)
