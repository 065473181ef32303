"""What was imported into a store: a line for each import, and the rows of all of them that never came in, by reason."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast

from klimb.experience.importing.rejects import FOLDER

HISTORY = "imports.jsonl"
"""In the store's folder."""


@dataclass(frozen=True, kw_only=True)
class PastImport:
    """One import, as it was when it ended.

    Attributes:
        file: name of the file or folder that was read, without its folders.
        kind: of its rows.
        num_rows: that were read.
        num_added: samples and ratings that the store did not have.
        rejected: rows that did not come in, by reason.
        reject_file: name of the file in `rejected/` that holds them; empty without any.
        ended_at: seconds since the epoch.
    """

    file: str
    kind: str
    num_rows: int
    num_added: int
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    reject_file: str = ""
    ended_at: float = 0.0


def record_import(
    store: Path,
    source: str,
    *,
    kind: str,
    num_rows: int,
    num_added: int,
    rejected: Mapping[str, int],
    reject_file: Path | None,
) -> None:
    """Add a line on an import that ended to the store's history; nothing if there is no such folder yet.

    Args:
        store: its folder.
        source: what was read, as it is called; of a path the last part is kept.
        kind: of its rows.
        num_rows: that were read.
        num_added: samples and ratings that the store did not have.
        rejected: rows by reason.
        reject_file: where these rows are.
    """
    if not store.is_dir():
        return
    entry = PastImport(
        file=PurePath(source).name or source,
        kind=kind,
        num_rows=num_rows,
        num_added=num_added,
        rejected=dict(rejected),
        reject_file="" if reject_file is None else reject_file.name,
        ended_at=time.time(),
    )
    with (store / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(entry), ensure_ascii=True) + "\n")


def read_history(store: Path) -> tuple[PastImport, ...]:
    """Return the imports of a store, oldest first; none where none was recorded."""
    path = store / HISTORY
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(entry for entry in map(_read_entry, lines) if entry is not None)


def count_added(history: tuple[PastImport, ...]) -> Counter[str]:
    """Return samples and ratings by the file that brought them; a file that was read again adds what was new."""
    counts: Counter[str] = Counter()
    for entry in history:
        counts[entry.file] += entry.num_added
    return +counts


def count_rejected(store: Path) -> Counter[str]:
    """Return by reason the rows in the store's `rejected/`, each of its files once however often it was made."""
    known = {entry.reject_file: entry.rejected for entry in read_history(store) if entry.reject_file}
    counts: Counter[str] = Counter()
    for path in sorted((store / FOLDER).glob("*.jsonl")):
        counts.update(known[path.name] if path.name in known else _reasons_in(path))
    return counts


def _reasons_in(path: Path) -> Counter[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        entries = (_object_of(line) for line in lines)
        return Counter(str(entry["reason"]) for entry in entries if entry is not None and "reason" in entry)


def _read_entry(line: str) -> PastImport | None:
    """Return the entry of a line; None for one that was cut off while it was written, or is of a later version."""
    entry = _object_of(line)
    try:
        return None if entry is None else PastImport(**entry)
    except TypeError:
        return None


def _object_of(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
