"""Arrow files: Feather, and what `datasets` keeps its rows in."""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.types as types

from klimb.experience.reading.arrow_rows import as_one_line, read_batches
from klimb.experience.reading.records import ReadLimits, Record

FILE_MARK = b"ARROW1"


FIRST_FEATHER = b"FEA1"


def read_arrow(path: Path, name: str, limits: ReadLimits) -> Iterator[Record]:
    """Yield the rows of an Arrow file or stream; a row's place is its number, from 1.

    Raises:
        ValueError: the file is cut short or of another kind, or a column is there twice.
    """
    try:
        with pa.OSFile(str(path)) as file:
            mark = file.read(len(FILE_MARK))
            file.seek(0)
            if mark.startswith(FIRST_FEATHER):
                raise ValueError(f"{path}: the first version of Feather, which is not read; write it as Parquet")
            reader = pa.ipc.open_file(file) if mark == FILE_MARK else pa.ipc.open_stream(file)
            yield from read_batches(_checked(reader), reader.schema, limits, source=str(path), place=f"{name}:")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: not a whole Arrow file ({as_one_line(error)}); it was cut short or is of another kind"
        ) from error


def _checked(reader: pa.RecordBatchStreamReader | pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    """Yield the batches. Lengths that lie would have memory read that is not the file's."""
    is_file = isinstance(reader, pa.RecordBatchFileReader)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        for column in batch.columns:
            _check(column)
        yield batch


def _check(column: pa.Array) -> None:
    """Raise ArrowInvalid for a column whose parts do not fit; text that is not UTF-8 is found row by row."""
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        column = column.view(pa.binary() if types.is_string(kind) else pa.large_binary())
    column.validate(full=True)
