"""A store knows which files were imported into it, and which rows never came in, each counted once."""

import json
from pathlib import Path

from klimb.experience import Store
from klimb.experience.importing import import_rows
from klimb.experience.importing.history import HISTORY, count_added, count_rejected, read_history

GOOD = {"prompt": "How long?", "completion": "Two days.", "label": True}


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_each_import_adds_a_line_with_its_file_kind_and_counts(tmp_path: Path):
    store = Store(tmp_path / "st")
    other = {**GOOD, "completion": "Three days."}
    import_rows(store, write_rows(tmp_path / "a.jsonl", GOOD, other, {"prompt": "q", "label": True}), kind="kto")
    import_rows(store, write_rows(tmp_path / "b.jsonl", {**GOOD, "prompt": "Who?"}), kind="kto")
    first, second = read_history(store.folder)
    assert (first.file, first.kind, first.num_rows, first.num_added) == ("a.jsonl", "kto", 3, 2)
    assert sum(first.rejected.values()) == 1 and first.reject_file == "a.jsonl-1.jsonl"
    assert (second.file, second.num_added, second.rejected) == ("b.jsonl", 1, {})
    assert count_added(read_history(store.folder)) == {"a.jsonl": 2, "b.jsonl": 1}


def test_a_file_that_is_imported_again_adds_nothing_and_its_rejects_count_once(tmp_path: Path):
    store = Store(tmp_path / "st")
    path = write_rows(tmp_path / "a.jsonl", GOOD, {"prompt": "q", "label": True})
    for _ in range(3):
        import_rows(store, path, kind="kto")
    assert count_added(read_history(store.folder)) == {"a.jsonl": 1}
    assert count_rejected(store.folder).total() == 1


def test_rejects_without_a_history_are_counted_from_their_files_and_a_line_cut_off_is_passed_over(tmp_path: Path):
    store = Store(tmp_path / "st")
    import_rows(store, write_rows(tmp_path / "a.jsonl", GOOD, {"prompt": "q", "label": True}), kind="kto")
    reasons = count_rejected(store.folder)
    (store.folder / HISTORY).write_text('{"file": "a.js', encoding="utf-8")
    assert read_history(store.folder) == ()
    assert count_rejected(store.folder) == reasons
    assert reasons.total() == 1


def test_a_folder_without_imports_has_no_history(tmp_path: Path):
    assert read_history(tmp_path) == ()
    assert count_rejected(tmp_path) == {}
    assert not list(tmp_path.iterdir())
