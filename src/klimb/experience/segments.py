"""Samples on disk: one Parquet file a segment, written whole or not at all, read back exactly.

Any Parquet reader can query a segment; DuckDB: `select reward, response from 'rollouts/*.parquet'`.
"""

# pyarrow ships no type information, so strict checking would only report its absence:
# pyright: basic

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from klimb import __version__
from klimb.experience.atomic import replace_atomically
from klimb.experience.content import OF_CONVERSATIONS
from klimb.experience.samples import Message, Sample, SamplingSettings, ToolCall, Turn

SCHEMA_VERSION = "5"


KIND_KEY = b"klimb.kind"


VERSION_KEY = b"klimb.schema_version"


MADE_BY_KEY = b"klimb.version"
"""Which klimb wrote a segment, for people; nothing depends on it."""


SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field(
            "prompt",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("content", pa.string()),
                        ("tool_calls", pa.string()),
                        ("name", pa.string()),
                    ]
                )
            ),
            nullable=False,
        ),
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
                    ("min_new_tokens", pa.int64()),
                    ("repetition_penalty", pa.float64()),
                    ("stop", pa.list_(pa.string())),
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
        pa.field(
            "turns",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("text", pa.string()),
                        ("num_tokens", pa.int64()),
                        ("finish_reason", pa.string()),
                        ("seconds", pa.float64()),
                        ("reward", pa.float64()),
                        ("calls", pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string())]))),
                        ("name", pa.string()),
                        ("error", pa.string()),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("tools", pa.string(), nullable=False),
        pa.field("episode", pa.string(), nullable=False),
        pa.field("support", pa.list_(pa.list_(pa.int64()))),
    ],
    metadata={KIND_KEY: b"samples", VERSION_KEY: SCHEMA_VERSION.encode(), MADE_BY_KEY: __version__.encode()},
)
"""One column a field of `Sample`, in its order; `tool_calls` of a prompt's message are JSON."""


WITH_CONVERSATIONS = (*OF_CONVERSATIONS, "prompt.tool_calls", "prompt.name")


NEWER: Mapping[str, tuple[str, ...]] = {
    "2": ("sampling.min_new_tokens", "sampling.repetition_penalty", "sampling.stop", *WITH_CONVERSATIONS, "support"),
    "3": (*WITH_CONVERSATIONS, "support"),
    "4": ("support",),
    SCHEMA_VERSION: (),
}
"""By each version that is read: the columns, and parts of them, that it does not have; its samples have the defaults of
those."""


ROW_GROUP_SAMPLES = 2048


ROW_GROUP_BYTES = 32_000_000
"""A row group ends at either bound: a reader holds one at a time, so this bounds its memory however long the texts."""


_SLICE_SAMPLES = 256
"""Samples made at a time while reading: as Python objects they take several times the memory of their columns."""


_SETTINGS = tuple(field.name for field in fields(SamplingSettings))


_NUMBER_LISTS = ("prompt_ids", "response_ids", "log_mu", "log_ref")


class SegmentError(ValueError):
    """A file is not a whole segment of samples that this version can read."""


class SegmentGone(SegmentError):
    """A file that was there a moment ago is gone: it was merged with others, which hold its rows now."""


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write the samples as one Parquet file; `path` then holds all of them, or after a failure what it held before.

    Only one row group is in memory at a time, so an iterator of any length can be written.
    """
    with (
        replace_atomically(Path(path)) as aside,
        pq.ParquetWriter(aside, SAMPLE_SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        for group in _row_groups(samples):
            writer.write_table(_table(group))


def read_samples(path: str | Path) -> list[Sample]:
    """Return the samples of one file, equal to those written, in their order.

    Raises:
        SegmentError: the file is truncated, not Parquet, not written as samples, or of another schema version.
        FileNotFoundError: there is no such file.
    """
    return list(stream_samples(path))


def stream_samples(path: str | Path, rows: Sequence[int] | None = None) -> Iterator[Sample]:
    """Return the samples of one file in their order, one row group in memory at a time.

    Args:
        path: the segment.
        rows: row numbers from 0, ascending; only these are read. None reads all.

    Raises:
        SegmentError: the file is truncated, not Parquet, not written as samples, or of another schema version.
        FileNotFoundError: there is no such file.
    """
    with open_segment(path) as file:
        _check_schema(path, file.schema_arrow)
        first = 0
        for number in range(file.num_row_groups):
            num_rows = file.metadata.row_group(number).num_rows
            wanted = None if rows is None else rows[bisect_left(rows, first) : bisect_left(rows, first + num_rows)]
            if wanted is None or wanted:
                table = _read_row_group(path, file, number)
                table = table if wanted is None else table.take([row - first for row in wanted])
                yield from _samples_of(table)
            first += num_rows


def check_samples_schema(path: str | Path) -> None:
    """Return if the file is a segment of samples that this version can read, as its end says.

    Raises:
        SegmentError: the file is truncated, not Parquet, not written as samples, or of another schema version.
        FileNotFoundError: there is no such file.
    """
    with open_segment(path) as file:
        _check_schema(path, file.schema_arrow)


def as_stored(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples as reading them back would give them, e.g. with a reward of 1.0 where 1 was given."""
    return list(_samples_of(_table(samples)))


def kind_of(path: str | Path) -> str:
    """Return what klimb wrote a Parquet file as (`samples`, `feedback`); empty for a foreign one.

    Raises:
        SegmentError: the file is truncated or not Parquet.
        FileNotFoundError: there is no such file.
    """
    with open_segment(path) as file:
        return (file.schema_arrow.metadata or {}).get(KIND_KEY, b"").decode(errors="replace")


def version_of(path: str | Path) -> tuple[str, int | None]:
    """Return what a Parquet file is written as, and in which schema version; None if it does not say.

    Raises:
        SegmentError: the file is truncated or not Parquet.
        FileNotFoundError: there is no such file.
    """
    with open_segment(path) as file:
        metadata: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
    written = metadata.get(VERSION_KEY, b"").decode(errors="replace")
    return metadata.get(KIND_KEY, b"").decode(errors="replace"), int(written) if written.isdecimal() else None


def refuse_newer(path: str | Path, kind: str, metadata: Mapping[bytes, bytes], *, latest: str) -> None:
    """Return unless a later klimb wrote the segment.

    Raises:
        SegmentError: it did.
    """
    written = metadata.get(VERSION_KEY, b"").decode(errors="replace")
    if written.isdecimal() and int(written) > int(latest):
        maker = metadata.get(MADE_BY_KEY, b"").decode(errors="replace")
        raise SegmentError(
            f"{path}: {kind} of schema version {written}, expected version {latest}; read it with the klimb that wrote "
            f"it{f' (klimb {maker})' if maker else ''}: upgrade, this one is klimb {__version__}"
        )


def check_content(path: str | Path) -> None:
    """Return if every row group of the Parquet file can be read, one at a time.

    Raises:
        SegmentError: the file is damaged.
    """
    with open_segment(path) as file:
        for number in range(file.num_row_groups):
            _read_row_group(path, file, number)


def open_segment(path: str | Path) -> pq.ParquetFile:
    """Return the file, to be read row group by row group; damage in a page is noticed by its checksum.

    Raises:
        SegmentError: the file is truncated or not Parquet.
        FileNotFoundError: there is no such file.
    """
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise _damaged(path, error) from error


def _read_row_group(path: str | Path, file: pq.ParquetFile, number: int) -> pa.Table:
    try:
        return file.read_row_group(number)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str | Path, error: Exception) -> SegmentError:
    return SegmentError(
        f"{path}: not a whole Parquet file ({error}); it was cut short or is of another kind; "
        "remove it or restore it from a copy"
    )


def _check_schema(path: str | Path, schema: pa.Schema) -> None:
    """Return if a segment's columns are those of a version that is read."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    if metadata.get(KIND_KEY) != b"samples":
        raise SegmentError(
            f"{path}: a Parquet file, but not one of klimb's samples (no {KIND_KEY.decode()} in its schema); "
            "import foreign data instead of reading it as a segment"
        )
    refuse_newer(path, "samples", metadata, latest=SCHEMA_VERSION)
    version = metadata.get(VERSION_KEY, b"none").decode(errors="replace")
    if version not in NEWER:
        raise SegmentError(
            f"{path}: samples of schema version {version}, expected version {SCHEMA_VERSION}; read it with the klimb "
            "that wrote it, or import the data anew with `klimb import`"
        )
    if not schema.equals(schema_without(NEWER[version]), check_metadata=False):
        raise SegmentError(f"{path}: its columns are not those of schema version {version}: {schema.names}")


def schema_without(left_out: Collection[str]) -> pa.Schema:
    """Return today's columns without these, and without these parts (`column.part`) of others."""
    kept = [field for field in SAMPLE_SCHEMA if field.name not in left_out]
    return pa.schema([field.with_type(_type_without(field.name, field.type, left_out)) for field in kept])


def _type_without(name: str, kind: pa.DataType, left_out: Collection[str]) -> pa.DataType:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return pa.list_(_type_without(name, kind.value_type, left_out))
    if not pa.types.is_struct(kind):
        return kind
    return pa.struct([field for field in kind.fields if f"{name}.{field.name}" not in left_out])


def _row_groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    num_bytes = 0
    for sample in samples:
        group.append(sample)
        num_bytes += _estimated_bytes(sample)
        if len(group) == ROW_GROUP_SAMPLES or num_bytes >= ROW_GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _estimated_bytes(sample: Sample) -> int:
    numbers = len(sample.prompt_ids) + len(sample.response_ids) + len(sample.log_mu or ()) + len(sample.log_ref or ())
    numbers += sum(map(len, sample.support or ()))
    texts = [sample.response, sample.raw, sample.tools, *(turn.text for turn in sample.turns)]
    return 8 * numbers + sum(map(len, texts)) + sum(len(m["content"]) for m in sample.prompt)


def _table(samples: Sequence[Sample]) -> pa.Table:
    columns = [pa.array(_stored(field.name, samples), field.type) for field in SAMPLE_SCHEMA]
    return pa.Table.from_arrays(columns, schema=SAMPLE_SCHEMA)


def _stored(name: str, samples: Sequence[Sample]) -> list[Any]:
    """Return a field of all samples as Arrow takes it."""
    values: list[Any] = list(map(attrgetter(name), samples))
    if name == "sampling":
        return [None if value is None else {each: getattr(value, each) for each in _SETTINGS} for value in values]
    if name == "prompt":
        return [[_stored_message(message) for message in value] for value in values]
    if name == "turns":
        return [[asdict(turn) for turn in value] for value in values]
    return [list(value.items()) for value in values] if name in ("reward_parts", "metadata") else values


def _stored_message(message: Message) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": None if calls is None else json.dumps(calls, ensure_ascii=False)}


def _samples_of(table: pa.Table) -> Iterator[Sample]:
    names = [name for name in _FIELD_NAMES if name in table.schema.names]
    for start in range(0, len(table), _SLICE_SAMPLES):
        part = table.slice(start, _SLICE_SAMPLES)
        columns = [_values(name, part.column(name).combine_chunks()) for name in names]
        for row in zip(*columns, strict=True):
            yield Sample(**dict(zip(names, row, strict=True)))


def _values(name: str, column: pa.Array) -> list[Any]:
    if name in _NUMBER_LISTS:
        return _tuples(column)
    values = column.to_pylist(maps_as_pydicts="strict")
    if name == "prompt":
        return [tuple(map(_message, row)) for row in values]
    if name == "turns":
        return [tuple(map(_turn, row)) for row in values]
    if name == "support":
        return [None if row is None else tuple(map(tuple, row)) for row in values]
    return [None if row is None else _settings(row) for row in values] if name == "sampling" else values


def _message(row: dict[str, Any]) -> Message:
    message = Message(role=row["role"], content=row["content"])
    if row.get("tool_calls") is not None:
        message["tool_calls"] = json.loads(row["tool_calls"])
    if row.get("name") is not None:
        message["name"] = row["name"]
    return message


def _turn(row: dict[str, Any]) -> Turn:
    return Turn(**{**row, "calls": tuple(ToolCall(**call) for call in row["calls"])})


def _settings(row: dict[str, Any]) -> SamplingSettings:
    known = {**row, "stop": tuple(row.get("stop") or ())}
    return SamplingSettings(**known)


def _tuples(column: pa.ListArray) -> list[tuple[Any, ...] | None]:
    """Return lists of numbers as tuples, None for null; one flat list is many times faster than value by value."""
    if column.values.null_count:
        return [None if row is None else tuple(row) for row in column.to_pylist()]
    offsets = column.offsets.to_pylist()
    first = offsets[0] if offsets else 0
    flat = column.values.slice(first, offsets[-1] - first if offsets else 0).to_numpy().tolist()
    spans = zip(offsets, offsets[1:], column.is_valid().to_pylist(), strict=False)
    return [tuple(flat[low - first : high - first]) if valid else None for low, high, valid in spans]


_FIELD_NAMES = tuple(field.name for field in fields(Sample))
