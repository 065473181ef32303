import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klimb.experience import (
    Sample,
    SamplingSettings,
    SegmentError,
    Store,
    ToolCall,
    Turn,
    read_samples,
    write_samples,
)
from klimb.experience.content import hash_content
from klimb.experience.migrations import migrate_folder
from klimb.experience.segments import NEWER, SCHEMA_VERSION, schema_without, version_of

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
CUT_OFF = replace(FULL, sample_id="d", support=((7, 22, 49151), (2,)))
BARE = Sample(
    sample_id="b", group_id="g", prompt=(), prompt_ids=(), response="", response_ids=(), finish_reason="length"
)


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [None, "é"]}}}
CONVERSATION = replace(
    FULL,
    sample_id="c",
    prompt=(
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "5", "name": "add"},
    ),
    response_ids=(1, 2, 3, 4, 5, 6),
    log_mu=(-1.0, -2.0, -0.25),
    log_ref=(-1.5, -2.5, -0.5),
    turns=(
        Turn(
            role="assistant",
            text="<call>",
            num_tokens=2,
            finish_reason="stop",
            seconds=0.5,
            calls=(ToolCall(name="add", arguments='{"a": 2}'), ToolCall(name="é", arguments="{}")),
        ),
        Turn(role="tool", text="5", num_tokens=3, name="add", seconds=0.1),
        Turn(role="tool", text="", num_tokens=0, name="é", error="no such tool"),
        Turn(role="assistant", text="5", num_tokens=1, finish_reason="length", reward=-0.5),
    ),
    tools='[{"type": "function"}]',
    episode="e1",
)


def test_every_field_comes_back_equal(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [FULL, BARE, CONVERSATION])
    assert read_samples(tmp_path / "a.parquet") == [FULL, BARE, CONVERSATION]


def test_conditions_read_the_turns(tmp_path: Path):
    Store(tmp_path).append([FULL, CONVERSATION])
    assert Store(tmp_path).count("len(turns) > 1 and turns[1].calls[1].name = 'add' and turns[4].reward < 0") == 1
    assert list(Store(tmp_path).samples(where="episode = 'e1'")) == [CONVERSATION]


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
    words = f"b.parquet: samples of schema version {version}, expected version 5; read it with the klimb that wrote it"
    with pytest.raises(SegmentError, match=words):
        read_samples(tmp_path / "b.parquet")
    with pytest.raises(SegmentError, match=words):
        Store(tmp_path).count()


def write_version(version: str, path: Path, samples: list[Sample]) -> None:
    """Write samples as an older version did: without the columns, and parts of them, that came later."""
    write_samples(path, samples)
    schema = schema_without(NEWER[version])
    rows = [{name: row[name] for name in schema.names} for row in pq.read_table(path).to_pylist()]
    table = pa.Table.from_pylist([_without(row, schema) for row in rows], schema=schema)
    metadata = {b"klimb.kind": b"samples", b"klimb.schema_version": version.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _without(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    settings = [field.name for field in schema.field("sampling").type]
    parts = [field.name for field in schema.field("prompt").type.value_type]
    messages = [{name: message[name] for name in parts} for message in row["prompt"]]
    sampling = row["sampling"] and {name: row["sampling"][name] for name in settings}
    return {**row, "prompt": messages, "sampling": sampling}


OLD = ("2", "3", "4")
PLAIN = SamplingSettings(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, max_new_tokens=16)


@pytest.mark.parametrize("version", OLD)
def test_samples_of_older_versions_are_read_with_what_changes_nothing(tmp_path: Path, version: str):
    write_version(version, tmp_path / "a.parquet", [FULL, BARE])
    sampling = PLAIN if version == "2" else FULL.sampling
    assert read_samples(tmp_path / "a.parquet") == [replace(FULL, sampling=sampling), BARE]


@pytest.mark.parametrize("version", OLD)
def test_older_versions_are_migrated_to_the_same_samples(tmp_path: Path, version: str):
    write_version(version, tmp_path / "a.parquet", [FULL, BARE])
    before = read_samples(tmp_path / "a.parquet")
    assert migrate_folder(tmp_path) == 1
    assert version_of(tmp_path / "a.parquet") == ("samples", int(SCHEMA_VERSION))
    assert read_samples(tmp_path / "a.parquet") == before


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_store_of_both_versions_is_asked_as_one(tmp_path: Path, first: str):
    """The first segment's columns are not the measure of the others."""
    store = Store(tmp_path)
    for name in ("old", "new") if first == "old" else ("new", "old"):
        store.append([replace(FULL, sample_id=name)])
    (old,) = [path for path in tmp_path.glob("*.parquet") if read_samples(path)[0].sample_id == "old"]
    write_version("2", old, [replace(FULL, sample_id="old")])
    store = Store(tmp_path)
    assert (
        store.count("sampling.repetition_penalty = 1 and sampling.min_new_tokens = 0 and len(sampling.stop) = 0") == 1
    )
    assert store.count("sampling.repetition_penalty > 1 and sampling.stop[1] = chr(10) || chr(10)") == 1
    assert {sample.sample_id: sample.sampling == FULL.sampling for sample in store.samples()} == {
        "old": False,
        "new": True,
    }


@pytest.mark.parametrize("version", OLD)
def test_a_store_of_older_versions_alone_has_the_columns_that_came_later(tmp_path: Path, version: str):
    Store(tmp_path).append([FULL, BARE])
    (path,) = tmp_path.glob("*.parquet")
    write_version(version, path, [FULL, BARE])
    assert Store(tmp_path).count("len(turns) = 0 and tools = '' and episode = '' and prompt[1].name is null") == 2
    assert [sample.turns for sample in Store(tmp_path).samples()] == [(), ()]


def test_a_store_of_version_2_alone_has_the_later_settings_in_conditions(tmp_path: Path):
    Store(tmp_path).append([FULL, BARE])
    (path,) = tmp_path.glob("*.parquet")
    write_version("2", path, [FULL, BARE])
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


def test_a_recorded_support_is_read_back_and_is_part_of_what_a_sample_says(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [CUT_OFF, FULL])
    assert read_samples(tmp_path / "a.parquet") == [CUT_OFF, FULL]
    narrower = replace(CUT_OFF, support=((22,), (2,)))
    assert len({hash_content([sample]) for sample in (CUT_OFF, replace(CUT_OFF, support=None), narrower)}) == 3


@pytest.mark.parametrize(
    ("support", "words"),
    [
        (((22, 5),), "support has 1 sets for 2 drawn tokens"),
        (((5,), (2,)), "token 22 was drawn at position 0"),
    ],
)
def test_a_support_that_cannot_be_is_refused(support: tuple[tuple[int, ...], ...], words: str):
    with pytest.raises(ValueError, match=words):
        replace(FULL, support=support)
