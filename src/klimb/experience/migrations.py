"""Bring segments of an older schema version up to date: in place, each whole or not at all, no sample lost.

A segment says its version itself, so a store may hold several, and an interrupted migration just goes on. The old file
is there until the new one is whole and has been read back.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.atomic import replace_atomically
from klimb.experience.samples import SamplingSettings
from klimb.experience.segments import SAMPLE_SCHEMA, SegmentError, open_segment, version_of

logger = logging.getLogger(__name__)


Migration = Callable[[Any], Any]
"""From the `pyarrow.Table` of rows of one schema version to that of the next."""


def with_all_sampling_settings(table: pa.Table) -> pa.Table:
    """Return the rows with every sampling setting of today; one that there was not has the value that changes nothing.

    Version 2 knew temperature, top_p, top_k, min_p and max_new_tokens.
    """
    place = table.schema.get_field_index("sampling")
    kind = SAMPLE_SCHEMA.field("sampling").type
    known = [field.name for field in kind]
    defaults = {name: value for name, value in asdict(SamplingSettings()).items() if name in known}
    column = [None if row is None else {**defaults, **row} for row in table.column(place).to_pylist()]
    return table.set_column(place, SAMPLE_SCHEMA.field("sampling"), pa.array(column, kind))


def with_conversations(table: pa.Table) -> pa.Table:
    """Return the rows as those of a single turn: version 3 knew no others, and no tools."""
    place, prompts = table.schema.get_field_index("prompt"), SAMPLE_SCHEMA.field("prompt")
    messages = [
        [{"tool_calls": None, "name": None, **each} for each in row] for row in table.column("prompt").to_pylist()
    ]
    rows = table.set_column(place, prompts, pa.array(messages, prompts.type))
    for name, empty in (("turns", []), ("tools", ""), ("episode", "")):
        field = SAMPLE_SCHEMA.field(name)
        rows = rows.append_column(field, pa.array([empty] * len(table), field.type))
    return rows


def with_support(table: pa.Table) -> pa.Table:
    """Return the rows without a recorded support: version 4 knew none."""
    field = SAMPLE_SCHEMA.field("support")
    return table.append_column(field, pa.nulls(len(table), field.type))


MIGRATIONS: Mapping[int, Migration] = {2: with_all_sampling_settings, 3: with_conversations, 4: with_support}
"""Schema version of samples -> what leads to the one after it, applied in order until the version is today's."""


def can_migrate(path: Path, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> bool:
    """Whether this is a segment of samples of an older version that has a way to today's."""
    version = version_of(path)[1] or 0
    return is_older(path) and all(each in migrations for each in range(version, _latest(SAMPLE_SCHEMA)))


def migrate_folder(
    folder: Path, *, schema: Any = SAMPLE_SCHEMA, migrations: Mapping[int, Migration] = MIGRATIONS
) -> int:
    """Bring every older segment of samples in the folder up to date, and return how many there were.

    Raises:
        SegmentError: one cannot be read, or would not hold the same number of samples; it is as it was.
        OSError: the folder cannot be written.
    """
    paths = [path for path in sorted(folder.glob("[!.]*.parquet")) if is_older(path, schema)]
    for path in paths:
        migrate_segment(path, schema=schema, migrations=migrations)
    if paths:
        logger.info("%s: %d segments were brought up to schema version %d", folder, len(paths), _latest(schema))
    return len(paths)


def is_older(path: Path, schema: Any = SAMPLE_SCHEMA) -> bool:
    """Whether this is a segment of samples of an older version than the schema's."""
    kind, version = version_of(path)
    return kind == "samples" and version is not None and version < _latest(schema)


def migrate_segment(
    path: Path, *, schema: Any = SAMPLE_SCHEMA, migrations: Mapping[int, Migration] = MIGRATIONS
) -> None:
    """Rewrite one segment in today's version; its name, order of rows and time of change stay.

    Raises:
        SegmentError: it cannot be read, there is no way from its version, or a sample would be lost.
        OSError: it cannot be written.
    """
    version = version_of(path)[1]
    missing = [each for each in range(version or 0, _latest(schema)) if each not in migrations]
    if version is None or missing:
        raise SegmentError(
            f"{path}: samples of schema version {version}, and there is no way from version {missing[:1]} to the next; "
            "read it with the klimb that wrote it"
        )
    before = path.stat()
    with open_segment(path) as old, replace_atomically(path) as aside:
        with pq.ParquetWriter(aside, schema, compression="zstd", write_page_checksum=True) as writer:
            for rows in _migrated(old, version, schema, migrations):
                writer.write_table(rows)
        num_rows = pq.read_metadata(aside).num_rows
        if num_rows != old.metadata.num_rows:
            raise SegmentError(f"{path}: {old.metadata.num_rows} samples became {num_rows}; it is left as it was")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _migrated(
    file: pq.ParquetFile, version: int, schema: pa.Schema, migrations: Mapping[int, Migration]
) -> Iterator[pa.Table]:
    for number in range(file.num_row_groups):
        rows: Any = file.read_row_group(number)
        for each in range(version, _latest(schema)):
            rows = migrations[each](rows)
        yield rows.select(schema.names).replace_schema_metadata(schema.metadata).cast(schema)


def _latest(schema: pa.Schema) -> int:
    return int(schema.metadata[b"klimb.schema_version"])
