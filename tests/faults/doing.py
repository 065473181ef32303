"""How each kind of fault is done to a run, and what must come of it."""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.nursery import Ended
from tests.faults.scene import Fault, Outcome, Scene, complete_steps, in_short, newest_run, saved_step
from tests.faults.shapes import begin

FAILED_SAVED, FAILED_UNSAVED = 3, 4
"""Exit statuses of a run that an error ended."""


def kill_at_moments(scene: Scene, fault: Fault) -> Outcome:
    """SIGKILL at random moments of the run, several times in one run."""
    generator = random.Random(fault.seed)
    with scene.place(fault.shape) as place:
        for _ in range(fault.given["count"]):
            started = _start(scene, place, fault.shape)
            time.sleep(generator.uniform(0, scene.straight[fault.shape].seconds))
            os.kill(started.pid, signal.SIGKILL)  # a process that has ended by now waits to be reaped
            ended = scene.nursery.wait(started)
            if ended.status not in (0, -signal.SIGKILL):
                return Outcome("LOST", f"before it could be killed: {in_short(ended)}")
        return scene.judge(place, fault.shape)


def _start(scene: Scene, place: Path, shape: str, fault: dict[str, Any] | None = None) -> Any:
    run = newest_run(place)
    is_there = run is not None and (run / "provenance.json").exists()
    arguments = ("train", "--resume", str(run.relative_to(place))) if run is not None and is_there else begin(shape)
    return scene.nursery.start(*arguments, cwd=place, fault=fault)


def _do_inside(scene: Scene, place: Path, fault: Fault, inside: Mapping[str, Any]) -> Ended | Outcome:
    """Run with a fault inside; an outcome if it was not reached, and so nothing was tested."""
    mark = place / "reached"
    ended = scene.begin(place, fault.shape, {**inside, "mark": str(mark)})
    if not mark.exists():
        return Outcome("LOST", f"the fault was not reached: {in_short(ended)}")
    mark.unlink()
    return ended


def kill_at_point(scene: Scene, fault: Fault) -> Outcome:
    """SIGKILL at a named point."""
    with scene.place(fault.shape) as place:
        ended = _do_inside(scene, place, fault, fault.given)
        return ended if isinstance(ended, Outcome) else scene.judge(place, fault.shape)


def raise_at_point(scene: Scene, fault: Fault) -> Outcome:
    """An exception at a named point: one line, a status of its own, the last complete step saved."""
    with scene.place(fault.shape) as place:
        ended = _do_inside(scene, place, fault, fault.given)
        if isinstance(ended, Outcome):
            return ended
        run = newest_run(place)
        complaint = "" if run is None else _complaint_of_end(ended, run, is_in_steps=fault.given["is_in_steps"])
        outcome = scene.judge(place, fault.shape)
        return Outcome("LOST", complaint) if complaint and outcome.verdict == "survived" else outcome


def _complaint_of_end(ended: Ended, run: Path, *, is_in_steps: bool) -> str:
    """Return what is wrong with how an exception ended a run, in words."""
    if ended.status == 0:
        return ""
    if ended.status not in (FAILED_SAVED, FAILED_UNSAVED) if is_in_steps else ended.status not in (2, 3, 4):
        return f"an exception ended it with {in_short(ended)}"
    if "Traceback" in ended.text:
        return f"a traceback on the screen: {in_short(ended)}"
    if is_in_steps and ended.status == FAILED_SAVED and saved_step(run) < complete_steps(run):
        return f"saved at step {saved_step(run)}, and {complete_steps(run)} steps were complete"
    return ""


Doer = Callable[[Scene, Fault], Outcome]

DOERS: Mapping[str, Doer] = {
    "kill at a random moment": kill_at_moments,
    "kill at a named point": kill_at_point,
    "half a line of metrics": kill_at_point,
    "exception at a named point": raise_at_point,
}


def do(scene: Scene, fault: Fault) -> Outcome:
    """Do it, and say what came of it; what breaks the doing itself is no verdict on the run."""
    return DOERS[fault.kind](scene, fault)


def matches(pattern: str, text: str) -> bool:
    """Tell whether a message has these words, wherever its lines were broken."""
    return re.search(pattern, " ".join(text.split())) is not None
