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

OTHERS = {"min_new_tokens": 3, "repetition_penalty": 1.25, "stop": ("\n\n", "</answer>")}
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
    sampling=SamplingSettings(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, max_new_tokens=16, **OTHERS),
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
    words = f"b.parquet: samples of schema version {version}, expected version 3; read it with the klimb that wrote it"
    with pytest.raises(SegmentError, match=words):
        read_samples(tmp_path / "b.parquet")
    with pytest.raises(SegmentError, match=words):
        Store(tmp_path).count()


def write_version_2(path: Path, samples: list[Sample]) -> None:
    """Write samples as version 2 did: without the settings that came later."""
    write_samples(path, samples)
    table = pq.read_table(path)
    place = table.schema.get_field_index("sampling")
    kept = table.schema.field("sampling").type.fields[:5]
    column = table.column("sampling").combine_chunks()
    older = pa.StructArray.from_arrays([column.field(i) for i in range(5)], fields=kept, mask=column.is_null())
    table = table.set_column(place, pa.field("sampling", pa.struct(kept)), older)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"klimb.schema_version": b"2"}), path)


def test_samples_of_version_2_are_read_with_the_settings_that_change_nothing(tmp_path: Path):
    write_version_2(tmp_path / "a.parquet", [FULL, BARE])
    plain = SamplingSettings(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, max_new_tokens=16)
    assert read_samples(tmp_path / "a.parquet") == [replace(FULL, sampling=plain), BARE]


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_store_of_both_versions_is_asked_as_one(tmp_path: Path, first: str):
    """The first segment's columns are not the measure of the others."""
    store = Store(tmp_path)
    for name in ("old", "new") if first == "old" else ("new", "old"):
        store.append([replace(FULL, sample_id=name)])
    (old,) = [path for path in tmp_path.glob("*.parquet") if read_samples(path)[0].sample_id == "old"]
    write_version_2(old, [replace(FULL, sample_id="old")])
    store = Store(tmp_path)
    assert (
        store.count("sampling.repetition_penalty = 1 and sampling.min_new_tokens = 0 and len(sampling.stop) = 0") == 1
    )
    assert store.count("sampling.repetition_penalty > 1 and sampling.stop[1] = chr(10) || chr(10)") == 1
    assert {sample.sample_id: sample.sampling == FULL.sampling for sample in store.samples()} == {
        "old": False,
        "new": True,
    }


def test_a_store_of_version_2_alone_has_the_later_settings_in_conditions(tmp_path: Path):
    Store(tmp_path).append([FULL, BARE])
    (path,) = tmp_path.glob("*.parquet")
    write_version_2(path, [FULL, BARE])
    assert Store(tmp_path).count("sampling.min_new_tokens = 0") == 1
    assert Store(tmp_path).count("sampling is null") == 1


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
