"""A real process, stopped by a signal and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klimb.training import read_metrics

PROGRAM = "import sys; from klimb.workbench.cli import run_command; sys.exit(run_command(sys.argv[1:]))"


def started(workplace, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=workplace.path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path: Path, *, count: int) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, f"{path} did not grow"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_go_on_and_loses_nothing(workplace, number: int, status: int):
    settings = ["training.num_steps=100000", "task.reward=task", "checkpoints.every_steps=100000"]
    process = started(workplace, "train", "run.toml", "--set", *settings)
    run = workplace.path / "runs" / "run"
    wait_for_lines(run / "metrics.jsonl", count=3)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "klimb train --resume runs/run" in out
    done = len(read_metrics(run / "metrics.jsonl"))
    outcome = workplace.klimb("train", "--resume", "runs/run", "--set", f"training.num_steps={done + 2}")
    assert outcome.status == 0, outcome.err
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == list(range(1, done + 3))
    assert json.loads((run / "summary.json").read_text())["num_steps"] == done + 2
