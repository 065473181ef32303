"""The clock of the machine may be set back while a run goes on."""

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.policies import load_policy
from klimb.training import load_checkpoint, newest_verified, read_metrics, without_wall_clock

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def test_a_clock_that_jumps_back_changes_no_number_and_makes_no_time_negative(
    tiny_run, tiny_model_path: Path, undisturbed, tmp_path: Path, monkeypatch
):
    hours = itertools.count()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(hours))
    for num_steps in (3, 6):
        settings = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=num_steps))
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        tiny_run.run(policy, tmp_path / "torn", settings, resume=num_steps > 3)
    assert next(hours) > 1, "nobody asked for the time"
    made = read_metrics(tmp_path / "torn" / "metrics.jsonl")
    whole = read_metrics(undisturbed("iterative") / "metrics.jsonl")
    assert list(map(without_wall_clock, made)) == list(map(without_wall_clock, whole))
    assert all(value >= 0 for line in made for name, value in line.items() if name.endswith("_seconds"))
    newest = newest_verified(tmp_path / "torn" / "checkpoints")
    assert newest is not None
    numbers = load_checkpoint(newest).numbers
    assert numbers["total_seconds"] >= numbers["elapsed_seconds"] > 0
