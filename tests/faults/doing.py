"""How each kind of fault is done to a run, and what must come of it."""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.damage import hurt
from tests.faults.disk import small_disk
from tests.faults.judge import differences
from tests.faults.nursery import PATIENCE_SECONDS, Ended
from tests.faults.promises import PROMISES, Promise
from tests.faults.scene import (
    Fault,
    Outcome,
    Scene,
    complete_steps,
    fingerprint,
    in_short,
    newest_run,
    saved_step,
)
from tests.faults.shapes import begin

FAILED_SAVED, FAILED_UNSAVED = 3, 4
"""Exit statuses of a run that an error ended."""

MOST_LINES = 12
"""Of a refusal: a paragraph, and perhaps a list of settings. Warnings before it count."""


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
        complaint = "" if run is None else _complaint_of_end(ended, run, fault)
        outcome = scene.judge(place, fault.shape)
        return Outcome("LOST", complaint) if complaint and outcome.verdict == "survived" else outcome


def _complaint_of_end(ended: Ended, run: Path, fault: Fault) -> str:
    """Return what is wrong with how an exception ended a run, in words. Before its first step it may end anyhow."""
    if ended.status == 0 or (fault.given["part"] == "before" and ended.status in (1, 2)):
        return ""
    if ended.status not in (FAILED_SAVED, FAILED_UNSAVED):
        return f"an exception ended it with {in_short(ended)}"
    if "Traceback" in ended.text:
        return f"a traceback on the screen: {in_short(ended)}"
    # A step is complete when its line is written, and the writer has come back.
    num_complete = complete_steps(run) - (fault.given.get("point") == "metrics line")
    if ended.status == FAILED_SAVED and saved_step(run) < num_complete:
        return f"saved at step {saved_step(run)}, and {complete_steps(run)} steps were complete"
    return ""


def kill_in_file(scene: Scene, fault: Fault) -> Outcome:
    """SIGKILL when half of a file is written, in the first process of a run or in a resume of it."""
    with scene.place(fault.shape) as place:
        if fault.given["is_resumed"]:
            scene.tear(place, fault.shape)
            mark = place / "reached"
            scene.go_on(place, fault.shape, {**fault.given, "mark": str(mark)})
            if not mark.exists():
                return Outcome("LOST", "the fault was not reached")
        else:
            ended = _do_inside(scene, place, fault, fault.given)
            if isinstance(ended, Outcome):
                return ended
        return scene.judge(place, fault.shape)


def damage(scene: Scene, fault: Fault) -> Outcome:
    """Damage files of a run that was killed, or that is finished; then resume."""
    promise = PROMISES[fault.kind]
    assert promise.harm is not None
    with scene.place(fault.shape) as place:
        if promise.harm.when == "killed":
            scene.tear(place, fault.shape)
        else:
            scene.finish(place, fault.shape)
        run = place / "runs" / "run"
        said = hurt(run, promise.harm.pattern, fault.given["damage"], random.Random(fault.seed))
        before = fingerprint(run)
        ended = scene.go_on(place, fault.shape)
        outcome = _judge_damage(scene, place, fault.shape, ended, before, promise)
        return Outcome(outcome.verdict, f"{said}: {outcome.note}") if outcome.note else outcome


def _judge_damage(
    scene: Scene, place: Path, shape: str, ended: Ended, before: Mapping[str, str], promise: Promise
) -> Outcome:
    assert promise.harm is not None
    run = place / "runs" / "run"
    if ended.status == 2:
        return _judge_refusal(ended, promise.words, is_changed=fingerprint(run) != before)
    if ended.status != 0:
        return Outcome("LOST", in_short(ended))
    found = differences(scene.straight[shape].run, newest_run(place) or run)
    record = promise.harm.pattern.partition("/")[0].partition(".")[0]
    if not found:
        return Outcome("survived")
    if not all(record in each for each in found):
        return Outcome("LOST", "; ".join(found)[:600])
    is_said = bool(promise.words) and matches(promise.words, ended.text)
    return Outcome("told" if is_said else "unseen", "; ".join(found)[:300])


def _judge_refusal(ended: Ended, words: str, *, is_changed: bool) -> Outcome:
    said = in_short(ended)
    if "Traceback" in ended.text or len(ended.err.strip().splitlines()) > MOST_LINES:
        return Outcome("LOST", f"a refusal that is not one paragraph: {said}")
    if not matches(words, ended.err):
        return Outcome("LOST", f"refused in other words than stated: {said}")
    return Outcome("LOST", f"refused, but files were changed: {said}") if is_changed else Outcome("refused", said)


def fill_disk(scene: Scene, fault: Fault) -> Outcome:
    """A disk with room for a part of the run; then there is room."""
    with scene.place(fault.shape) as place, small_disk(place / "runs", fault.given["kilobytes"]) as enlarge:
        ended = scene.begin(place, fault.shape)
        enlarge()
        return _judge_trouble(scene, place, fault, ended)


def limit_files(scene: Scene, fault: Fault) -> Outcome:
    """A limit on the size of each file, in the first process of the run."""
    with scene.place(fault.shape) as place:
        ended = scene.begin(place, fault.shape, {"kind": "file size", "bytes": fault.given["bytes"]})
        return _judge_trouble(scene, place, fault, ended)


def lock_folder(scene: Scene, fault: Fault) -> Outcome:
    """Folders that become read-only when a step begins, and are writable again for the resume."""
    with scene.place(fault.shape) as place:
        ended = scene.begin(place, fault.shape, {"kind": "read-only", "step": fault.given["step"]})
        for path in [place / "runs", *(path for path in (place / "runs").rglob("*") if path.is_dir())]:
            path.chmod(0o755)
        return _judge_trouble(scene, place, fault, ended)


def _judge_trouble(scene: Scene, place: Path, fault: Fault, ended: Ended) -> Outcome:
    """A run that could not write: it ends in one paragraph, never as if it were finished, and comes back."""
    outcome = scene.judge(place, fault.shape)
    if ended.status not in (0, 2, FAILED_SAVED, FAILED_UNSAVED):
        return Outcome("LOST", f"it ended with {in_short(ended)}; then {outcome.verdict} {outcome.note}")
    if "Traceback" in ended.text:
        return Outcome("LOST", f"a traceback on the screen: {in_short(ended)}")
    return outcome


def turn_clock(scene: Scene, fault: Fault) -> Outcome:
    """The clock of the wall jumps while the run goes on."""
    with scene.place(fault.shape) as place:
        ended = scene.begin(place, fault.shape, {"kind": "clock", **fault.given})
        return scene.compare(place, fault.shape) if ended.status == 0 else Outcome("LOST", in_short(ended))


def start_beside(scene: Scene, fault: Fault) -> Outcome:
    """A second process resumes the run that goes on."""
    with scene.place(fault.shape) as place:
        first = scene.nursery.start(*begin(fault.shape), cwd=place)
        lock = place / "runs" / "run" / "lock"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (lock.exists() and lock.read_text()) and time.monotonic() < deadline:
            time.sleep(0.005)
        # Stopped, so that it is not finished before the other has loaded its model.
        os.kill(first.pid, signal.SIGSTOP)
        second = scene.nursery.run("train", "--resume", "runs/run", cwd=place)
        os.kill(first.pid, signal.SIGCONT)
        ended = scene.nursery.wait(first)
        if second.status != 2:
            return Outcome("LOST", f"the second was not refused: {in_short(second)}")
        outcome = scene.compare(place, fault.shape) if ended.status == 0 else Outcome("LOST", in_short(ended))
        refusal = _judge_refusal(second, PROMISES[fault.kind].words, is_changed=False)
        return refusal if outcome.verdict == "survived" else outcome


def start_together(scene: Scene, fault: Fault) -> Outcome:
    """Two runs begin with one name at the same moment."""
    with scene.place(fault.shape) as place:
        started = [scene.nursery.start(*begin(fault.shape), cwd=place) for _ in range(2)]
        for ended in [scene.nursery.wait(each) for each in started]:
            if ended.status != 0:
                return Outcome("LOST", in_short(ended))
        found = [differences(scene.straight[fault.shape].run, place / "runs" / name) for name in ("run", "run-2")]
        return Outcome("LOST", "; ".join(map(str, found))[:600]) if any(found) else Outcome("survived")


def send_signals(scene: Scene, fault: Fault) -> Outcome:
    """One signal at a random moment, or a second one soon after it."""
    generator, number = random.Random(fault.seed), fault.given["signal"]
    with scene.place(fault.shape) as place:
        started = scene.nursery.start(*begin(fault.shape), cwd=place)
        time.sleep(generator.uniform(0, scene.straight[fault.shape].seconds))
        os.kill(started.pid, number)
        if fault.given["is_twice"]:
            time.sleep(generator.uniform(0, 0.3))
            os.kill(started.pid, number)
        ended = scene.nursery.wait(started)
        if ended.status not in (0, 128 + number, -number):
            return Outcome("LOST", f"after {signal.Signals(number).name}: {in_short(ended)}")
        run = newest_run(place)
        if run is not None and ended.status == 128 + number and saved_step(run) < complete_steps(run):
            return Outcome("LOST", f"saved at step {saved_step(run)}, {complete_steps(run)} were complete")
        return scene.judge(place, fault.shape)


def close_output(scene: Scene, fault: Fault) -> Outcome:
    """Standard output is a pipe that nobody reads."""
    with scene.place(fault.shape) as place:
        ended = scene.nursery.run(*begin(fault.shape), cwd=place, is_deaf=True)
        outcome = scene.judge(place, fault.shape)
        if outcome.verdict == "survived" and ended.status != 0:
            return Outcome("LOST", f"it ended with {in_short(ended)}")
        return outcome


Doer = Callable[[Scene, Fault], Outcome]

DOERS: Mapping[str, Doer] = {
    "kill at a random moment": kill_at_moments,
    "kill at a named point": kill_at_point,
    "kill in the middle of a file": kill_in_file,
    "exception at a named point": raise_at_point,
    "full disk": fill_disk,
    "limit on the size of files": limit_files,
    "read-only folder": lock_folder,
    "clock jumps": turn_clock,
    "two processes on one folder": start_beside,
    "two starts with one name": start_together,
    "signal at a random moment": send_signals,
    "second signal at a random moment": send_signals,
    "closed standard output": close_output,
    **{kind: damage for kind, promise in PROMISES.items() if promise.harm is not None},
}


def do(scene: Scene, fault: Fault) -> Outcome:
    """Do it, and say what came of it: what is not promised is lost."""
    outcome = DOERS[fault.kind](scene, fault)
    if outcome.verdict in PROMISES[fault.kind].verdicts or outcome.verdict == "LOST":
        return outcome
    return Outcome("LOST", f"{outcome.verdict}, which is not promised: {outcome.note}")


def matches(pattern: str, text: str) -> bool:
    """Tell whether a message has these words, wherever its lines were broken."""
    return re.search(pattern, " ".join(text.split())) is not None
