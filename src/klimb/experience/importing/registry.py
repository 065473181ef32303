"""The kinds of rows there are, and which one a row looks like.

One row to samples or ratings: users hashed, columns renamed, read by its kind, checked. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from klimb.experience.feedback import Feedback
from klimb.experience.importing import kinds
from klimb.experience.importing.kind import Importer, ReadRow
from klimb.experience.importing.kinds.table import COLUMNS
from klimb.experience.importing.own_importer import load_importer
from klimb.experience.importing.parsed_row import ParsedRow, as_samples
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.users import without_users
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import Sample
from klimb.own_parts import PREFIX, is_own


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


def guess_importer(row: Row) -> Importer:
    """Return the first importer whose rows look like this one; raises ValueError if none does."""
    for importer in IMPORTERS.values():
        if importer.looks_alike(row.values):
            return importer
    names = ", ".join(str(name) for name in row.values)
    raise ValueError(
        f"{row.place}: no kind of row has the columns {names}; say which it is with --as ({', '.join(IMPORTERS)}), "
        "and map the columns of a table: --columns prompt=NAME response=NAME"
    )


def anonymise(row: Row, rules: ImportRules, *, salt: Callable[[], bytes] | None = None) -> Row:
    """Return the row as it may be kept, among the rejects too: without user ids, unless the user keeps them.

    Args:
        row: as it was read.
        rules: what the user states.
        salt: asked for at each user id; None for the salt of `rules`.

    Raises:
        RowError: nested too deep to be looked through.
    """
    if rules.keep_users:
        return row
    return without_users(row, salt or (lambda: rules.salt), also=rules.columns.get("user", ""))


def convert_row(row: Row, read: ReadRow, rules: ImportRules, *, kind: str) -> Sequence[Sample | Feedback]:
    """Return what an anonymous row, its columns renamed, becomes; nothing for one that holds no response by design.

    Raises:
        RowError: it cannot be imported; then nothing of it is.
    """
    found = read(row, rules)
    made: list[Sample | Feedback] = []
    for part in found:
        made += as_samples(part, row, rules, kind=kind) if isinstance(part, ParsedRow) else [part]
    return made


def check_columns(rules: ImportRules) -> None:
    """Raise ValueError for a mapping of a column that no importer reads."""
    unknown = [name for name in rules.columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"--columns maps {', '.join(unknown)}, and our columns are {', '.join(COLUMNS)}")


def rename_columns(row: Row, rules: ImportRules) -> Row:
    """Return the row with the columns that the user maps under our names, and noting which are read.

    Raises:
        RowError: it has no such column.
    """
    for theirs in rules.columns.values():
        if theirs not in row.values:
            names = ", ".join(str(name) for name in row.values)
            raise RowError(f"no column {theirs!r}", f"the columns are {names}")
    return Row(row.place, Columns(row.values, rules.columns), row.raw, row.is_text)
