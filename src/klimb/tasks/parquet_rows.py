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
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {error}") from error
