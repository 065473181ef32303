import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from klimb.training.locks import RunFolderInUse, process_identity, run_folder_lock


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """A living process in whose name the folder is held."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (folder / "lock").write_text(json.dumps(process_identity(process.pid)))
    return process


def test_a_living_holder_keeps_others_out_and_a_dead_one_does_not(tmp_path: Path, caplog):
    process = holder(tmp_path)
    with pytest.raises(RunFolderInUse, match=f"in use by process {process.pid} on {socket.gethostname()}"):
        run_folder_lock(tmp_path).__enter__()
    process.kill()
    process.wait()
    with run_folder_lock(tmp_path):
        assert f"taking over the lock of process {process.pid}, which is dead" in caplog.text


def test_a_lock_given_back_can_be_taken_silently(tmp_path: Path, caplog):
    for _ in range(2):
        with run_folder_lock(tmp_path):
            pass
    assert not caplog.records


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path):
    with run_folder_lock(tmp_path), pytest.raises(RunFolderInUse):
        run_folder_lock(tmp_path).__enter__()


def test_a_number_given_to_a_new_process_does_not_keep_the_lock_alive(tmp_path: Path, caplog):
    # Our own number with another start time: the holder is dead and its number was given out again.
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": "1"}
    (tmp_path / "lock").write_text(json.dumps(holder))
    with run_folder_lock(tmp_path):
        assert "taking over" in caplog.text


def test_a_holder_on_another_machine_cannot_be_judged(tmp_path: Path):
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    with pytest.raises(RunFolderInUse, match=r"process 1 on elsewhere.*if that run is dead, delete"):
        run_folder_lock(tmp_path).__enter__()


def test_a_lock_file_cut_short_is_nobodys(tmp_path: Path):
    (tmp_path / "lock").write_text('{"pid": 12')
    with run_folder_lock(tmp_path):
        pass
