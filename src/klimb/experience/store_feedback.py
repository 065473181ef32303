"""People's ratings on disk: rows that are only ever added, apart from the samples they speak of."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klimb import __version__
from klimb.experience.atomic import replace_atomically
from klimb.experience.feedback import Feedback
from klimb.experience.segments import KIND_KEY, MADE_BY_KEY, VERSION_KEY, SegmentError, refuse_newer

FEEDBACK_VERSION = "2"


FEEDBACK_SCHEMA = pa.schema(
    [
        pa.field("feedback_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("comment", pa.string(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("created_at", pa.float64(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
        pa.field("over", pa.string(), nullable=False),
        pa.field("correction", pa.string(), nullable=False),
    ],
    metadata={KIND_KEY: b"feedback", VERSION_KEY: FEEDBACK_VERSION.encode(), MADE_BY_KEY: __version__.encode()},
)
"""One column a field of `Feedback`, in its order."""


NEWER: Mapping[str, tuple[str, ...]] = {"1": ("over", "correction"), FEEDBACK_VERSION: ()}
"""By each version that is read: the columns that it does not have; they are empty texts then."""


def write_feedback(path: str | Path, rows: Sequence[Feedback]) -> None:
    """Write the rows as one Parquet file; `path` then holds all of them, or after a failure what it held before."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in FEEDBACK_SCHEMA]
    with replace_atomically(Path(path)) as aside:
        pq.write_table(
            pa.Table.from_arrays(columns, schema=FEEDBACK_SCHEMA), aside, compression="zstd", write_page_checksum=True
        )


def read_feedback(path: str | Path) -> list[Feedback]:
    """Return the rows of a segment, of any version that is read.

    Raises:
        SegmentError: it is none.
    """
    check_feedback_schema(path)
    table = pq.read_table(path)
    empty = [""] * len(table)
    columns = [
        table.column(name).to_pylist() if name in table.column_names else empty for name in FEEDBACK_SCHEMA.names
    ]
    return [feedback_of_row(row) for row in zip(*columns, strict=True)]


def check_feedback_schema(path: str | Path) -> None:
    """Return if the file is a segment of feedback that this version can read.

    Raises:
        SegmentError: it is not.
    """
    schema = pq.read_schema(path)
    refuse_newer(path, "feedback", schema.metadata or {}, latest=FEEDBACK_VERSION)
    version = (schema.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    known = [field for field in FEEDBACK_SCHEMA if field.name not in NEWER.get(version, ())]
    if version not in NEWER or not schema.equals(pa.schema(known), check_metadata=False):
        raise SegmentError(
            f"{path}: feedback of schema version {version} with columns {schema.names}; "
            f"this klimb reads versions {', '.join(NEWER)}; read it with the klimb that wrote it"
        )


def with_floats(row: Feedback) -> Feedback:
    """Return the row as it would be read back, e.g. with a value of 1.0 where 1 was given."""
    return replace(row, value=None if row.value is None else float(row.value), created_at=float(row.created_at))


def feedback_of_row(row: Sequence[Any]) -> Feedback:
    """Return a row of the columns in the schema's order."""
    return Feedback(**dict(zip(_FIELD_NAMES, row, strict=True)))


_FIELD_NAMES = tuple(field.name for field in fields(Feedback))
