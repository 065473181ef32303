"""Parquet through pyarrow. A file of its own, because a scoring process should not wait for that import."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet


def read_parquet_values(path: Path) -> list[dict[str, object]]:
    """Return the rows as dicts.

    Raises:
        ValueError: if the file is not Parquet.
    """
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {error}") from error
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: the column {twice!r} is there twice; each needs a name of its own")
    return table.to_pylist()
