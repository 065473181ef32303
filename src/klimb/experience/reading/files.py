"""The formats of files, by the endings of their names."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from klimb.experience.reading.csv_files import read_csv
from klimb.experience.reading.json_documents import read_json_document
from klimb.experience.reading.json_lines import read_json_lines
from klimb.experience.reading.packing import PACKINGS
from klimb.experience.reading.records import ReadLimits, Record

ReadFile = Callable[[Path, str, ReadLimits], Iterator[Record]]
"""A file's rows; the text is what it is called in their places."""


TEXT_READERS: Mapping[str, ReadFile] = MappingProxyType(
    {
        ".jsonl": read_json_lines,
        ".ndjson": read_json_lines,
        ".json": read_json_document,
        ".csv": read_csv,
        ".tsv": read_csv,
    }
)


def _read_parquet(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    return import_module("klimb.experience.reading.parquet_files").read_parquet(path, name, limits)


def _read_arrow(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    return import_module("klimb.experience.reading.arrow_files").read_arrow(path, name, limits)


# Loaded at their first use, because a process that reads plain text should not wait for pyarrow.
READERS: Mapping[str, ReadFile] = MappingProxyType(
    {**TEXT_READERS, ".parquet": _read_parquet, ".arrow": _read_arrow, ".feather": _read_arrow}
)


ENDINGS = f"{', '.join(READERS)} (those of text also with {' or '.join(PACKINGS)} behind)"
"""For messages."""


def has_known_ending(path: Path) -> bool:
    """Whether the name says a format that is read."""
    return _ending(path) in (TEXT_READERS if path.suffix.lower() in PACKINGS else READERS)


def _ending(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() in PACKINGS else path).suffix.lower()


def read_file(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield what one file holds, in its order; `name` stands in the places."""
    return READERS[_ending(path)](path, name, limits)
