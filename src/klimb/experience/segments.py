"""Samples on disk: one Parquet file a segment, written whole or not at all, read back exactly.

Any Parquet reader can query a segment; DuckDB: `select reward, response from 'rollouts/*.parquet'`.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klimb.experience.atomic import replaced_atomically
from klimb.experience.samples import Message, Sample, SamplingSettings

SCHEMA_VERSION = "2"
_KIND_KEY = b"klimb.kind"
_VERSION_KEY = b"klimb.schema_version"

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("response_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("reward", pa.float64()),
        pa.field("reward_parts", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("reward_reason", pa.string(), nullable=False),
        pa.field("log_mu", pa.list_(pa.float64())),
        pa.field("log_mu_provenance", pa.string(), nullable=False),
        pa.field("log_ref", pa.list_(pa.float64())),
        pa.field(
            "sampling",
            pa.struct(
                [
                    ("temperature", pa.float64()),
                    ("top_p", pa.float64()),
                    ("top_k", pa.int64()),
                    ("min_p", pa.float64()),
                    ("max_new_tokens", pa.int64()),
                ]
            ),
        ),
        pa.field("model", pa.string(), nullable=False),
        pa.field("policy_version", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("created_at", pa.float64(), nullable=False),
        pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("tokenizer", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ],
    metadata={_KIND_KEY: b"samples", _VERSION_KEY: SCHEMA_VERSION.encode()},
)
"""One column a field of `Sample`, in its order."""

_ADDED = {"1": ("tokenizer", "raw"), SCHEMA_VERSION: ()}
"""Readable version -> the columns that it did not have yet; they read as empty texts."""


class SegmentError(ValueError):
    """A file is not a whole segment of samples that this version can read."""


def write_samples(path: str | Path, samples: Sequence[Sample]) -> None:
    """Writes the samples as one Parquet file; `path` then holds all of them, or after a failure what it held before."""
    rows = [_to_row(sample) for sample in samples]
    with replaced_atomically(Path(path)) as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA), aside, compression="zstd")


def read_samples(path: str | Path) -> list[Sample]:
    """The samples of one file, equal to those written, in their order.

    Raises:
        SegmentError: the file is truncated, not Parquet, not written as samples, or of another schema version.
        FileNotFoundError: there is no such file.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise SegmentError(
            f"{path}: not a whole Parquet file ({error}); it was cut short or is of another kind; "
            "remove it or restore it from a copy"
        ) from error
    missing = _check_schema(path, table.schema)
    for name in missing:
        table = table.append_column(SAMPLE_SCHEMA.field(name), pa.array([""] * len(table), pa.string()))
    return [_from_row(row) for row in table.to_pylist(maps_as_pydicts="strict")]


def _check_schema(path: str | Path, schema: pa.Schema) -> tuple[str, ...]:
    """The columns that this older version lacks."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    if metadata.get(_KIND_KEY) != b"samples":
        raise SegmentError(
            f"{path}: a Parquet file, but not one of klimb's samples (no {_KIND_KEY.decode()} in its schema); "
            "import foreign data instead of reading it as a segment"
        )
    version = metadata.get(_VERSION_KEY, b"none").decode(errors="replace")
    if version not in _ADDED:
        raise SegmentError(
            f"{path}: schema version {version}, and this klimb reads versions {', '.join(_ADDED)}; "
            "read it with the klimb that wrote it"
        )
    missing = _ADDED[version]
    expected = pa.schema([field for field in SAMPLE_SCHEMA if field.name not in missing])
    if not schema.equals(expected, check_metadata=False):
        raise SegmentError(f"{path}: its columns are not those of schema version {version}: {schema.names}")
    return missing


def _to_row(sample: Sample) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(sample, name) for name in _FIELD_NAMES}
    row["sampling"] = None if sample.sampling is None else asdict(sample.sampling)
    row["reward_parts"] = list(sample.reward_parts.items())
    row["metadata"] = list(sample.metadata.items())
    return row


def _from_row(row: dict[str, Any]) -> Sample:
    for name in ("prompt_ids", "response_ids", "log_mu", "log_ref"):
        row[name] = None if row[name] is None else tuple(row[name])
    row["prompt"] = tuple(Message(role=message["role"], content=message["content"]) for message in row["prompt"])
    row["sampling"] = None if row["sampling"] is None else SamplingSettings(**row["sampling"])
    return Sample(**row)


_FIELD_NAMES = tuple(field.name for field in fields(Sample))
