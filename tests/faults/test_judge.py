"""The judge of the campaign sees what it is there to see: each change of a run's folder alone makes it another run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.faults.conftest import NUM_STEPS
from tests.faults.judge import differences
from tests.faults.scene import Scene

NEWEST = f"step-{NUM_STEPS:06d}"


def change_lines(path: Path, change: Callable[[dict], object]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(lines[-1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def forget_a_sample(run: Path) -> None:
    path = run / "rollouts" / "step-000002.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows - 1), path)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a metric by one part in a million": (
        lambda run: change_lines(run / "metrics.jsonl", lambda row: row.update(loss=row["loss"] * (1 + 1e-6) + 1e-12)),
        "metrics",
    ),
    "a step less": (
        lambda run: (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n"),
        "metrics: steps",
    ),
    "an evaluation": (
        lambda run: change_lines(run / "evaluations.jsonl", lambda row: row.update(mean=row["mean"] + 0.25)),
        "evaluations",
    ),
    "a weight of the model": (lambda run: flip_byte(run / "model" / "model.safetensors", -5), "model: model"),
    "a weight of the checkpoint": (
        lambda run: flip_byte(run / "checkpoints" / NEWEST / "weights.safetensors", -5),
        "newest checkpoint",
    ),
    "a sample less": (forget_a_sample, "rollouts: step-000002"),
    "the rollouts of a step": (lambda run: (run / "rollouts" / "step-000001.parquet").unlink(), "rollouts"),
    "a file left behind": (lambda run: (run / ".metrics.jsonl.tmp-12").touch(), "left behind"),
    "a folder left behind": (lambda run: (run / "checkpoints" / ".tmp-step-000004-12").mkdir(), "left behind"),
    "a lock that is held": (lambda run: (run / "lock").write_text("{}"), "the lock"),
    "the configuration": (lambda run: flip_byte(run / "config.json", 3), "config.json"),
    "the number of steps in the summary": (
        lambda run: (run / "summary.json").write_text(
            json.dumps(json.loads((run / "summary.json").read_text()) | {"num_steps": 3})
        ),
        "summary.json",
    ),
}


def test_each_change_of_a_run_is_seen_and_named(scene: Scene, tmp_path: Path):
    straight = scene.straight["plain"].run
    for name, (change, words) in CHANGES.items():
        run = Path(shutil.copytree(straight, tmp_path / name.replace(" ", "-")))
        assert differences(straight, run) == []
        change(run)
        found = differences(straight, run)
        assert found and all(words in each for each in found), (name, found)


def test_what_tells_the_time_is_not_compared(scene: Scene, tmp_path: Path):
    straight = scene.straight["plain"].run
    run = Path(shutil.copytree(straight, tmp_path / "later"))
    change_lines(run / "metrics.jsonl", lambda row: row.update(step_seconds=99.0, elapsed_seconds=999.0))
    assert differences(straight, run) == []
