"""Whether a long run stays as small and as quick as it began: memory, open files, threads, seconds a step.

    python -m benchmarks.endurance                    # 2,000 steps of the tests' tiny model, some minutes
    python -m benchmarks.endurance --steps 500 --markdown

One `klimb train` in a process of its own, watched from outside: with a replay buffer, rollouts kept, an evaluation and
a checkpoint every 20 steps, TensorBoard and a scoring process. At each mark it reads the process's resident memory, its
open files and threads, and the seconds that each step since the mark before took on the wall, all included. The table
compares the marks with the first one; nothing here passes or fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tiny_model import save_tiny_model

from benchmarks.page import table_of
from klimb.training import read_metrics

RUN = """
[model]
path = "model"
dtype = "float32"
device = "cpu"

[task]
kind = "arithmetic"
reward = "python:letters.vowels"

[sampling]
num_prompts = 4
num_samples = 4
max_new_tokens = 8

[sources]
replay = 0.5

[replay]
max_age = 40
max_groups = 200

[optimizer]
learning_rate = 1e-4

[training]
num_steps = {num_steps}
num_threads = 1

[checkpoints]
every_steps = 20

[evaluation]
num_problems = 4
num_samples = 2
every_steps = 20

[run]
report = false
"""

REWARD = '''
def vowels(prompt, response, answer, metadata):
    """Share of vowels."""
    return sum(letter in "aeiou" for letter in response) / max(1, len(response))
'''

MEGABYTE = 2**20


@dataclass(frozen=True)
class Mark:
    """What the process had when it had done so many steps.

    Attributes:
        step: steps done.
        resident: memory, in megabytes.
        num_files: open file descriptors.
        num_threads: of the process.
        num_children: processes that it has started and that live.
        seconds: on the wall, for each step since the mark before.
        disk: the run's folder, in megabytes.
    """

    step: int
    resident: float
    num_files: int
    num_threads: int
    num_children: int
    seconds: float
    disk: float


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--first", type=int, default=100, help="the first mark")
    parser.add_argument("--marks", type=int, default=5, help="marks after the first one")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="klimb-endurance-"))
    try:
        at = [
            arguments.first + (arguments.steps - arguments.first) * n // arguments.marks
            for n in range(arguments.marks + 1)
        ]
        marks = watch(place, num_steps=arguments.steps, at=at)
        print(table(marks))
        print()
        print(growth(marks, place / "runs" / "run" / "metrics.jsonl"))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def watch(place: Path, *, num_steps: int, at: Sequence[int]) -> list[Mark]:
    """Start the run in this folder, and return what was read when it had done each of these numbers of steps."""
    save_tiny_model(place / "model")
    # A few steps more, so that the last mark is of a run that goes on.
    (place / "run.toml").write_text(RUN.format(num_steps=num_steps + 20), encoding="utf-8")
    (place / "letters.py").write_text(REWARD, encoding="utf-8")
    command = [sys.executable, "-c", "from klimb.workbench.cli import main; main()", "train", "run.toml"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (place / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=output)
        try:
            return _marks(process, place / "runs" / "run", at)
        finally:
            process.wait()


def _marks(process: subprocess.Popen[bytes], run: Path, at: Sequence[int]) -> list[Mark]:
    marks: list[Mark] = []
    done, since, size, began = 0, 0, 0, time.monotonic()
    for step in at:
        while done < step:
            if process.poll() is not None:
                raise ChildProcessError(f"the run ended before step {step}: {(run.parents[1] / 'output').read_text()}")
            time.sleep(0.02)
            if not since:
                began = time.monotonic()  # of the steps, without what comes before them
            new, size = _lines_since(run / "metrics.jsonl", size)
            done += new
            since = since or done
        now = time.monotonic()
        marks.append(_read(process.pid, run, done, (now - began) / max(1, done - since)))
        began, since = time.monotonic(), done
    return marks


def _lines_since(path: Path, size: int) -> tuple[int, int]:
    """Return how many whole lines the file has behind this size, and the size behind them."""
    if not path.exists():
        return 0, size
    with path.open("rb") as file:
        file.seek(size)
        new = file.read()
    whole = new.rfind(b"\n") + 1
    return new.count(b"\n"), size + whole


def _read(pid: int, run: Path, step: int, seconds: float) -> Mark:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    children = (process / "task" / str(pid) / "children").read_text().split()
    return Mark(
        step=step,
        resident=pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE,
        num_files=len(list((process / "fd").iterdir())),
        num_threads=len(list((process / "task").iterdir())),
        num_children=len(children),
        seconds=seconds,
        disk=sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / MEGABYTE,
    )


def table(marks: Sequence[Mark]) -> str:
    """Return one row for each mark."""
    names = ("step", "resident MB", "open files", "threads", "children", "ms a step since the row before", "folder MB")
    rows = [
        (
            f"{mark.step:,}",
            f"{mark.resident:.1f}",
            str(mark.num_files),
            str(mark.num_threads),
            str(mark.num_children),
            f"{1000 * mark.seconds:.0f}",
            f"{mark.disk:.1f}",
        )
        for mark in marks
    ]
    return table_of(names, rows)


def growth(marks: Sequence[Mark], metrics: Path) -> str:
    """Return how the last mark differs from the first one, in words."""
    first, last = marks[0], marks[-1]
    kilobytes = 1024 * (last.resident - first.resident) / (last.step - first.step)
    rows = [float(row["step_seconds"] or 0) for row in read_metrics(metrics)]
    early, late = (sorted(part)[len(part) // 2] for part in (rows[: first.step], rows[-first.step :]))
    return (
        f"From step {first.step:,} to {last.step:,}: memory × {last.resident / first.resident:.3f} "
        f"({kilobytes:+.2f} kB a step), open files {last.num_files - first.num_files:+d}, threads "
        f"{last.num_threads - first.num_threads:+d}. Median step of the first {first.step} and the last: "
        f"{1000 * early:.1f} and {1000 * late:.1f} ms, × {late / early:.3f}."
    )


if __name__ == "__main__":
    main()
