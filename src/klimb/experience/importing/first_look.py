"""What a file must show before any row of it is added: its kind, its columns, and ratings that can be read."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from klimb.experience.importing.cells import number
from klimb.experience.importing.converting import renamed
from klimb.experience.importing.reading import read_records
from klimb.experience.importing.registry import Importer, guessed_importer
from klimb.experience.importing.rejects import NUM_REASONS_SHOWN
from klimb.experience.importing.rows import ReadLimits, Reject, Row, RowError
from klimb.experience.importing.rules import ImportRules

RatingOf = Callable[[Row], tuple[str, object]]
"""What a row rates, and the rating as it stands there."""


def guessed_kind(path: Path, limits: ReadLimits) -> Importer:
    """By the first row that can be read."""
    rejects: list[Reject] = []
    for record in read_records(path, limits):
        if isinstance(record, Row):
            return guessed_importer(record)
        if isinstance(record, Reject) and len(rejects) < NUM_REASONS_SHOWN:
            rejects.append(record)
    why = "; ".join(f"{reject.place}: {reject.reason} {reject.detail}" for reject in rejects)
    raise ValueError(f"{path} has no row that can be read{': ' if why else ''}{why}")


def check_columns_there(path: Path, needed: Sequence[str], rules: ImportRules, limits: ReadLimits) -> None:
    """Looks for the first row with the columns; where there is one, this ends.

    Raises:
        ValueError: no row has the columns that are needed, or those that the user maps.
    """
    wanted = dict.fromkeys([*(rules.columns.get(name, name) for name in needed), *rules.columns.values()])
    columns: Sequence[str] = ()
    for record in read_records(path, limits):
        if not isinstance(record, Row):
            continue
        if all(name in record.values for name in wanted):
            return
        columns = columns or [str(name) for name in record.values]
    if columns:
        example = " ".join(f"{name}=NAME" for name in needed or rules.columns)
        raise ValueError(
            f"{path}: no row has all of the columns {', '.join(wanted)}; there are {', '.join(columns)}. "
            f"Say which is which: --columns {example}"
        )


def check_ratings(path: Path, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits) -> None:
    """Looks at all ratings, and holds none of them.

    On a scale from 1 to 5, a 1 is the worst; read as it stands, it would be the best. So one rating outside of 0 to 1
    makes all others of its file unreadable, until the user states what they stand for.

    Raises:
        ValueError: ratings of several names, whose mean would be of nothing; or one outside of 0 to 1, and neither a
            scale nor a map is stated.
    """
    is_stated = rules.scale is not None or bool(rules.value_map)
    if is_stated and rules.score_name:
        return
    names: dict[str, None] = {}
    first: tuple[str, float] | None = None
    low, high = math.inf, -math.inf
    for place, name, value in _ratings(path, rating_of, rules, limits):
        names[name] = None
        if len(names) > NUM_REASONS_SHOWN:
            break
        if value is None:
            continue
        low, high = min(low, value), max(high, value)
        if first is None and not 0 <= value <= 1:
            first = place, value
    _check_one_name(path, list(names))
    if first is not None and not is_stated:
        raise ValueError(_unscaled(*first, low=low, high=high))


def _ratings(
    path: Path, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits
) -> Iterator[tuple[str, str, float | None]]:
    """Place, name and number of each rating that is asked for; None for one that is no number."""
    for record in read_records(path, limits):
        if not isinstance(record, Row):
            continue
        try:
            row = renamed(record, rules)
            name, stated = rating_of(row)
        except RowError:
            continue  # it is rejected with its reason when it is imported
        if not rules.score_name or name == rules.score_name:
            yield row.place, name, _number(stated, row)


def _number(stated: object, row: Row) -> float | None:
    try:
        return number(stated, what="the rating", row=row)
    except RowError:
        return None


def _check_one_name(path: Path, names: Sequence[str]) -> None:
    if len(names) > 1:
        raise ValueError(
            f"{path} rates several things: {', '.join(names)}; say which of them is the reward: --score-name {names[0]}"
        )


def _unscaled(place: str, value: float, *, low: float, high: float) -> str:
    return (
        f"{place}: the rating {value:g} is not in 0 to 1 (the file's go from {low:g} to {high:g}), and no scale is "
        "stated: nothing was imported. State the lowest and the highest rating that can be given, such as --scale 1 5, "
        "or what each stands for, such as --map 1=0 5=1. If it is 0 to 1 and other ratings are mistakes: --scale 0 1"
    )
