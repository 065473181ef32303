import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from klimb.errors import ConfigError
from klimb.training.checkpoints import (
    CheckpointContent,
    load_checkpoint,
    newest_checkpoint,
    newest_verified,
    prune_checkpoints,
    remove_leftovers,
    save_checkpoint,
)


def content(value: float) -> CheckpointContent:
    return CheckpointContent(
        {"weights": {"a.b": torch.full((3, 5), value)}, "random": {"g": torch.Generator().get_state()}, "empty": {}},
        {"step": value, "third": 1 / 3, "huge": 1e300, "nothing": None, "text": "é"},
    )


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path: Path):
    tensor = torch.randn(7, 3).t()  # not contiguous
    saved = CheckpointContent({"weights": {"a": tensor}, "empty": {}}, content(1.0).numbers)
    loaded = load_checkpoint(save_checkpoint(tmp_path, 12, saved, keep=2))
    assert torch.equal(loaded.tensors["weights"]["a"], tensor)
    assert loaded.tensors["empty"] == {}
    assert loaded.numbers == saved.numbers


def test_the_last_ones_are_kept(tmp_path: Path):
    for step in (1, 9, 10, 2000000):
        save_checkpoint(tmp_path, step, content(1.0), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-2000000"]
    newest = newest_verified(tmp_path)
    assert newest is not None and newest.name == "step-2000000"


@pytest.mark.parametrize("file", ["weights.safetensors", "numbers.json", "random.safetensors", "manifest.json"])
def test_a_flipped_byte_gives_the_one_before_and_a_warning_with_the_name(tmp_path: Path, file: str, caplog):
    save_checkpoint(tmp_path, 1, content(1.0), keep=2)
    path = save_checkpoint(tmp_path, 2, content(2.0), keep=2) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    newest = newest_verified(tmp_path)
    assert newest is not None and newest.name == "step-000001"
    assert "step-000002 is damaged" in caplog.text
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000002"


@pytest.mark.parametrize("file", ["weights.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncate", "remove"])
def test_a_missing_or_shortened_file_is_damage(tmp_path: Path, file: str, harm: str, caplog):
    path = save_checkpoint(tmp_path, 1, content(1.0), keep=1) / file
    path.unlink() if harm == "remove" else os.truncate(path, path.stat().st_size // 2)
    assert newest_verified(tmp_path) is None
    assert "step-000001 is damaged" in caplog.text


def test_no_checkpoint_is_none(tmp_path: Path):
    assert newest_verified(tmp_path / "nowhere") is None
    assert newest_checkpoint(tmp_path) is None


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    save_checkpoint(tmp_path, 5, content(1.0), keep=2)
    loaded = load_checkpoint(save_checkpoint(tmp_path, 5, content(2.0), keep=2))
    assert loaded.numbers["step"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def test_leftovers_are_removed_and_never_loaded(tmp_path: Path):
    aside = tmp_path / ".tmp-step-000009-4711"
    aside.mkdir()
    (aside / "weights.safetensors").write_bytes(b"half")
    assert newest_verified(tmp_path) is None
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_refused_with_who_made_it_and_an_older_one_that_nobody_knows_too(tmp_path: Path):
    path = save_checkpoint(tmp_path, 1, content(1.0), keep=1)
    numbers = json.loads((path / "numbers.json").read_text())
    (path / "numbers.json").write_text(json.dumps(numbers | {"format": 99, "klimb": "7.0.0"}))
    with pytest.raises(
        ConfigError, match=r"made by klimb 7\.0\.0, in format 99; this klimb \(.*\) reads up to 5: upgrade"
    ):
        load_checkpoint(path)
    (path / "numbers.json").write_text(json.dumps(numbers | {"format": 3}))
    with pytest.raises(ConfigError, match=r"says format 3, and this klimb \(.*\) reads 4 to 5"):
        load_checkpoint(path)


def test_a_disk_that_fills_up_leaves_the_old_one_and_nothing_aside(tmp_path: Path):
    save_checkpoint(tmp_path, 1, content(1.0), keep=2)
    large = CheckpointContent({"weights": {"a": torch.zeros(100_000)}}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
        with pytest.raises(OSError, match=r"step-000002|File too large"):
            save_checkpoint(tmp_path, 2, large, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert newest_verified(tmp_path) == tmp_path / "step-000001"


def test_killed_at_any_moment_of_saving_the_newest_is_whole(tmp_path: Path, caplog):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from klimb.training.checkpoints import CheckpointContent, save_checkpoint
        for step in range(1, 100000):
            tensors = {"weights": {"a": torch.full((200000,), float(step))}}
            save_checkpoint(Path(sys.argv[1]), step, CheckpointContent(tensors, {"step": step}), keep=2)
            print(step, flush=True)
    """)
    with caplog.at_level(logging.WARNING):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.123)
        process.send_signal(signal.SIGKILL)
        told = [line for line in process.stdout.read().split("\n") if line]
        process.wait()
        newest = newest_verified(tmp_path)
    assert newest is not None and not caplog.records
    loaded = load_checkpoint(newest)
    assert loaded.numbers["step"] >= int(told[-1] if told else 3)
    assert torch.equal(loaded.tensors["weights"]["a"], torch.full((200000,), float(loaded.numbers["step"])))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_files_of_a_checkpoint_have_the_modes_of_any_other_file(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        saved = save_checkpoint(tmp_path, 1, content(1.0), keep=1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {mode}


def test_at_the_end_the_newest_stays_with_what_it_may_go_back_to(tmp_path: Path):
    def save(step: int, **numbers: object) -> None:
        saved = CheckpointContent({"weights": {"a": torch.zeros(1000)}}, {"step": step, **numbers})
        save_checkpoint(tmp_path, step, saved, keep=99)

    for step in (1, 2, 3, 4):
        save(step)
    save(5, quality={"good": {"step": 2}}, watches={"best": {"best": 0.5, "best_step": 3}})
    (tmp_path / "damaged-step-000000").mkdir()
    size = sum(path.stat().st_size for path in (tmp_path / "step-000001").iterdir())
    pruned = prune_checkpoints(tmp_path, keep=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["damaged-step-000000", "step-000002", "step-000003", "step-000005"]
    assert (pruned.newest, pruned.num_removed) == (tmp_path / "step-000005", 2)
    assert pruned.removed_bytes == 2 * size and pruned.kept_bytes > 3 * size
    assert prune_checkpoints(tmp_path / "nothing", keep=1).newest is None
