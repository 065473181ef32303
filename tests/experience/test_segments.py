import math
import resource
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience import Sample, SamplingSettings, SegmentError, Store, read_samples, write_samples

FULL = Sample(
    sample_id="s0-000001-0000-00",
    group_id="s0-000001-0000",
    prompt=({"role": "system", "content": "Short."}, {"role": "user", "content": "2 + 3 = ?\u2028\x00 é 🧗"}),
    prompt_ids=(1, 2, 49151),
    response="5",
    response_ids=(22, 2),
    finish_reason="stop",
    reward=1 / 3,
    reward_parts={"correct": 1.0, "overlong": -2 / 3},
    reward_reason="5 equals 5",
    log_mu=(-math.pi, -1e-300),
    log_mu_provenance="sampler",
    log_ref=(-math.e, 0.1),
    sampling=SamplingSettings(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, max_new_tokens=16),
    model="tiny",
    policy_version=12,
    source="replay",
    created_at=1.7e9 + 1 / 7,
    metadata={"problem": "2+3", "": "empty name"},
    tokenizer="0123456789abcdef",
    raw='{"a": 1}',
)
BARE = Sample(
    sample_id="b", group_id="g", prompt=(), prompt_ids=(), response="", response_ids=(), finish_reason="length"
)


def test_every_field_comes_back_equal(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [FULL, BARE])
    assert read_samples(tmp_path / "a.parquet") == [FULL, BARE]


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), text=st.text())
def test_floats_and_text_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, values, text: str):
    path = tmp_path_factory.mktemp("segments") / "a.parquet"
    ids = tuple(range(len(values)))
    written = replace(FULL, response_ids=ids, log_mu=tuple(values), log_ref=tuple(values), response=text)
    write_samples(path, [written])
    (read,) = read_samples(path)
    assert read == written
    assert [value.hex() for value in read.log_mu or ()] == [float(value).hex() for value in values]


def test_an_empty_list_of_samples_is_a_segment_too(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [])
    assert read_samples(tmp_path / "a.parquet") == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, share: float):
    path = tmp_path / "a.parquet"
    write_samples(path, [FULL])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SegmentError, match=r"a\.parquet: not a whole Parquet file"):
        read_samples(path)


def test_a_file_of_another_kind_is_named(tmp_path: Path):
    (tmp_path / "a.parquet").write_text('{"prompt": "hello"}\n' * 10)
    with pytest.raises(SegmentError, match="not a whole Parquet file"):
        read_samples(tmp_path / "a.parquet")


def test_foreign_parquet_is_refused_with_what_to_do(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(SegmentError, match=r"not one of klimb's samples.*import foreign data"):
        read_samples(tmp_path / "a.parquet")


@pytest.mark.parametrize("version", ["1", "99"])
def test_another_schema_version_is_refused_with_both_versions_and_what_to_do(tmp_path: Path, version: str):
    write_samples(tmp_path / "a.parquet", [FULL])
    table = pq.read_table(tmp_path / "a.parquet")
    other = {**table.schema.metadata, b"klimb.schema_version": version.encode()}
    pq.write_table(table.replace_schema_metadata(other), tmp_path / "b.parquet")
    words = f"b.parquet: samples of schema version {version}, expected version 2; read it with the klimb that wrote it"
    with pytest.raises(SegmentError, match=words):
        read_samples(tmp_path / "b.parquet")
    with pytest.raises(SegmentError, match=words):
        Store(tmp_path).count()


def test_a_column_taken_away_is_noticed(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [FULL])
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.drop_columns(["log_mu"]), tmp_path / "b.parquet")
    with pytest.raises(SegmentError, match="columns are not those"):
        read_samples(tmp_path / "b.parquet")


def test_a_missing_file_stays_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_samples(tmp_path / "none.parquet")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_samples(path, [FULL])
    surrogate = replace(BARE, response="\ud800")
    with pytest.raises(ValueError, match="surrogate"):
        write_samples(path, [surrogate])
    assert read_samples(path) == [FULL]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_samples(path, [FULL])
    large = replace(BARE, prompt_ids=tuple(number * 7919 % 100_003 for number in range(30_000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
        with pytest.raises(OSError, match="File too large"):
            write_samples(path, [large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_samples(path) == [FULL]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]
