"""How long a command takes to answer, and with how much memory: help, lists, and what users get wrong.

    python -m benchmarks.startup                        # the klimb that this Python imports
    python -m benchmarks.startup --before ../before     # beside the checkout of an earlier state

Each answer is a process of its own, started as `klimb` is. States take turns, so that both meet the same machine.
Seconds are the best of the rounds, since what others do only adds to them: by the wall clock, and of this process's
CPU, which a busy machine disturbs less. Memory is the peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PROGRAM = "from klimb.workbench.cli import main; main()"

FILES = {"run.toml": "[objective]\nbeta = 0.1\n", "misspelt.toml": "[objective]\nbta = 0.1\n"}
"""What lies in the folder where the commands are run."""

COMMANDS: Sequence[tuple[str, ...]] = (
    ("--version",),
    ("--help",),
    ("train", "--help"),
    ("trian", "run.toml"),
    ("train", "run.toml", "--resme", "x"),
    ("train", "nothing.toml"),
    ("train", "misspelt.toml"),
    ("train", "run.toml", "--set", "objective.recipe=grop"),
    ("audit", "nothing"),
    ("import", "nothing.jsonl", "--into", "x"),
    ("report", "nothing"),
    ("recipes",),
    ("recipes", "show", "grpo"),
    ("config", "objective.beta"),
    ("compare",),
)

MEBIBYTE = 2**20
BYTES_OF_PEAK = 1 if sys.platform == "darwin" else 1024
"""What one of `ru_maxrss` is."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    mebibytes: float
    status: int


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="an earlier state's checkout, measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    states: dict[str, Path | None] = {"now": None}
    if arguments.before is not None:
        states = {"before": arguments.before / "src", "now": None}
    print(f"{'':<52}" + "".join(f"{name:>8}: s   CPU s    MiB" for name in states), flush=True)
    found = {}
    for command in COMMANDS:
        answers = measure(command, states, num_rounds=arguments.rounds)
        print(_line(command, answers), flush=True)
        found[" ".join(command)] = {name: asdict(answer) for name, answer in answers.items()}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(command: Sequence[str], states: Mapping[str, Path | None], *, num_rounds: int) -> Mapping[str, Answer]:
    """Return each state's best: its smallest seconds, CPU seconds and peak over the rounds.

    Args:
        command: what is typed behind `klimb`.
        states: name -> the folder that klimb is imported from; None leaves it to Python.
        num_rounds: how often; the first, which fills the file cache, counts only if it is the best.
    """
    rounds = [{name: run_once(command, source) for name, source in states.items()} for _ in range(num_rounds)]
    return {name: _best([answers[name] for answers in rounds]) for name in states}


def run_once(command: Sequence[str], source: Path | None) -> Answer:
    """Run one command in a new process and a new folder."""
    environment = dict(os.environ)
    if source is not None:
        environment["PYTHONPATH"] = str(source.absolute())
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Answer(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        mebibytes=usage.ru_maxrss * BYTES_OF_PEAK / MEBIBYTE,
        status=process.returncode,
    )


def _best(answers: Sequence[Answer]) -> Answer:
    return Answer(
        seconds=min(answer.seconds for answer in answers),
        cpu_seconds=min(answer.cpu_seconds for answer in answers),
        mebibytes=min(answer.mebibytes for answer in answers),
        status=answers[-1].status,
    )


def _line(command: Sequence[str], answers: Mapping[str, Answer]) -> str:
    cells = (
        f"{answer.seconds:>11.2f}{answer.cpu_seconds:>8.2f}{answer.mebibytes:>7.0f}" for answer in answers.values()
    )
    return f"klimb {' '.join(command):<46}" + "".join(cells)


if __name__ == "__main__":
    main()
