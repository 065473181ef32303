"""Records of a file, whatever its format; the name's ending says which."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from klimb.experience.importing.reading_csv import read_csv
from klimb.experience.importing.reading_json import read_json
from klimb.experience.importing.reading_jsonl import read_jsonl
from klimb.experience.importing.reading_parquet import read_parquet
from klimb.experience.importing.rows import ReadLimits, Record

READERS: Mapping[str, Callable[[Path, ReadLimits], Iterator[Record]]] = MappingProxyType(
    {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".json": read_json, ".csv": read_csv, ".parquet": read_parquet}
)


def read_records(path: Path, limits: ReadLimits | None = None) -> Iterator[Record]:
    """Yields what the file holds, in its order, without holding it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, an ending that is not known, or a file broken as a whole.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; import its files one by one")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    is_packed = path.suffix.lower() == ".gz"
    ending = path.with_suffix("").suffix.lower() if is_packed else path.suffix.lower()
    if ending not in READERS or (is_packed and ending == ".parquet"):
        raise ValueError(f"{path.name}: a file to import ends in {', '.join(READERS)} (or, all but Parquet, in .gz)")
    return READERS[ending](path, limits or ReadLimits())
