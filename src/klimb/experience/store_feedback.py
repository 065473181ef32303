"""People's ratings on disk: rows that are only ever added, apart from the samples they speak of."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.atomic import replace_atomically
from klimb.experience.segments import KIND_KEY, VERSION_KEY, SegmentError

FEEDBACK_VERSION = "1"


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
    ],
    metadata={KIND_KEY: b"feedback", VERSION_KEY: FEEDBACK_VERSION.encode()},
)
"""One column a field of `Feedback`, in its order."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One rating of one sample, possibly given long after the sample was stored, or before it arrives.

    Attributes:
        feedback_id: unique within a store.
        sample_id: the sample it speaks of; it may not be there yet.
        value: the reward it stands for; None for a comment without a rating, which never counts as one.
        name: what was asked, e.g. `rating`.
        comment: the person's words.
        user: who rated, hashed; all ratings with an empty one count as one person's.
        created_at: seconds since the epoch; of two ratings by one user the later counts.
        raw: the row that an importer made this from, as JSON.
    """

    feedback_id: str
    sample_id: str
    value: float | None
    name: str = "rating"
    comment: str = ""
    user: str = ""
    created_at: float = 0.0
    raw: str = ""

    def __post_init__(self) -> None:
        if not self.feedback_id or not self.sample_id:
            raise ValueError(
                f"feedback {self.feedback_id!r} of sample {self.sample_id!r}: both ids must be given; "
                "where a source has no id for a rating, make one of its content"
            )
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"feedback {self.feedback_id}: value is {self.value}; give a finite number, or None for no rating"
            )
        if not math.isfinite(self.created_at):
            raise ValueError(f"feedback {self.feedback_id}: created_at is {self.created_at}; give seconds, or 0")


def write_feedback(path: str | Path, rows: Sequence[Feedback]) -> None:
    """Write the rows as one Parquet file; `path` then holds all of them, or after a failure what it held before."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in FEEDBACK_SCHEMA]
    with replace_atomically(Path(path)) as aside:
        pq.write_table(pa.Table.from_arrays(columns, schema=FEEDBACK_SCHEMA), aside, compression="zstd")


def check_feedback_schema(path: str | Path) -> None:
    """Return if the file is a segment of feedback that this version can read.

    Raises:
        SegmentError: it is not.
    """
    schema = pq.read_schema(path)
    version = (schema.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    if version != FEEDBACK_VERSION or not schema.equals(FEEDBACK_SCHEMA, check_metadata=False):
        raise SegmentError(
            f"{path}: feedback of schema version {version} with columns {schema.names}; "
            f"this klimb reads version {FEEDBACK_VERSION}; read it with the klimb that wrote it"
        )


def with_floats(row: Feedback) -> Feedback:
    """Return the row as it would be read back, e.g. with a value of 1.0 where 1 was given."""
    return replace(row, value=None if row.value is None else float(row.value), created_at=float(row.created_at))


def feedback_of_row(row: Sequence[Any]) -> Feedback:
    """Return a row of the columns in the schema's order."""
    return Feedback(**dict(zip(_FIELD_NAMES, row, strict=True)))


_FIELD_NAMES = tuple(field.name for field in fields(Feedback))
