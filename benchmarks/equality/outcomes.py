"""From the files that commands write to plain values that can be compared. Nothing of klimb is imported."""

import csv
import hashlib
import io
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.equality.comparing import ABSENT
from benchmarks.equality.declared import (
    RENAMED_FIELDS,
    RENAMED_METRICS,
    RENAMED_SETTINGS,
    RENAMED_VALUES,
    is_of_the_machine,
)
from benchmarks.equality.sides import Place

TIMES = re.compile(
    r"\b\d[\d,.]*\s?(?:ms|s|seconds?|min|minutes?|h|hours?|GB|MB|GiB|MiB|tokens?/s)\b|\b\d{4}-\d\d-\d\d[T ]?[\d:.+]*"
    r"|\b\d{1,2}:\d\d\b"
)
"""What two runs of one state do not share in a text: times, memory, dates."""


def read_tensors(folder: Path) -> dict[str, str]:
    """Read every tensor beneath a folder: file and name -> type, shape and SHA-256 of its bytes."""
    return {
        f"{path.relative_to(folder)}:{name}": text
        for path in sorted(folder.rglob("*.safetensors"))
        for name, text in sorted(describe_tensors(path.read_bytes()).items())
    }


def describe_tensors(content: bytes) -> dict[str, str]:
    """Describe the tensors of a safetensors file: the length of a header, the header as JSON, the bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    header.pop("__metadata__", None)
    described: dict[str, str] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        digest = hashlib.sha256(content[start + first : start + last]).hexdigest()
        described[name] = f"{entry['dtype']}{entry['shape']} {digest[:16]}"
    return described


def read_lines(path: Path) -> list[Any]:
    """Read a file with an object of JSON on each line; empty if there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_metrics(path: Path, *, is_old: bool) -> list[dict[str, Any]]:
    """Read the rows of a metrics file without what is of the machine, by their new names."""
    names = RENAMED_METRICS if is_old else {}
    return [
        {names.get(name, name): value for name, value in sorted(row.items()) if not is_of_the_machine(name)}
        for row in read_lines(path)
    ]


def without_machine(value: Any, *, is_old: bool) -> Any:
    """Leave out what is of the machine at any depth, and rename fields."""
    names = RENAMED_FIELDS if is_old else {}
    if isinstance(value, Mapping):
        return {
            names.get(name, name): without_machine(inner, is_old=is_old)
            for name, inner in value.items()
            if not is_of_the_machine(str(name))
        }
    if isinstance(value, list):
        return [without_machine(inner, is_old=is_old) for inner in value]
    return value


def read_settings(path: Path, *, is_old: bool) -> dict[str, Any]:
    """Read a resolved configuration as `section.key` -> value, by the new names."""
    return rename_settings(flat_settings(json.loads(path.read_text(encoding="utf-8"))), is_old=is_old)


def flat_settings(tables: Any, path: str = "") -> dict[str, Any]:
    """Flatten tables to `section.key` -> value; a list is a value."""
    if not (isinstance(tables, Mapping) and tables):
        return {path: tables}
    flat: dict[str, Any] = {}
    for name, inner in tables.items():
        flat |= flat_settings(inner, f"{path}.{name}" if path else str(name))
    return flat


def rename_settings(settings: Mapping[str, Any], *, is_old: bool) -> dict[str, Any]:
    """Give old settings their new names and values."""
    if not is_old:
        return dict(settings)
    renamed = {RENAMED_SETTINGS.get(key, key): value for key, value in settings.items()}
    return {
        key: RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
        for key, value in renamed.items()
    }


def export_samples(place: Place, store: str, *, ids: bool = True, times: bool = False) -> dict[str, Any]:
    """Read a store's samples through `klimb experience export`: what they say, and their ids apart."""
    place.klimb("experience", "export", store, "--to", f"{store.replace('/', '-')}.jsonl", "--force")
    rows = read_lines(place.folder / f"{store.replace('/', '-')}.jsonl")
    named = [without_machine(row, is_old=place.is_old) for row in rows]
    left_out = {"sample_id", "group_id", *(() if times else ("created_at",))}
    groups = [str(row.get("group_id")) for row in rows]
    first_of = {name: number for number, name in reversed(list(enumerate(groups)))}
    found: dict[str, Any] = {
        "samples": [
            {"group begins at": first_of[group], **{key: value for key, value in row.items() if key not in left_out}}
            for group, row in zip(groups, named, strict=True)
        ]
    }
    if ids:
        found["sample ids"] = [[row.get("sample_id"), row.get("group_id")] for row in rows]
    return found


def read_toml(path: Path) -> Any:
    """Read a TOML file as `section.key` -> value."""
    return flat_settings(tomllib.loads(path.read_text(encoding="utf-8")))


def read_csv_files(folder: Path, *, is_old: bool) -> dict[str, Any]:
    """Read all CSV files of a folder by their new names, without the columns that are of the machine."""
    return {path.name: read_csv(path, is_old=is_old) for path in sorted(folder.glob("*.csv"))} or {ABSENT: True}


def read_csv(path: Path, *, is_old: bool) -> Sequence[Mapping[str, str]]:
    """Read one CSV file."""
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    names = RENAMED_METRICS if is_old else {}
    return [
        {names.get(str(name), str(name)): value for name, value in row.items() if not is_of_the_machine(str(name))}
        for row in rows
    ]


def normalise(text: str, place: Place) -> list[str]:
    """Split a text of people into lines, without this place's path, times, memory and dates."""
    for path, word in ((place.folder, "HERE"), (place.material, "MATERIAL"), (place.side.checkout, "CHECKOUT")):
        text = text.replace(str(path), word)
    for old, new in {**RENAMED_METRICS, **RENAMED_SETTINGS}.items() if place.is_old else ():
        text = re.sub(rf"\b{old.rpartition('.')[2]}\b", new.rpartition(".")[2], text)
    text = TIMES.sub("#", text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]
