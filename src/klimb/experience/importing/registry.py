"""The kinds of rows there are, and which one a row looks like.

One row to samples or ratings: users hashed, columns renamed, read by its kind, checked. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from klimb.experience.feedback import Feedback
from klimb.experience.importing import kinds
from klimb.experience.importing.beside import check_beside
from klimb.experience.importing.cells import name_of
from klimb.experience.importing.guessing import NEEDED
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.known_forms import known_form
from klimb.experience.importing.own_importer import load_importer
from klimb.experience.importing.parsed_row import ParsedRow, as_samples, hash_of
from klimb.experience.importing.ratings import ratings_of_samples, sample_id_of
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.text_ids import with_whole_ids
from klimb.experience.importing.users import USER_NAMES, UserRules, may_hold_users, without_users
from klimb.experience.reading.records import Columns, Row, RowError, has_cell
from klimb.experience.samples import Sample
from klimb.own_parts import PREFIX, is_own

OWN_EXPORT = "klimb"
"""The kind of what klimb itself exported: its users are hashed already."""


HALF = "half a character"


SURPRISE = "a row that cannot be read"


_SURPRISES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _find_importers() -> Sequence[Importer]:
    found: list[Importer] = [
        import_module(f"{kinds.__name__}.{module.name}").IMPORTER for module in iter_modules(kinds.__path__)
    ]
    return sorted(found, key=lambda importer: (importer.rank, importer.name))


IMPORTERS: Mapping[str, Importer] = MappingProxyType({importer.name: importer for importer in _find_importers()})
"""By name, in the order in which a row is compared with them: the more telling first. Each file of `kinds` has one."""


def importer_named(name: str) -> Importer:
    """Return the importer of this name, or the user's own that `python:module.name` names.

    Raises:
        ValueError: there is none; the message has the names there are.
    """
    if is_own(name):
        return load_importer(name)
    if name not in IMPORTERS:
        raise ValueError(f"--as must be one of {', '.join(IMPORTERS)} or {PREFIX}module.name, got {name!r}")
    return IMPORTERS[name]


def find_importer(row: Row) -> Importer | None:
    """Return the first importer whose rows look like this one, if there is one."""
    return next((importer for importer in IMPORTERS.values() if _looks_alike(row, importer)), None)


def _looks_alike(row: Row, importer: Importer) -> bool:
    """Tell whether a row is of a kind; one with a cell that cannot be read is not, and reading it says why."""
    try:
        return importer.looks_alike(row.values)
    except _SURPRISES:
        return False


def guess_importer(row: Row) -> Importer:
    """Return the first importer whose rows look like this one; raises ValueError if none does."""
    if (importer := find_importer(row)) is not None:
        return importer
    names = ", ".join(str(name) for name in row.values)
    if (form := known_form(row.values)) is not None:
        raise ValueError(
            f"{row.place}: these are {form.name}, by the columns {names}; no kind reads them: {form.advice}"
        )
    raise ValueError(
        f"{row.place}: no kind of row has the columns {names}. Of a table, say which is which: --columns prompt=NAME "
        f"response=NAME reward=NAME (of whole conversations --columns messages=NAME); of another kind, which: --as "
        f"KIND, one of {', '.join(IMPORTERS)}"
    )


_USER_NAMES = frozenset(USER_NAMES)


def anonymise(
    row: Row,
    rules: ImportRules,
    *,
    salt: Callable[[], bytes] | None = None,
    kind: str = "",
    note_prose: Callable[[], None] = lambda: None,
) -> Row:
    """Return the row as it may be kept, among the rejects too: without user ids, unless the user keeps them.

    Args:
        row: as it was read, under the file's own names.
        rules: what the user states. A column that is mapped to something else than a user holds no user ids.
        salt: asked for at each user id; None for the salt of `rules`.
        kind: of the row.
        note_prose: called for each column of users that holds what somebody said.

    Raises:
        RowError: nested too deep to be looked through.
    """
    is_stated = not _USER_NAMES.isdisjoint(rules.columns)
    if rules.keep_users or not (is_stated or may_hold_users(row.values)):
        return row
    return without_users(row, user_rules(rules, salt=salt, kind=kind, note_prose=note_prose))


def user_rules(
    rules: ImportRules,
    *,
    salt: Callable[[], bytes] | None = None,
    kind: str = "",
    note_prose: Callable[[], None] = lambda: None,
) -> UserRules:
    """Return where users are in rows of the kind, by what the user states."""
    also = frozenset(theirs for ours, theirs in rules.columns.items() if ours in USER_NAMES)
    return UserRules(
        salt=salt or (lambda: rules.salt),
        also=also,
        never=frozenset(rules.columns.values()) - also,
        are_hashed=kind == OWN_EXPORT,
        note_prose=note_prose,
    )


def convert_row(row: Row, read: ReadRow, rules: ImportRules, *, kind: str) -> Sequence[Sample | Feedback]:
    """Return what an anonymous row, its columns renamed, becomes; nothing for one that holds no response by design.

    A cell of a shape that nobody thought of costs its row and not the import.

    Raises:
        RowError: it cannot be imported; then nothing of it is.
    """
    try:
        return _converted(row, read, rules, kind=kind)
    except RowError:
        raise
    except UnicodeEncodeError as error:
        raise RowError(HALF, f"text that no file can hold: {error.object[:40]!r}") from error
    except _SURPRISES as error:
        raise RowError(SURPRISE, f"{type(error).__name__}: {str(error)[:200]}") from error


def _converted(row: Row, read: ReadRow, rules: ImportRules, *, kind: str) -> Sequence[Sample | Feedback]:
    found = read(row, rules)
    check_beside(row, found)
    named = _apart([_named(each, row, rules) if isinstance(each, ParsedRow) else each for each in found])
    made: list[Sample | Feedback] = []
    of_row: dict[str, Sequence[Sample]] = {}
    for before, part in zip(found, named, strict=True):
        if isinstance(part, ParsedRow):
            samples = as_samples(part, row, rules, kind=kind)
            made += samples
            of_row |= {sample_id_of(before): samples} if isinstance(before, ParsedRow) else {}
        else:
            made += ratings_of_samples(part, of_row.get(part.sample_id, ()))
    return made


def _named(found: ParsedRow, row: Row, rules: ImportRules) -> ParsedRow:
    """Return the same with the id that the user asks for: that of a column, or none, which makes it a hash."""
    if rules.ids == "content":
        kept = {"completion_id": found.row_id} if found.row_id else {}
        own = found.sample and replace(found.sample, sample_id=hash_of(row.raw, str(found.part)))
        return replace(found, row_id="", sample=own, metadata={**found.metadata, **kept})
    if "id" not in rules.columns:
        return found
    row_id = name_of(row.values.get("id"))
    own = found.sample and replace(found.sample, sample_id=row_id or found.sample.sample_id)
    return replace(found, row_id=row_id, sample=own)


def _apart(found: Sequence[ParsedRow | Feedback]) -> Sequence[ParsedRow | Feedback]:
    """Return the same, numbered in their order if two responses would have one id: some servers repeat an index."""
    if len(found) < 2:
        return found
    ids = [(each.row_id, each.part) for each in found if isinstance(each, ParsedRow)]
    if len(set(ids)) == len(ids):
        return found
    return [replace(each, part=number) if isinstance(each, ParsedRow) else each for number, each in enumerate(found)]


def without_ignored(row: Row, rules: ImportRules) -> Row:
    """Return the row as if it had no column that the user wants to be ignored; its raw text stays."""
    if not rules.ignore:
        return row
    values = {name: value for name, value in row.values.items() if name not in rules.ignore}
    return Row(row.place, values, row.raw, row.is_text)


def rename_columns(row: Row, rules: ImportRules) -> Row:
    """Return the row with the columns that the user maps under our names, and noting which are read.

    A row may lack a column that not every row needs, as lines of JSON do where there is nothing to say.

    Raises:
        RowError: it has no such column, and it is the prompt's or the response's.
    """
    row = without_ignored(row, rules)
    columns = rules.columns
    missing = [ours for ours, theirs in columns.items() if not has_cell(row.values, theirs)]
    for ours in missing:
        if ours in NEEDED and ours not in rules.guessed:
            names = ", ".join(str(name) for name in row.values)
            raise RowError(f"no column {columns[ours]!r}", f"the columns are {names}")
    if missing:
        columns = {ours: theirs for ours, theirs in columns.items() if ours not in missing}
    values = with_whole_ids(row.values, columns) if row.is_text else row.values
    return Row(row.place, Columns(values, columns), row.raw, row.is_text, rules.date_rule)
