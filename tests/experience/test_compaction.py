"""Merging small segments: at no moment is a sample missing or there twice."""

import json
import threading
from pathlib import Path

from klimb.experience import Sample, Store, read_samples
from klimb.experience.compaction import MERGED_FILE, hold_segments, merge_small_segments, remove_merged


def sample(name: str) -> Sample:
    return Sample(
        sample_id=name,
        group_id=name,
        prompt=({"role": "user", "content": "?"},),
        prompt_ids=(1, 2),
        response="yes",
        response_ids=(3,),
        finish_reason="stop",
    )


def ids_in(folder: Path) -> list[str]:
    return sorted(each.sample_id for each in Store(folder).samples())


def test_merging_loses_no_sample_and_doubles_none_at_any_moment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        store.append([sample(f"s{number}")])
    expected = [f"s{number}" for number in range(5)]
    merged = merge_small_segments(tmp_path)
    assert merged is not None and [each.sample_id for each in read_samples(merged)] == expected
    assert len(list(tmp_path.glob("samples-*.parquet"))) == 6
    assert ids_in(tmp_path) == expected
    assert remove_merged(tmp_path) == 5
    assert ids_in(tmp_path) == expected
    assert list(tmp_path.glob("samples-*.parquet")) == [merged]


def test_an_end_between_the_list_and_the_merged_file_removes_nothing(tmp_path: Path) -> None:
    Store(tmp_path).append([sample("a")])
    (small,) = tmp_path.glob("samples-*.parquet")
    (tmp_path / MERGED_FILE).write_text(json.dumps({"samples-000009-00.parquet": [small.name]}))
    assert remove_merged(tmp_path) == 0
    assert ids_in(tmp_path) == ["a"]


def test_merging_waits_for_whoever_holds_the_segments(tmp_path: Path) -> None:
    for number in range(3):
        Store(tmp_path).append([sample(f"s{number}")])
    done = threading.Event()
    with hold_segments(tmp_path):
        thread = threading.Thread(target=lambda: (merge_small_segments(tmp_path), done.set()))
        thread.start()
        assert not done.wait(0.2)
    thread.join(10)
    assert done.is_set()
