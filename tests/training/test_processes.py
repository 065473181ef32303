"""Runs in processes of their own, really killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.policies import load_policy
from klimb.training import load_checkpoint, newest_verified, read_metrics, without_wall_clock

NUM_STEPS = 8


@pytest.fixture
def variant() -> str:
    """A name in `VARIANTS`; a test may parametrize it."""
    return "schedule-free-ema"


@pytest.fixture
def start(tiny_run_path: Path, tiny_model_path: Path, tmp_path: Path, variant: str):
    """Starts the program on the folder `torn`."""

    def started(**changes) -> subprocess.Popen[str]:
        changes = {"num_steps": NUM_STEPS} | changes
        command = [sys.executable, str(tiny_run_path), str(tiny_model_path), str(tmp_path / "torn"), variant]
        # The bits depend on the number of threads; the other process must use as many as this one.
        environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        return subprocess.Popen(
            [*command, json.dumps(changes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return started


@pytest.fixture
def straight(undisturbed, variant: str) -> Path:
    """The folder of a run of this process that nothing disturbed."""
    return undisturbed(variant, NUM_STEPS)


def assert_same_end(straight: Path, torn: Path) -> None:
    newest = [newest_verified(folder / "checkpoints") for folder in (straight, torn)]
    contents = [load_checkpoint(path) for path in newest if path is not None]
    assert [content.numbers["step"] for content in contents] == [NUM_STEPS] * 2
    for stem, tensors in contents[0].tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, contents[1].tensors[stem][name]), (stem, name)
    lines = [[without_wall_clock(line) for line in read_metrics(f / "metrics.jsonl")] for f in (straight, torn)]
    assert lines[0] == lines[1]


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None and process.stderr is not None
    while (line := process.stdout.readline()) != f"{step}\n":
        assert line, process.stderr.read()


@pytest.mark.slow  # the sample of the campaign kills runs, and test_resume stops and resumes each variant
@pytest.mark.parametrize("variant", ["schedule-free-ema", "replayed"])
def test_killed_and_resumed_is_bit_for_bit_the_undisturbed_run(start, straight: Path, tmp_path: Path):
    process = start(sleep_seconds=0.2)
    wait_for_step(process, 3)
    time.sleep(0.1)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    newest = newest_verified(tmp_path / "torn" / "checkpoints")
    assert newest is not None and newest.name in ("step-000002", "step-000004")
    resumed = start(resume=True)
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert "taking over the lock" in errors
    assert_same_end(straight, tmp_path / "torn")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moments_and_resumed_is_bit_for_bit_the_undisturbed_run(
    start, straight: Path, tmp_path: Path, seed: int
):
    moments = random.Random(seed)
    kills = 0
    for attempt in range(8):
        process = start(resume=(tmp_path / "torn").exists(), sleep_seconds=0.2)
        if attempt % 2:  # in the middle of the steps, where the checkpoints are written
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0, 1.5))
        else:  # while it starts, reads its checkpoint or cuts the metrics back
            time.sleep(moments.uniform(1, 8))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills > 2
    process = start(resume=True)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_same_end(straight, tmp_path / "torn")


@pytest.mark.slow  # of a signal in one process tell test_endings and test_resume, in another the sample of the campaign
def test_sigterm_saves_and_exits_with_143_and_the_resumed_run_is_the_same(
    start, straight: Path, variant: str, tiny_run, tiny_model_path: Path, tmp_path: Path, caplog
):
    process = start(sleep_seconds=0.2)
    wait_for_step(process, 3)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "SIGTERM: finishing this step, then saving; once more ends at once" in errors
    assert "stopped by a signal; saved after step" in errors
    newest = newest_verified(tmp_path / "torn" / "checkpoints")
    assert newest is not None and f"saved after step {int(newest.name[-6:])};" in errors
    policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    settings = replace(
        tiny_run.VARIANTS[variant], training=replace(tiny_run.VARIANTS[variant].training, num_steps=NUM_STEPS)
    )
    tiny_run.run(policy, tmp_path / "torn", settings, resume=True)
    assert not caplog.records  # the lock was given back
    assert_same_end(straight, tmp_path / "torn")


WAITS = """
import time
from klimb.training.signals import StopRequest
with StopRequest():
    print("ready", flush=True)
    time.sleep(600.0)
    time.sleep(600.0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_asks_for_stops_at_once(number: int):
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stderr.readline() == "\n"
    told = f"{signal.Signals(number).name}: finishing this step, then saving; once more ends at once\n"
    assert process.stderr.readline() == told
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    process.communicate()


@pytest.mark.slow  # the sample of the campaign has the same fault, "second signal at a random moment"
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_run_at_once(start, tmp_path: Path, number: int):
    process = start(sleep_seconds=600.0)
    lock = tmp_path / "torn" / "lock"
    deadline = time.monotonic() + 120
    while not (lock.exists() and lock.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # past the handler's installation, which follows the lock
    process.send_signal(number)
    assert process.stderr is not None
    while "once more ends at once" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
