"""Forget a person: what of them is in the folders, removed, and what of them cannot be removed, named.

A file is one of four: a segment of samples or feedback, whose rows go; lines (exports, evaluations, logs), which go; a
page of a run or study, which goes as a whole and can be made again; anything else, which is searched and named.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from klimb.errors import ConfigError
from klimb.experience.atomic import replace_atomically
from klimb.experience.compaction import hold_segments
from klimb.experience.forgetting import (
    Found,
    Person,
    look_at_segment,
    names_of,
    needles_of,
    parquet_holds,
    split_segment,
)
from klimb.experience.importing.users import SALT_FILE, user_hash, user_salt
from klimb.experience.quarantine import FILE as QUARANTINE_FILE
from klimb.experience.quarantine import read_quarantine, release_rater
from klimb.experience.segments import SegmentError, kind_of
from klimb.training.locks import run_folder_lock
from klimb.workbench.trained_on import Model, models_that_saw

LINES = (".jsonl", ".ndjson", ".log")
"""Files whose lines stand alone."""


PAGES = (".html", ".md", ".svg", ".tex")
"""Files that are made of others, in the folder of a run or study; elsewhere they may be anybody's."""


PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".whl")
"""Files that a search for text cannot look into."""


FOREIGN = "a Parquet file that is not klimb's"


RUN_MARK, SEARCH_BYTES, MOST_CSV = "config.json", 8_000_000, 10_000_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to a file.

    Attributes:
        path: the file.
        what: `rows`, `lines` or `raters` go, or the `file` does.
        number: of them.
    """

    path: Path
    what: str
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, and what cannot.

    Attributes:
        person: by what things are known.
        changes: file by file.
        left: files that hold something of the person, or might, and stay; with why.
        models: that saw something of the person.
        short: lines of the person that are too short to be searched for.
        stores: folders of the segments that change.
        runs: folders of the runs in which something changes.
    """

    person: Person
    changes: tuple[Change, ...] = ()
    left: tuple[tuple[Path, str], ...] = ()
    models: tuple[Model, ...] = ()
    stores: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()


@dataclass
class _Files:
    """Every file under the folders, by what it is."""

    segments: list[Path] = field(default_factory=list[Path])
    parquet: list[Path] = field(default_factory=list[Path])
    others: list[Path] = field(default_factory=list[Path])
    left: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])


def plan_forgetting(folders: Sequence[Path], *, users: Sequence[str], ids: Sequence[str]) -> Plan:
    """Return what forgetting the person would do; nothing is changed.

    Args:
        folders: that are searched, with all beneath them; links are not followed.
        users: names of the person, or the hashes that stores have.
        ids: of samples, completions and conversations.

    Raises:
        ConfigError: a folder is none, or nobody is named.
    """
    if not (users or ids) or not all(each.strip() for each in (*users, *ids)):
        raise ConfigError("say who is to be forgotten: --user NAME, or --id of a sample, completion or conversation")
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: give those of stores, runs, studies and exports")
    files = _sort_files(folders)
    person = _gather(files, Person(users=frozenset(users) | _hashes(files, users), ids=frozenset(ids)), named=users)
    changes: list[Change] = []
    touched: set[Path] = set()
    for path in files.segments:
        split = split_segment(path, person, is_dry=True)
        if split.num_removed:
            changes.append(Change(path=path, what="rows", number=split.num_removed))
            touched.add(path.parent)
        if split.num_of_others:
            files.left.append((path, f"{split.num_of_others:,} rows of others hold the same text"))
    for path in files.parquet:
        if parquet_holds(path, person):
            files.left.append((path, FOREIGN))
    for path in files.others:
        changes += _plan_other(path, person, files.left)
    runs = _runs_of([change.path for change in changes], folders)
    return Plan(
        person=person,
        changes=tuple(changes),
        left=tuple(files.left),
        models=tuple(models_that_saw(folders, touched, since=_earliest(files, person))),
        stores=tuple(sorted(touched)),
        runs=tuple(runs),
    )


def forget(plan: Plan, folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Carry out a plan, and return the files that hold something of the person still, or might, with why.

    Segments are held while they are rewritten, so a server may go on adding; runs that are training are refused.

    Raises:
        RunFolderInUse: a run under the folders is training; nothing was changed.
    """
    with ExitStack() as held:
        for run in plan.runs:
            held.enter_context(run_folder_lock(run))
        for store in plan.stores:
            held.enter_context(hold_segments(store))
        for change in plan.changes:
            _carry_out(change, plan.person)
    return search(folders, plan.person)


def search(folders: Sequence[Path], person: Person) -> list[tuple[Path, str]]:
    """Return the files that hold something of a person, or cannot be looked into, with why."""
    files = _sort_files(folders)
    for path in files.segments:
        split = split_segment(path, person, is_dry=True)
        if split.num_removed or split.num_of_others:
            why = "its rows were added meanwhile" if split.num_removed else "rows of others hold the same text"
            files.left.append((path, why))
    files.left += [
        (path, "a Parquet file that is not klimb's") for path in files.parquet if parquet_holds(path, person)
    ]
    files.left += [(path, _why_left(path)) for path in files.others if _file_holds(path, person)]
    return files.left


def _sort_files(folders: Sequence[Path]) -> _Files:
    files = _Files()
    for path in sorted(set(_files_under(folders))):
        if path.is_symlink():
            files.left.append((path, "a link: what it leads to was not looked at"))
        elif path.name in (SALT_FILE, "lock") or not path.is_file():
            continue
        elif path.suffix == ".parquet":
            _sort_parquet(path, files)
        elif path.suffix.lower() in PACKED or ".parquet.tmp-" in path.name:
            files.left.append((path, "packed, or cut off while it was written: it was not looked into"))
        else:
            files.others.append(path)
    return files


def _sort_parquet(path: Path, files: _Files) -> None:
    try:
        is_ours = kind_of(path) in ("samples", "feedback")
    except SegmentError:
        files.left.append((path, "a damaged Parquet file: it was not looked into"))
        return
    (files.segments if is_ours else files.parquet).append(path)


def _files_under(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for root, folder_names, names in os.walk(folder.absolute()):
            yield from (Path(root, name) for name in names)
            yield from (link for name in folder_names if (link := Path(root, name)).is_symlink())


def _hashes(files: _Files, users: Sequence[str]) -> frozenset[str]:
    """Return the names as each store beside the segments calls them."""
    folders = {path.parent for path in files.segments if (path.parent / SALT_FILE).exists()}
    return frozenset(user_hash(user, user_salt(folder)) for folder in folders for user in users)


def _gather(files: _Files, person: Person, *, named: Sequence[str]) -> Person:
    """Return the person with all that the segments say. Feedback can speak of samples found later: two looks."""
    found = Found()
    for _ in range(2):
        for path in files.segments:
            look_at_segment(path, person, found)
        person = replace(person, ids=person.ids | found.ids)
    names = names_of((*named, *person.users, *person.ids))
    return replace(person, needles=needles_of(found.texts), names=names)


def _earliest(files: _Files, person: Person) -> float:
    found = Found()
    for path in files.segments:
        look_at_segment(path, person, found)
    return found.since


def _plan_other(path: Path, person: Person, left: list[tuple[Path, str]]) -> Iterator[Change]:
    if path.name == QUARANTINE_FILE:
        raters = person.users & read_quarantine(path.parent).keys()
        yield from [Change(path=path, what="raters", number=len(raters))] if raters else []
        return
    if not _file_holds(path, person):
        return
    if path.suffix.lower() in LINES:
        yield Change(path=path, what="lines", number=sum(1 for line in _lines(path) if person.holds(line)))
    elif path.suffix.lower() in PAGES and _is_made(path):
        yield Change(path=path, what="file")
    elif path.suffix.lower() == ".csv" and (rows := _csv_rows(path)) is not None:
        yield Change(path=path, what="rows", number=sum(person.holds("\n".join(row)) for row in rows))
    else:
        left.append((path, _why_left(path)))


def _is_made(path: Path) -> bool:
    """Tell whether a page is of a run, a study or an audit, by where it is and what it is called."""
    in_work = any((above / name).is_file() for above in path.parents[:4] for name in ("provenance.json", "study.json"))
    return in_work or path.name.endswith(("-audit.html", "report.html"))


def _why_left(path: Path) -> str:
    if "checkpoints" in path.parts:
        return "part of a checkpoint, whose files are checked against each other: delete the checkpoint"
    return "a file that is not rewritten here: edit or delete it"


def _carry_out(change: Change, person: Person) -> None:
    path = change.path
    if change.what == "file":
        path.unlink(missing_ok=True)
    elif change.what == "raters":
        for user in person.users:
            release_rater(path.parent, user)
    elif path.suffix == ".parquet":
        split_segment(path, person, is_dry=False)
    elif path.suffix.lower() == ".csv":
        kept = [row for row in _csv_rows(path) or () if not person.holds("\n".join(row))]
        with replace_atomically(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(kept)
    else:
        with replace_atomically(path) as aside, aside.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(line for line in _lines(path) if not person.holds(line))


def _lines(path: Path) -> Iterator[str]:
    # Only line feeds end a line of JSON; other signs that Python takes for an end may stand in a text.
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield from file


def _csv_rows(path: Path) -> list[list[str]] | None:
    """Return the rows of an export of klimb's, the names of its columns first; None for any other file."""
    if path.stat().st_size > MOST_CSV * 100:
        return None
    csv.field_size_limit(MOST_CSV)
    try:
        with path.open("r", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows if rows and rows[0][:2] == ["sample_id", "group_id"] else None


def _file_holds(path: Path, person: Person) -> bool:
    """Tell whether the bytes of a file have a piece of what the person wrote, or a name or id."""
    sought = person.of_bytes()
    longest = max(map(len, (*sought.needles, *sought.names)), default=0) + 2
    kept = ""
    with path.open("rb") as file:
        while block := file.read(SEARCH_BYTES):
            text = kept + block.decode("latin-1")
            if sought.holds(text):
                return True
            kept = text[-longest:]
    return False


def _runs_of(paths: Iterable[Path], folders: Sequence[Path]) -> list[Path]:
    """Return the folders of runs that hold these files."""
    roots = {folder.absolute() for folder in folders}
    found: set[Path] = set()
    for path in paths:
        for above in path.parents:
            if (above / RUN_MARK).is_file() and (above / "provenance.json").is_file():
                found.add(above)
            if above in roots:
                break
    return sorted(found)
