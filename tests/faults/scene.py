"""Where faults are done: the undisturbed runs, a working directory for each fault, and the way back after it."""

import hashlib
import random
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klimb.training import read_metrics
from klimb.training.run_folder import is_run
from tests.faults.judge import differences
from tests.faults.nursery import Ended, Nursery
from tests.faults.promises import Verdict
from tests.faults.shapes import SHAPES, Stage, begin
from tests.tiny_model import save_tiny_model

MOST_ATTEMPTS = 4
"""To come back after a fault; a run that needs more does not come back."""


@dataclass(frozen=True)
class Fault:
    """Something that is done to a run.

    Attributes:
        kind: name of its row in `promises`.
        detail: where and when, in words.
        shape: of the run.
        seed: of whatever is random in it.
        given: what the doer of its kind needs besides.
    """

    kind: str
    detail: str
    shape: str
    seed: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        verdict: as `promises` says.
        note: why, where it is lost; what was said, where it was refused.
    """

    verdict: Verdict
    note: str = ""


class Scene:
    """The undisturbed run of each shape, and a nursery for the others."""

    def __init__(self, stage: Stage, nursery: Nursery, straight: Mapping[str, "Straight"]) -> None:
        self.stage = stage
        self.nursery = nursery
        self.straight = straight
        self._count = 0
        self._torn: dict[str, Path] = {}

    @contextmanager
    def place(self, shape: str) -> Iterator[Path]:
        """Lend a working directory for a run of this shape."""
        self._count += 1
        place = self.stage.path / "places" / f"{id(self):x}-{self._count}"
        self.stage.furnish(place, shape)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def begin(self, place: Path, shape: str, fault: Mapping[str, Any] | None = None) -> Ended:
        """Run it from its beginning; the fault goes wrong inside."""
        return self.nursery.run(*begin(shape), cwd=place, fault=None if fault is None else dict(fault))

    def go_on(self, place: Path, shape: str, fault: Mapping[str, Any] | None = None) -> Ended:
        """Resume the run that is there; begin it where none is."""
        run = newest_run(place)
        if run is None or not is_run(run):
            return self.begin(place, shape, fault)
        arguments = ("train", "--resume", str(run.relative_to(place)))
        return self.nursery.run(*arguments, cwd=place, fault=None if fault is None else dict(fault))

    def tear(self, place: Path, shape: str) -> None:
        """Put a run there that was killed after its fifth step; its checkpoints are of steps 2 and 4."""
        if shape not in self._torn:
            kept = self.stage.path / "torn" / f"{id(self):x}-{shape}"
            self.stage.furnish(kept, shape)
            fault = {"kind": "kill", "point": "metrics line", "when": "after", "step": 5, "mark": str(kept / "mark")}
            ended = self.begin(kept, shape, fault)
            if ended.status != -signal.SIGKILL:
                raise ChildProcessError(f"the run of shape {shape} was to be killed: {in_short(ended)}")
            self._torn[shape] = kept / "runs"
        shutil.copytree(self._torn[shape], place / "runs")

    def finish(self, place: Path, shape: str) -> None:
        """Put a finished run there."""
        shutil.copytree(self.straight[shape].run, place / "runs" / "run")

    def judge(self, place: Path, shape: str) -> Outcome:
        """Go on until the run is finished, and compare it."""
        ended = self.go_on(place, shape)
        if ended.status != 0:
            return Outcome("LOST", f"it does not come back: {in_short(ended)}")
        return self.compare(place, shape)

    def compare(self, place: Path, shape: str) -> Outcome:
        """Compare the finished run with the undisturbed one."""
        run = newest_run(place)
        if run is None:
            return Outcome("LOST", "there is no run")
        found = differences(self.straight[shape].run, run)
        return Outcome("LOST", "; ".join(found)[:600]) if found else Outcome("survived")


@dataclass(frozen=True)
class Straight:
    """A run that nothing happened to.

    Attributes:
        run: its folder.
        seconds: that it took, from its process's beginning to its end.
    """

    run: Path
    seconds: float


def newest_run(place: Path) -> Path | None:
    """Return the folder of the run that was begun last in this working directory."""
    found = sorted((place / "runs").glob("run*"), key=lambda path: (len(path.name), path.name))
    return found[-1] if found else None


def in_short(ended: Ended) -> str:
    """Return how a command ended, in one line."""
    said = " ".join((ended.err.strip() or ended.out.strip())[-400:].split())
    return f"{describe_status(ended.status)}: {said}"


def describe_status(status: int | None) -> str:
    """Return an exit status in words."""
    if status is None:
        return "it hung"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def complete_steps(run: Path) -> int:
    """Return how many steps are in the metrics."""
    path = run / "metrics.jsonl"
    return len(read_metrics(path)) if path.exists() else 0


def saved_step(run: Path) -> int:
    """Return the step of the newest checkpoint; 0 where there is none."""
    steps = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    return max(steps, default=0)


def fingerprint(run: Path) -> dict[str, str]:
    """Return the hash of each file of what a run has recorded; that of the lock does not count."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def set_up(path: Path, shapes: list[str], *, num_steps: int, num_nurseries: int = 1) -> list[Scene]:
    """Make the tiny model and the undisturbed runs; one scene for each process that does faults."""
    stage = Stage(path, num_steps)
    path.mkdir(parents=True, exist_ok=True)
    save_tiny_model(stage.model)
    nurseries = [Nursery(path / f"scratch-{number}") for number in range(num_nurseries)]
    straight: dict[str, Straight] = {}
    for shape in dict.fromkeys(["plain", *shapes]):
        straight[shape] = _run_straight(stage, nurseries, shape)
        if shape == "plain":
            shutil.copytree(straight[shape].run / "rollouts", stage.log)
    return [Scene(stage, nursery, straight) for nursery in nurseries]


def _run_straight(stage: Stage, nurseries: list[Nursery], shape: str) -> Straight:
    """Run it twice: what the first imports is there for all later ones, and the second must be the same."""
    runs = []
    for number in range(2):
        place = stage.path / "straight" / f"{shape}-{number}"
        stage.furnish(place, shape)
        for nursery in nurseries[:1] if number else nurseries:
            shutil.rmtree(place / "runs", ignore_errors=True)
            arguments = begin(shape)
            ended = nursery.run(*arguments, cwd=place) if number else nursery.learn_imports(*arguments, cwd=place)
            if ended.status != 0:
                raise ChildProcessError(f"the undisturbed run of shape {shape} failed: {in_short(ended)}")
        runs.append(place / "runs" / "run")
    found = differences(*runs)
    if found:
        raise AssertionError(f"two undisturbed runs of shape {shape} differ: {found}")
    return Straight(runs[1], ended.seconds)


def pick_shape(generator: random.Random, *, slow: float = 0.05) -> str:
    """Draw a shape; slow ones come seldom."""
    names = list(SHAPES)
    return generator.choices(names, [slow if SHAPES[name].is_slow else 1.0 for name in names])[0]
