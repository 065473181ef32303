"""What rows can be read from: a file, several, a folder, a glob, or an object of Python.

Files come in sorted order. Each is named as people would look for it: by its path below the folder they have in common.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import cast

from klimb.experience.reading.files import ENDINGS, has_known_ending, read_file
from klimb.experience.reading.records import ReadLimits, Record, Row

_GLOB = re.compile(r"[*?\[]")


SPLITS_FILE = "dataset_dict.json"
"""In a folder that `datasets` saved with several data sets."""


_DESCRIPTIONS = frozenset({SPLITS_FILE, "dataset_info.json", "dataset_infos.json", "state.json"})
"""Files that `datasets` saves beside the rows."""


NUM_NAMED = 3
"""Files that are named where there are many."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from, found once, so that reading it again reads the same files.

    Attributes:
        name: for messages: the path as it was given, or what kind of object it is.
        stem: the same as a part of a file's name.
        files: name in places -> path, in the order in which they are read; none for an object.
        rows: the object, if it is one.
        passed_over: files of a folder that hold no rows.
        split: the rows in a record, where a record holds several; None where a record is a row.
    """

    name: str
    stem: str
    files: Mapping[str, Path]
    rows: object = None
    passed_over: Sequence[str] = ()
    split: Callable[[Row], Iterator[Row]] | None = None


def read_records(source: object, limits: ReadLimits | None = None) -> Iterator[Record]:
    """Yield the records of a source in its order, without holding them.

    Args:
        source: a path, a list of paths, a folder, a glob text, an object of `objects.read_object`, or a `Source`.
        limits: bounds of reading.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: nothing that rows can be read from, an ending that is not known, or a file broken as a whole.
    """
    found = find_source(source)
    return _read(found, limits or ReadLimits())


def _read(source: Source, limits: ReadLimits) -> Iterator[Record]:
    for record in _read_whole(source, limits):
        if source.split is None or not isinstance(record, Row):
            yield record
        else:
            yield from source.split(record)


def _read_whole(source: Source, limits: ReadLimits) -> Iterator[Record]:
    if not source.files:
        yield from import_module("klimb.experience.reading.objects").read_object(source.rows, limits)
    for name, path in source.files.items():
        yield from read_file(path, name, limits)


def find_source(given: object) -> Source:
    """Return the files that are meant, or the object; what `read_records` takes.

    Raises:
        FileNotFoundError: there is no such file, or none that a glob fits.
        ValueError: a folder without data files, a file whose ending is not known, a list of nothing.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, str | os.PathLike):
        return _find_path(Path(cast("str | os.PathLike[str]", given)))
    if _are_paths(given):
        return _find_several([Path(each) for each in cast("Sequence[str | os.PathLike[str]]", given)])
    name = import_module("klimb.experience.reading.objects").name_object(given)
    return Source(name=name, stem="rows", files={}, rows=given)


def is_there(given: str, directory: Path) -> bool:
    """Return whether a directory has a file or folder of this path, or a file that it fits as a glob."""
    return (directory / given).exists() or (bool(_GLOB.search(given)) and bool(glob(given, root_dir=directory)))


def check_can_be_read_again(source: Source) -> None:
    """Raise ValueError for an object that gives its rows once: a generator, or a stream of batches."""
    if hasattr(source.rows, "__next__"):
        raise ValueError(
            f"{source.name} can be read once, and an import reads its rows up to three times: give a list, a file, "
            "or a function without arguments that returns the rows anew at each call"
        )


def _are_paths(given: object) -> bool:
    if not isinstance(given, list | tuple | set | frozenset):
        return False
    items = cast("Sequence[object]", given)
    if not items:
        raise ValueError("an empty list holds no rows")
    kinds = {isinstance(item, str | os.PathLike) for item in items}
    if len(kinds) > 1:
        raise ValueError("a list holds paths or rows, not both")
    return kinds.pop()


def _find_path(path: Path) -> Source:
    if path.is_dir():
        return _find_folder(path)
    if not path.exists() and _GLOB.search(str(path)):
        paths = sorted(Path(each) for each in glob(str(path), recursive=True) if os.path.isfile(each))
        if not paths:
            raise FileNotFoundError(f"{path} fits no file (looked in {Path.cwd()})")
        return _source_of(str(path), re.sub(r"[*?\[\]]+", "_", path.name), paths)
    check_file(path)
    return Source(name=str(path), stem=path.name, files={path.name: path})


def _find_several(paths: Sequence[Path]) -> Source:
    found = [_find_path(path) for path in paths]
    if len(found) == 1:
        return found[0]
    files = [path for source in found for path in source.files.values()]
    counts = Counter(path.resolve() for path in files)
    if twice := [path for path in files if counts[path.resolve()] > 1]:
        raise ValueError(f"{twice[0]} is named twice; name each file once")
    shown = ", ".join(str(path) for path in files[:NUM_NAMED])
    more = len(files) - NUM_NAMED
    name = f"{shown} and {more} more" if more > 0 else shown
    source = _source_of(name, f"{files[0].name}-and-{len(files) - 1}-more", files)
    passed_over = tuple(each for source in found for each in source.passed_over)
    return Source(name=source.name, stem=source.stem, files=source.files, passed_over=passed_over)


def _find_folder(folder: Path) -> Source:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = [path for path in paths if not _is_hidden(path.relative_to(folder))]
    _check_is_one_data_set(folder)
    files = [path for path in shown if has_known_ending(path) and path.name not in _DESCRIPTIONS]
    if not files:
        holds = ", ".join(path.name for path in shown[:NUM_NAMED]) or "nothing"
        raise ValueError(f"{folder} is a folder without data files, which end in {ENDINGS}; it holds {holds}")
    named = {path.relative_to(folder).as_posix(): path for path in files}
    passed_over = tuple(name for path in shown if (name := path.relative_to(folder).as_posix()) not in named)
    return Source(name=str(folder), stem=folder.resolve().name, files=named, passed_over=passed_over)


def _check_is_one_data_set(folder: Path) -> None:
    """Refuse what `DatasetDict.save_to_disk` writes: to train on the rows of a test set would be a mistake."""
    if (folder / SPLITS_FILE).is_file():
        names = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise ValueError(f"{folder} holds several data sets; give one of them: {names}")


def _is_hidden(path: Path) -> bool:
    """`.git`, and `_SUCCESS` beside the parts that Spark writes."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _source_of(name: str, stem: str, paths: Sequence[Path]) -> Source:
    for path in paths:
        check_file(path)
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return Source(name=name, stem=stem, files={path.absolute().relative_to(root).as_posix(): path for path in paths})


def check_file(path: Path) -> None:
    """Raise FileNotFoundError if it is not there, ValueError if its ending is not known."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (looked in {path.absolute().parent})")
    if not has_known_ending(path):
        raise ValueError(f"{path.name}: a data file ends in {ENDINGS}; {_way_out(path)}")


_WAYS_OUT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "save the sheet as CSV UTF-8"),
        **dict.fromkeys(
            (".zip", ".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz", ".gz", ".zst"), "unpack it and name what is in it"
        ),
        **dict.fromkeys((".txt", ".log", ".dat", ""), "if it holds a table or lines of JSON, let its name say so"),
    }
)
"""Ending of a file that is no data file -> what to do with it."""


def _way_out(path: Path) -> str:
    is_tar = len(path.suffixes) > 1 and path.suffixes[-2].lower() == ".tar"
    return _WAYS_OUT.get(".tar" if is_tar else path.suffix.lower(), "export the data itself as CSV or JSON")
