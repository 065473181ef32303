"""What only a whole column says of one of its cells: the order of its dates, and how its ratings are written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from klimb.experience.importing.dates import ORDERS, Readings, orders_of, readings
from klimb.experience.importing.guessing import quoted
from klimb.experience.importing.rating_texts import read_rating
from klimb.experience.importing.rules import FUTURE_SLACK, ImportRules
from klimb.experience.reading.records import DateOrder, Record, Row, UnsettledError

ReadAgain = Callable[[], Iterator[Record]]
"""Begins to read the file again, from its first row."""


OFFERED: Sequence[DateOrder] = ORDERS[:2]


def settle(error: UnsettledError, row: Row, rules: ImportRules, read_again: ReadAgain) -> ImportRules:
    """Return the rules with what the columns of the file in which this row has that text are found to be.

    Args:
        error: says which text it is.
        row: that has it, as it was read.
        rules: before.
        read_again: the file, which is read to its end.

    Raises:
        ValueError: the column does not say it.
    """
    names = [name for name, cell in row.values.items() if cell == error.text]
    cells = _texts(read_again(), names)
    if error.what == "date":
        return replace(rules, dates=_order(cells, names, error.text, row, latest=rules.now + FUTURE_SLACK))
    form = _form(cells, names, error.text, row)
    highest = f"of {rules.scale[1]:g}" if rules.scale is not None else form
    if form.startswith("of ") and form != highest:
        raise ValueError(
            f"{row.place}: {error.text!r} is {form}, and --scale ends at {highest.removeprefix('of ')}; state the "
            f"lowest and the highest rating that can be given, or what each stands for: --map '{error.text}=1'"
        )
    return replace(rules, rating_form=form)


def _texts(records: Iterable[Record], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Place and text of each cell of the columns."""
    for record in records:
        if isinstance(record, Row):
            for name in names:
                cell = record.values.get(name)
                if isinstance(cell, str) and cell.strip():
                    yield record.place, cell


def _order(cells: Iterable[tuple[str, str]], names: Sequence[str], text: str, row: Row, *, latest: float) -> DateOrder:
    """Return the one order in which every date of the column is a date of the past.

    Raises:
        ValueError: several are, or none.
    """
    shown: dict[DateOrder, str] = {}
    for place, cell in cells:
        past: Readings = {order: moment for order, moment in readings(cell).items() if moment.seconds <= latest}
        if past:
            for order in set(ORDERS) - orders_of(past):
                shown.setdefault(order, f"{cell!r} ({place})")
    left: list[DateOrder] = [order for order in ORDERS if order not in shown and order in readings(text)]
    if len(left) == 1:
        return left[0]
    where = f"column {names[0]}" if names else "file"
    offered = " or ".join(f"--dates {order}" for order in left or OFFERED)
    without = f", and --ignore {quoted(names[0])} leaves all dates out" if names else ""
    if left:
        why = f"and no other date of the {where} shows which"
    else:
        why = (
            "and no order fits all dates of the "
            + where
            + ": "
            + ", ".join(f"{example} is not {order}" for order, example in _examples(shown).items())
        )
    raise ValueError(
        f"{row.place}: the date {text!r} depends on what comes first in it, the day or the month, {why}. "
        f"Say it: {offered}; a date that is none in that order leaves its row undated{without}"
    )


def _examples(shown: Mapping[DateOrder, str]) -> Mapping[DateOrder, str]:
    return {order: example for order, example in shown.items() if order in OFFERED}


def _form(cells: Iterable[tuple[str, str]], names: Sequence[str], text: str, row: Row) -> str:
    """Return the one form in which the column's ratings are written; whole numbers may stand among decimal commas.

    Raises:
        ValueError: they are of several.
    """
    examples: dict[str, str] = {}
    for _, cell in cells:
        if found := read_rating(cell):
            is_whole = found.form == "number" and cell.strip().isdecimal()
            examples.setdefault("whole" if is_whole else found.form, cell.strip())
    forms = [form for form in examples if form != "whole"]
    if forms == ["comma"] or (len(forms) == 1 and "whole" not in examples):
        return forms[0]
    shown = ", ".join(repr(example) for example in examples.values())
    where = f"column {names[0]}" if names else "row"
    raise ValueError(
        f"{row.place}: the rating {text!r} is written otherwise than others of the {where} ({shown}), so it is not "
        f"plain what they are of; say what each stands for: --map '{text.strip()}=1'"
    )
