"""Parquet, a batch of rows at a time."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.importing.rows import ReadLimits, Record, Reject, Row

BATCH_ROWS = 1024


def read_parquet(path: Path, limits: ReadLimits) -> Iterator[Record]:
    """Yields the rows; a row's place is its number, from 1.

    Raises:
        ValueError: the file is cut short or of another kind.
    """
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for index in range(len(batch)):
                    number += 1
                    yield _record(f"{path.name}:row {number}", batch, index, limits)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole Parquet file ({error}); it was cut short or is of another kind"
        ) from error


def _record(place: str, batch: pa.RecordBatch, index: int, limits: ReadLimits) -> Record:
    try:
        values = {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return Reject(place, "not UTF-8", error.reason, "")
    raw = json.dumps(values, ensure_ascii=False, default=str)
    if len(raw) > limits.max_line_bytes:
        return Reject(place, "line too long", f"more than {limits.max_line_bytes} characters", raw[:2000])
    return Row(place, values, raw)
