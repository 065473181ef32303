"""Two processes that take turns: a line `go` starts one step, a line of JSON ends it. Only one works at a time."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Stopwatch, busy_seconds, foreign_cores, peak_gib
from benchmarks.workload import Phases

LOG_LINES = 30
END_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step of one side.

    Attributes:
        cpu_seconds: of this side's process, all its threads.
        num_tokens_sampled: response tokens drawn.
        num_tokens_trained: response tokens trained on, once for each epoch.
        peak_gib: largest resident memory of the process so far.
        foreign_cores: that other processes kept busy meanwhile; nan until the parent knows.
    """

    sample_seconds: float
    score_seconds: float
    update_seconds: float
    cpu_seconds: float
    num_tokens_sampled: int
    num_tokens_trained: int
    reward_mean: float
    peak_gib: float
    foreign_cores: float = float("nan")

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.sample_seconds + self.score_seconds + self.update_seconds


class Turn:
    """A side's end of the line: waits for its turn, reports what it did.

    What libraries print goes to the error stream, so that it doesn't come between the lines.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._watch = Stopwatch()

    def announce(self, **facts: Any) -> None:
        """Says that all is loaded, and with which settings."""
        print(json.dumps(facts), file=self._out)

    def wait(self) -> None:
        """Return at the start of the next step.

        Raises:
            SystemExit: there is none.
        """
        if sys.stdin.readline().strip() != "go":
            raise SystemExit(0)
        self._watch = Stopwatch()

    def elapsed(self) -> float:
        """Wall seconds since the turn began."""
        return self._watch.stop().seconds

    def report(
        self, phases: Phases, *, num_tokens_sampled: float, num_tokens_trained: float, reward_mean: float
    ) -> None:
        """End the turn."""
        record = StepRecord(
            sample_seconds=phases.sample,
            score_seconds=phases.score,
            update_seconds=phases.update,
            cpu_seconds=self._watch.stop().cpu_seconds,
            num_tokens_sampled=round(num_tokens_sampled),
            num_tokens_trained=round(num_tokens_trained),
            reward_mean=reward_mean,
            peak_gib=peak_gib(),
        )
        print(json.dumps(dataclasses.asdict(record)), file=self._out)


class SideError(RuntimeError):
    """A side's process ended before its turn did."""


class Side:
    """A process that lives for the whole benchmark, as its parent sees it; a context manager.

    Args:
        name: of the side.
        module: what it runs.
        arguments: what that is told.
        folder: another checkout, whose code it runs; this one if None.

    Attributes:
        facts: what it announced.
    """

    def __init__(self, name: str, module: str, *arguments: str, folder: Path | None = None) -> None:
        self.name = name
        paths = [] if folder is None else [str(folder / "src"), str(folder)]
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed on leaving
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=os.environ | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.facts: Mapping[str, Any] = self._answer()

    def step(self) -> StepRecord:
        """One step of this side, alone on the machine but for foreign processes."""
        busy, start = busy_seconds(), time.perf_counter()
        self._tell("go")
        record = StepRecord(**self._answer())
        seconds, used = time.perf_counter() - start, busy_seconds() - busy
        return dataclasses.replace(record, foreign_cores=foreign_cores(used, record.cpu_seconds, seconds))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-LOG_LINES:])
        raise SideError(f"{self.name} ended with {self._process.returncode}; the end of what it said:\n{tail}")

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=END_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
