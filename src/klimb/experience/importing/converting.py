"""One row to samples or ratings: users hashed, columns renamed, read by its kind, checked. Pure."""

from collections.abc import Callable, Sequence

from klimb.experience.importing.found import Found, as_sample
from klimb.experience.importing.kinds.table import COLUMNS
from klimb.experience.importing.registry import ReadRow
from klimb.experience.importing.rows import Row, RowError
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.users import without_users
from klimb.experience.samples import Sample
from klimb.experience.store_feedback import Feedback


def anonymous(row: Row, rules: ImportRules, *, salt: Callable[[], bytes] | None = None) -> Row:
    """The row as it may be kept, among the rejects too: without user ids, unless the user keeps them.

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


def converted(row: Row, read: ReadRow, rules: ImportRules, *, kind: str) -> Sequence[Sample | Feedback]:
    """What an anonymous row becomes; nothing for a row that holds no response by design.

    Raises:
        RowError: it cannot be imported; then nothing of it is.
    """
    row = renamed(row, rules)
    found = read(row, rules)
    return [as_sample(part, row, rules, kind=kind) if isinstance(part, Found) else part for part in found]


def check_columns(rules: ImportRules) -> None:
    """Raises ValueError for a mapping of a column that no importer reads."""
    unknown = [name for name in rules.columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"--columns maps {', '.join(unknown)}, and our columns are {', '.join(COLUMNS)}")


def renamed(row: Row, rules: ImportRules) -> Row:
    """The row with the columns that the user maps under our names too.

    Raises:
        RowError: it has no such column.
    """
    if not rules.columns:
        return row
    values = dict(row.values)
    for ours, theirs in rules.columns.items():
        if theirs not in row.values:
            names = ", ".join(str(name) for name in row.values)
            raise RowError(f"no column {theirs!r}", f"the columns are {names}")
        values[ours] = row.values[theirs]
    return Row(row.place, values, row.raw, row.is_text)
