"""What is looked at before anything of a file is added: its kind, its columns, and ratings that can be read."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from klimb.experience.importing.cells import number
from klimb.experience.importing.guessing import (
    NEEDED,
    Guess,
    check_words,
    comes_twice,
    first_rows,
    guess_columns,
    guess_table,
    quoted,
)
from klimb.experience.importing.kind import Importer, RatingOf
from klimb.experience.importing.kinds.table import COLUMNS
from klimb.experience.importing.registry import (
    IMPORTERS,
    convert_row,
    find_importer,
    guess_importer,
    rename_columns,
    without_ignored,
)
from klimb.experience.importing.rejects import NUM_REASONS_SHOWN
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import DateRule, ReadLimits, Reject, Row, RowError, cell_of, has_cell
from klimb.experience.reading.sources import Source, read_records


def guess_kind(source: Source, rules: ImportRules, limits: ReadLimits) -> Importer:
    """Guess by the first row that can be read, or the first of those behind it that shows a kind."""
    rejects: list[Reject] = []
    for record in read_records(source, limits):
        if isinstance(record, Row):
            return _guess_by(_named_by_us(record, rules), source, rules, limits)
        if isinstance(record, Reject) and len(rejects) < NUM_REASONS_SHOWN:
            rejects.append(record)
    if not rejects:
        raise ValueError(f"{source.name} has no rows: it is empty, or a header alone")
    first = {reject.reason: reject for reject in reversed(rejects)}
    why = "; ".join(f"{reject.place}: {reject.reason}: {reject.detail}" for reject in reversed(first.values()))
    table = ". If it is a table, let its name end in .csv or .tsv" if "not JSON" in first else ""
    raise ValueError(f"{source.name} has no row that can be read: {why}{table}")


def _named_by_us(row: Row, rules: ImportRules) -> Row:
    try:
        return rename_columns(row, rules)
    except RowError:
        return without_ignored(row, rules)


_LESS_TELLING = ("feedback", "sharegpt")
"""Kinds whose columns a table has as well."""


_WITHOUT_LABELS = ("prompt-completion", "table")
"""Kinds of which a row is that lacks the label which others of its file have."""


def _labelled(source: Source, rules: ImportRules, limits: ReadLimits) -> Importer | None:
    """Return the kind of labelled answers if any of the first rows is one, and none has a reward."""
    rows = [without_ignored(row, rules) for row in first_rows(read_records(source, limits))]
    if any("reward" in row.values for row in rows) or guess_columns(rows, ("reward",), stated=rules.columns).columns:
        return None
    labelled = IMPORTERS["kto"]
    return labelled if any(labelled.looks_alike(_named_by_us(row, rules).values) for row in rows) else None


def _guess_by(row: Row, source: Source, rules: ImportRules, limits: ReadLimits) -> Importer:
    """Return the kind that the row looks like; a table, where its columns have the names of one.

    What looks like ratings, or like dialogues alone, is a table as well where it has prompts and responses beside them.
    """
    found = find_importer(row)
    if found is not None and found.name in _WITHOUT_LABELS:
        return _labelled(source, rules, limits) or found
    if found is None or found.name in _LESS_TELLING:
        rows = [without_ignored(each, rules) for each in first_rows(read_records(source, limits))]
        guess = guess_table(rows, stated=rules.columns)
        there = set[str]() if guess is None else {*guess.columns, *rules.columns, *row.values}
        if guess is not None and (found is None or there.issuperset(NEEDED)):
            return replace(IMPORTERS["table"], because="its columns have names that prompts and responses have")
        if found is None:
            found = next((each for row in rows if (each := find_importer(row)) is not None), None)
    return found or guess_importer(row)


def guess_of(source: Source, importer: Importer, rules: ImportRules, limits: ReadLimits) -> Guess:
    """Return which columns of the file are what, of those that its kind reads and that have no name of ours.

    Raises:
        ValueError: two columns could be the prompt, the response or the reward; or ratings are words that have to be
            mapped.
    """
    if not importer.guessed:
        return Guess()
    rows = [without_ignored(row, rules) for row in first_rows(read_records(source, limits))]
    guess = guess_columns(rows, importer.guessed, stated=rules.columns)
    if not rules.value_map:
        check_words(guess, rows)
    if "id" in guess.columns and comes_twice(read_records(source, limits), guess.columns["id"]):
        guess = guess.without("id", f"{guess.columns['id']} comes more than once, so it names no single row")
    return guess


def check_columns_there(source: Source, needed: Sequence[str], rules: ImportRules, limits: ReadLimits) -> None:
    """Look for the first row with the columns; where there is one, this ends.

    Raises:
        ValueError: no row has the columns that are needed, or those that the user maps.
    """
    stated = [theirs for ours, theirs in rules.columns.items() if ours not in rules.guessed]
    if needed == NEEDED and ("messages" in rules.columns or len({*NEEDED} & {*rules.columns}) == 1):
        needed = ()  # a column of whole conversations is both
    wanted = dict.fromkeys([*(rules.columns.get(name, name) for name in needed), *stated])
    columns: Sequence[str] = ()
    for record in read_records(source, limits):
        if not isinstance(record, Row):
            continue
        if all(has_cell(record.values, name) for name in wanted):
            return
        columns = columns or [str(name) for name in record.values]
    if columns:
        known = [name for name in needed or rules.columns if name in COLUMNS]
        example = " ".join(f"{name}=NAME" for name in known)
        raise ValueError(
            f"{source.name}: no row has all of the columns {', '.join(wanted)}; there are {', '.join(columns)}. "
            + (f"Say which is which: --columns {example}" if known else "Is it a file of another kind? See --as")
        )


class _Asked(Mapping[str, object]):
    """The cells of a row under our names, which note the names that are asked for, there or not."""

    def __init__(self, cells: Mapping[str, object], asked: dict[str, None]) -> None:
        self._cells, self._asked = cells, asked

    def __getitem__(self, name: str) -> object:
        self._asked[name] = None
        return self._cells[name]

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._asked[name] = None
        return name in self._cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def check_columns_used(source: Source, importer: Importer, rules: ImportRules, limits: ReadLimits) -> None:
    """Read rows until each of our names that the user maps was looked up; where there is none, nothing is read.

    Raises:
        ValueError: a name that this kind looks up in no row, so that the mapping of it would change nothing.
    """
    left = {name for name in rules.columns if name != "id" and name not in rules.guessed}
    # `convert_row` reads the id of every kind.
    if not left:
        return
    asked: dict[str, None] = {}
    for record in read_records(source, limits):
        if not isinstance(record, Row):
            continue
        _ask(record, importer, rules, asked)
        left -= asked.keys()
        if not left:
            return
    if asked:
        raise ValueError(_needless_mapping(left, asked, importer, rules))


def _needless_mapping(left: Iterable[str], asked: Iterable[str], importer: Importer, rules: ImportRules) -> str:
    """Say what is mapped for nothing, and what to type where the mapping is the wrong way round."""
    names = sorted(left)
    known = [name for name in dict.fromkeys([*asked, "id"]) if name not in names]
    turned = [f"{quoted(rules.columns[name])}={quoted(name)}" for name in names if rules.columns[name] in known]
    way_out = f"Our name comes first: --columns {' '.join(turned)}" if turned else _nearest(names[0], known)
    return (
        f"--columns maps {', '.join(names)}, and {importer.name} reads no column of that name: it reads "
        f"{', '.join(known)}. {way_out}"
    ).rstrip()


def _ask(row: Row, importer: Importer, rules: ImportRules, asked: dict[str, None]) -> None:
    """Note which columns the kind looks up in the row, which may lack those that are mapped."""
    there = without_ignored(row, rules).values
    taken = set(rules.columns.values())
    cells = {name: value for name, value in there.items() if name not in taken}
    cells |= {ours: cell_of(there, theirs) for ours, theirs in rules.columns.items() if has_cell(there, theirs)}
    try:
        asking = replace(row, values=_Asked(cells, asked), dates=DateRule(order="day-first"))
        convert_row(asking, importer.read, replace(rules, rating_form="number"), kind=importer.name)
    except RowError:
        return  # it is rejected with its reason when it is imported


def check_ignored(source: Source, importer: Importer, rules: ImportRules, limits: ReadLimits) -> None:
    """Look for the columns that are to be ignored.

    Raises:
        ValueError: one is needed or mapped; or no row has it.
    """
    needed = {rules.columns.get(name, name) for name in importer.needed} | set(rules.columns.values())
    for name in rules.ignore:
        if name in needed:
            raise ValueError(f"--ignore {name}: that column is needed, or --columns maps it; take one of the two away")
    left, columns = set(rules.ignore), dict[str, None]()
    if not left:
        return
    for record in read_records(source, limits):
        if isinstance(record, Row):
            columns |= dict.fromkeys(str(name) for name in record.values)
            left -= columns.keys()
            _check_needless(record, importer, rules)
            if not left:
                return
    if columns:
        name = min(left)
        raise ValueError(
            f"--ignore {name}: no row has that column; there are {', '.join(columns)}. {_nearest(name, columns)}"
        )


def _check_needless(row: Row, importer: Importer, rules: ImportRules) -> None:
    """Raise ValueError if the row can be imported with the ignored columns and not without them."""
    if _why_not(row, importer, rules) and not _why_not(row, importer, replace(rules, ignore=())):
        why = _why_not(row, importer, rules)
        raise ValueError(
            f"--ignore {' '.join(rules.ignore)}: {row.place} cannot be imported without ({why}); ignore what is not "
            "needed"
        )


def _why_not(row: Row, importer: Importer, rules: ImportRules) -> str:
    rules = replace(rules, rating_form=rules.rating_form or "number", dates=rules.dates or "day-first")
    try:
        convert_row(rename_columns(row, rules), importer.read, rules, kind=importer.name)
    except RowError as error:
        return str(error)
    return ""


def _nearest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1)
    return f"Did you mean {close[0]}?" if close else ""


def check_ratings(source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits) -> None:
    """Look at all ratings, and holds none of them.

    On a scale from 1 to 5, a 1 is the worst; read as it stands, it would be the best. So one rating outside of 0 to 1
    makes all others of its file unreadable, until the user states what they stand for.

    Raises:
        ValueError: ratings of several names, whose mean would be of nothing, or none of the name that is asked for; or
            one outside of 0 to 1, and neither a scale nor a map is stated.
    """
    _check_name_there(source, rating_of, rules, limits)
    is_stated = rules.scale is not None or bool(rules.value_map)
    if is_stated and rules.score_name:
        return
    names: dict[str, None] = {}
    first: tuple[str, float] | None = None
    low, high = math.inf, -math.inf
    for place, name, value in _ratings(source, rating_of, rules, limits):
        names[name] = None
        if len(names) > NUM_REASONS_SHOWN:
            break
        if value is None:
            continue
        low, high = min(low, value), max(high, value)
        if first is None and not 0 <= value <= 1:
            first = place, value
    _check_one_name(source, list(names))
    if first is not None and not is_stated:
        raise ValueError(_unscaled(*first, low=low, high=high))


def _check_name_there(source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits) -> None:
    """Raise ValueError where nothing is rated under the name that is asked for, and something under another."""
    if not rules.score_name:
        return
    names: dict[str, None] = {}
    for _, name, _ in _ratings(source, rating_of, replace(rules, score_name=""), limits):
        names[name] = None
        if name == rules.score_name:
            return
    if names:
        there = ", ".join(list(names)[:NUM_REASONS_SHOWN])
        raise ValueError(f"--score-name {rules.score_name}: nothing is rated under that name; there are {there}")


def _ratings(
    source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits
) -> Iterator[tuple[str, str, float | None]]:
    """Place, name and number of each rating that is asked for; None for one that is no number."""
    for row, name, stated in stated_ratings(source, rating_of, rules, limits):
        yield row.place, name, _number(stated, row)


def stated_ratings(
    source: Source, rating_of: RatingOf, rules: ImportRules, limits: ReadLimits
) -> Iterator[tuple[Row, str, object]]:
    """Yield row, name and value, as it stands there, of each rating that is asked for."""
    for record in read_records(source, limits):
        if not isinstance(record, Row):
            continue
        try:
            row = rename_columns(record, rules)
            found = rating_of(row)
        except RowError:
            continue  # it is rejected with its reason when it is imported
        for name, stated in found if isinstance(found, list) else [found]:
            if not rules.score_name or name == rules.score_name:
                yield row, name, stated


def _number(stated: object, row: Row) -> float | None:
    try:
        return number(stated, what="the rating", row=row)
    except RowError:
        return None


def _check_one_name(source: Source, names: Sequence[str]) -> None:
    if len(names) > 1:
        raise ValueError(
            f"{source.name} rates several things: {', '.join(names)}; say which of them is the reward: "
            f"--score-name {names[0]}"
        )


def _unscaled(place: str, value: float, *, low: float, high: float) -> str:
    return (
        f"{place}: the rating {value:g} is not in 0 to 1 (the file's go from {low:g} to {high:g}), and no scale is "
        "stated: nothing was imported. State the lowest and the highest rating that can be given, such as --scale 1 5, "
        "or what each stands for, such as --map 1=0 5=1. If it is 0 to 1 and other ratings are mistakes: --scale 0 1"
    )
