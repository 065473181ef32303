"""Merging small segments: at no moment is a sample missing or there twice."""

import json
import os
import threading
import time
from pathlib import Path

from klimb.experience import Sample, Store, read_samples
from klimb.experience.compaction import hold_segments, merge_small_segments, remove_merged
from klimb.experience.store_files import MERGED_FILE, Segment, SegmentFolder


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


def test_what_was_merged_is_read_from_the_merged_file_alone_so_its_parts_may_go_at_any_moment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(3):
        store.append([sample(f"s{number}")])
    merged = merge_small_segments(tmp_path)
    assert [segment.path for segment in store.files().samples] == [merged]
    rows = store.samples()
    assert next(rows).sample_id == "s0"
    assert remove_merged(tmp_path) == 3
    assert [each.sample_id for each in rows] == ["s1", "s2"]


def test_a_file_that_goes_while_the_folder_is_looked_at_is_no_error(tmp_path: Path, monkeypatch) -> None:
    for number in range(3):
        Store(tmp_path).append([sample(f"s{number}")])
    checked = SegmentFolder._checked

    def merges_first(folder: SegmentFolder, path: Path) -> Segment:
        monkeypatch.setattr(SegmentFolder, "_checked", checked)
        merge_small_segments(tmp_path)
        remove_merged(tmp_path)
        return checked(folder, path)

    monkeypatch.setattr(SegmentFolder, "_checked", merges_first)
    assert ids_in(tmp_path) == ["s0", "s1", "s2"]


def test_small_segments_stay_for_the_time_that_their_readers_get(tmp_path: Path) -> None:
    for number in range(3):
        Store(tmp_path).append([sample(f"s{number}")])
    merged = merge_small_segments(tmp_path)
    assert merged is not None
    assert remove_merged(tmp_path, grace_seconds=60) == 0
    old = time.time() - 61
    os.utime(merged, (old, old))
    assert remove_merged(tmp_path, grace_seconds=60) == 3


def test_a_store_whose_files_were_merged_while_it_was_opened_is_read_all_the_same(tmp_path: Path, monkeypatch) -> None:
    for number in range(3):
        Store(tmp_path).append([sample(f"s{number}")])
    look = SegmentFolder.look
    seen: list[object] = []

    def look_and_merge(folder: SegmentFolder):
        found = look(folder)
        seen.append(found)
        if len(seen) == 1:
            merge_small_segments(tmp_path)
            remove_merged(tmp_path)
        return found

    monkeypatch.setattr(SegmentFolder, "look", look_and_merge)
    assert [each.sample_id for each in Store(tmp_path).stored_samples(["s1"])] == ["s1"]
