"""Parquet files, batch by batch."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.reading.arrow_rows import BATCH_ROWS, as_one_line, read_batches
from klimb.experience.reading.records import ReadLimits, Record


def read_parquet(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield the rows; a row's place is its number, from 1.

    Raises:
        ValueError: the file is cut short or of another kind, or a column is there twice.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=BATCH_ROWS)
            yield from read_batches(batches, file.schema_arrow, limits, source=str(path), place=f"{name}:")
    except pa.ArrowNotImplementedError as error:
        raise ValueError(
            f"{path}: a Parquet file that cannot be read ({as_one_line(error)}); write it in another way"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: not a whole Parquet file ({as_one_line(error)}); it was cut short or is of another kind"
        ) from error
