import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klimb.experience import Sample, SamplingSettings, SegmentError, write_samples
from klimb.experience.feedback import Feedback
from klimb.experience.segments import stream_samples
from klimb.experience.store import Store, open_store

BASE = Sample(
    sample_id="a-0",
    group_id="a",
    prompt=({"role": "user", "content": "2 + 3 = ?\x00 é 🧗"},),
    prompt_ids=(1, 2),
    response="5",
    response_ids=(22, 2),
    finish_reason="stop",
    reward=1.0,
    reward_parts={"correct": 1.0},
    reward_reason="5 equals 5",
    log_mu=(-0.25, -1e-300),
    log_mu_provenance="sampler",
    log_ref=(-0.5, 0.1),
    sampling=SamplingSettings(temperature=0.7),
    model="tiny",
    metadata={"problem_id": "2+3"},
    tokenizer="0123456789abcdef",
    raw='{"a": 1}',
)
BARE = Sample(
    sample_id="b-0", group_id="b", prompt=(), prompt_ids=(), response="", response_ids=(), finish_reason="unknown"
)


def numbered(count: int, *, per_group: int = 4, start: int = 0) -> list[Sample]:
    """Samples n0000, n0001, … in groups of `per_group`; the reward is the place in the group."""
    return [
        replace(BASE, sample_id=f"n{n:04d}", group_id=f"g{n // per_group:03d}", reward=float(n % per_group))
        for n in range(start, start + count)
    ]


def ids(samples) -> list[str]:
    return [sample.sample_id for sample in samples]


def test_every_field_comes_back_equal(tmp_path: Path):
    Store(tmp_path).append([BASE, BARE])
    assert list(Store(tmp_path).samples()) == [BASE, BARE]


def test_appending_twice_adds_nothing(tmp_path: Path):
    store = Store(tmp_path / "made" / "by" / "append")
    first, second = store.append(numbered(5)), store.append(numbered(7))
    assert (first.num_added, first.num_duplicates, first.conflicts) == (5, 0, ())
    assert (second.num_added, second.num_duplicates, second.conflicts) == (2, 5, ())
    files = store.files()
    assert store.append(numbered(7)).num_duplicates == 7
    assert store.files() == files
    assert ids(store.samples()) == ids(numbered(7))


def test_another_content_under_a_known_id_is_a_conflict_and_is_not_added(tmp_path: Path):
    store = Store(tmp_path)
    store.append([BASE])
    result = store.append([replace(BASE, reward=0.0), BARE])
    assert (result.num_added, result.num_duplicates, result.conflicts) == (1, 0, ("a-0",))
    assert list(store.samples()) == [BASE, BARE]


def test_one_addition_is_checked_against_itself(tmp_path: Path):
    result = Store(tmp_path).append([BASE, BASE, replace(BASE), replace(BASE, response="6")])
    assert (result.num_added, result.num_duplicates, result.conflicts) == (1, 2, ("a-0",))
    assert list(Store(tmp_path).samples()) == [BASE]


def test_whole_numbers_and_nan_are_no_conflict(tmp_path: Path):
    store = Store(tmp_path)
    odd = replace(BASE, reward=1, log_mu=(float("nan"), float("-inf")))
    store.append([odd])
    assert store.append([replace(odd, log_mu=(float("nan"), float("-inf")))]).num_duplicates == 1


def test_samples_without_an_id_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="1 samples have an empty sample_id"):
        Store(tmp_path).append([replace(BASE, sample_id="")])


def test_of_two_writers_at_once_both_segments_stay_and_each_id_is_read_once(tmp_path: Path, monkeypatch):
    slow, quick = Store(tmp_path), Store(tmp_path)
    known = slow._known_samples
    # The quick one writes after the slow one has looked what is there.
    monkeypatch.setattr(slow, "_known_samples", lambda ids: [list(known(ids)), quick.append(numbered(4))][0])
    slow.append([replace(sample, response="late") for sample in numbered(6, start=2)])

    assert len(slow.files().samples) == 2
    store = Store(tmp_path)
    found = list(store.samples())
    assert sorted(ids(found)) == ids(numbered(8))
    assert store.count() == 8
    first = store.files().samples[0].path
    in_first = {sample.sample_id: sample for sample in stream_samples(first)}
    assert all(sample == in_first.get(sample.sample_id, sample) for sample in found)
    assert [len(group) for group in store.groups(["g000", "g001"])] == [4, 4]


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from klimb.experience import Sample
from klimb.experience.store import Store

store = Store(Path(sys.argv[1]))
base = Sample(sample_id="", group_id="g", prompt=(), prompt_ids=(), response="x" * 100, response_ids=tuple(range(200)),
              finish_reason="length")
def endless(start):
    for number in range(start, 10**9):
        if number == start + 5000:
            print("in the middle", flush=True)
        yield replace(base, sample_id=f"{start}-{number}")
store.append([replace(base, sample_id=f"whole-{number}") for number in range(300)])
from klimb.experience.segments import write_samples
write_samples(store._segments.new_path("samples"), endless(1000))
"""


def test_a_killed_writer_leaves_the_store_readable(tmp_path: Path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "in the middle\n"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()

    store = Store(tmp_path)
    assert len(store.files().unfinished) == 1, "the writer was killed while a segment was being written"
    assert store.count() == 300
    assert store.append([BASE]).num_added == 1
    assert store.count() == 301


def test_a_folder_name_of_wildcards_and_quotes_is_only_a_name(tmp_path: Path):
    for name in ("a[1]'*x;\"", "a1'yx;\""):  # the second is what the first would match as a pattern
        Store(tmp_path / name).append([replace(BASE, sample_id=name)])
    assert ids(Store(tmp_path / "a[1]'*x;\"").samples()) == ["a[1]'*x;\""]
    assert Store(tmp_path / "a[1]'*x;\"").count("reward = 1") == 1


def test_groups_come_in_the_order_asked_for_and_samples_by_id(tmp_path: Path):
    store = Store(tmp_path)
    store.append(list(reversed(numbered(12))))
    assert store.group_ids() == ["g000", "g001", "g002"]
    first, second, third = store.groups(["g002", "none", "g000"])
    assert (ids(first), second, ids(third)) == (["n0008", "n0009", "n0010", "n0011"], [], ids(numbered(4)))
    assert [ids(group) for group in store.groups(["g001"], where="reward > 1 or reward = 0")] == [
        ["n0004", "n0006", "n0007"]
    ]
    assert store.group_ids(where="sample_id >= 'n0008'") == ["g002"]


def test_rows_come_from_every_row_group_and_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("klimb.experience.segments.ROW_GROUP_SAMPLES", 7)
    monkeypatch.setattr("klimb.experience.store._PLACE_BATCH", 10)
    store = Store(tmp_path)
    for start in range(0, 60, 20):
        store.append(numbered(20, start=start))
    assert pq.ParquetFile(store.files().samples[0].path).num_row_groups == 3
    assert ids(store.samples()) == ids(numbered(60))
    assert ids(store.samples(where="reward = 3")) == [f"n{n:04d}" for n in range(3, 60, 4)]
    assert ids(store.samples(where="reward = 3", limit=2)) == ["n0003", "n0007"]


def test_long_samples_end_a_row_group_early(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("klimb.experience.segments.ROW_GROUP_BYTES", 1000)
    long = replace(BASE, response_ids=tuple(range(100)), log_mu=None, log_mu_provenance="absent", log_ref=None)
    Store(tmp_path).append([replace(long, sample_id=str(number)) for number in range(5)])
    metadata = pq.ParquetFile(Store(tmp_path).files().samples[0].path).metadata
    # 8 bytes a token: 800 are below the bound, 1600 above it.
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [2, 2, 1]


def test_an_unknown_sample_is_said_to_be_unknown(tmp_path: Path):
    store = Store(tmp_path)
    store.append([BASE])
    assert store.sample("a-0") == BASE
    with pytest.raises(ValueError, match="no sample 'zz' among 1"):
        store.sample("zz")


def test_a_reader_goes_on_with_the_files_it_began_with(tmp_path: Path):
    store = Store(tmp_path)
    store.append(numbered(3))
    reading = store.samples()
    next(reading)
    store.append(numbered(3, start=3))
    assert ids(reading) == ["n0001", "n0002"]
    assert store.count() == 6


def test_a_segment_that_was_replaced_is_read_anew(tmp_path: Path):
    write_samples(tmp_path / "step-000001.parquet", numbered(3))
    store = Store(tmp_path)
    assert store.count() == 3
    write_samples(tmp_path / "step-000001.parquet", numbered(9))
    assert store.count() == 9


def test_foreign_and_truncated_files_are_named(tmp_path: Path):
    store = Store(tmp_path)
    store.append(numbered(3))
    (segment,) = store.files().samples
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(SegmentError, match=r"foreign\.parquet.*not one of klimb's samples"):
        store.count()
    (tmp_path / "foreign.parquet").unlink()
    (tmp_path / "cut.parquet").write_bytes(segment.path.read_bytes()[:-20])
    with pytest.raises(SegmentError, match=r"cut\.parquet: not a whole Parquet file"):
        list(store.samples())


def test_a_file_damaged_in_the_middle_is_named(tmp_path: Path):
    store = Store(tmp_path)
    store.append(numbered(3))
    store.append(numbered(500, start=3))
    broken = store.files().samples[1].path
    content = bytearray(broken.read_bytes())
    content[4:400] = bytes(396)
    broken.write_bytes(content)
    with pytest.raises(SegmentError, match=broken.name):
        list(store.samples())
    with pytest.raises(SegmentError, match=broken.name):
        store.count("sample_id = 'x'")


def test_a_segment_removed_under_an_open_store_is_named(tmp_path: Path):
    store = Store(tmp_path)
    store.append(numbered(3))
    (segment,) = store.files().samples
    reading = store.samples()
    segment.path.unlink()
    with pytest.raises((SegmentError, FileNotFoundError), match=segment.path.name):
        list(reading)


def test_open_store_takes_a_store_a_run_its_rollouts_and_a_segment(tmp_path: Path):
    run = tmp_path / "run"
    (run / "rollouts").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    write_samples(run / "rollouts" / "step-000001.parquet", numbered(4))
    write_samples(run / "rollouts" / "step-000002.parquet", numbered(4, start=4))
    Store(tmp_path / "store").append(numbered(3))
    places = [run, run / "rollouts", run / "rollouts" / "step-000002.parquet", tmp_path / "store"]
    assert [open_store(place).count() for place in places] == [8, 8, 4, 3]


def test_open_store_says_what_is_wrong(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such store, run or segment"):
        open_store(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no samples.*klimb import"):
        open_store(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"a\.txt is a file and no store: klimb import .*a\.txt --into STORE"):
        open_store(tmp_path / "a.txt")
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(SegmentError, match=r"a\.parquet: not a whole Parquet file"):
        open_store(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").unlink()
    Store(tmp_path).append_feedback([Feedback(feedback_id="f", sample_id="s", value=1.0)])
    (segment,) = Store(tmp_path).files().feedback
    with pytest.raises(ValueError, match="holds feedback only"):
        open_store(segment.path)
    assert open_store(tmp_path).count() == 0


def test_nothing_is_added_to_a_single_segment(tmp_path: Path):
    write_samples(tmp_path / "a.parquet", [BASE])
    with pytest.raises(ValueError, match="one segment"):
        open_store(tmp_path / "a.parquet").append([BARE])


def test_a_run_without_rollouts_holds_no_samples(tmp_path: Path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=rf"{os.sep}rollouts holds no samples"):
        open_store(tmp_path)


def test_one_more_rating_opens_none_of_the_files_that_are_there(tmp_path: Path, monkeypatch):
    store = Store(tmp_path)
    store.append([BARE])
    row = Feedback(feedback_id="f0", sample_id=BARE.sample_id, value=1.0)
    store.append_feedback([row], known=())
    monkeypatch.setattr("klimb.experience.store.migrate_folder", lambda folder: pytest.fail("all files were opened"))
    store.append_feedback([replace(row, feedback_id="f1")], known=())
    assert len(Store(tmp_path).feedback_of([BARE.sample_id])) == 2
