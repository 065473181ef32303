"""The named points of a run, and what goes wrong there. Armed inside the forked process, before its command begins."""

import contextlib
import errno
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "after"]

ERRORS: Mapping[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("injected: something broke"),
    "ValueError": lambda: ValueError("injected: a wrong value"),
    "KeyError": lambda: KeyError("injected"),
    "OSError": lambda: OSError(errno.EIO, "injected: input/output error"),
}
"""What is raised, by name."""


@dataclass(frozen=True)
class Point:
    """A place in the code.

    Attributes:
        place: `module:name`, `module:Class.name`; or `rename:ENDING`, a file or folder that is moved into place.
        is_in_steps: it is passed in every step, or in those that are even.
    """

    place: str
    is_in_steps: bool = True


POINTS: Mapping[str, Point] = {
    "reference update": Point("klimb.training.reference_rules:Reference.follow"),
    "sampling": Point("klimb.training.iteration:next_batch"),
    "decoding": Point("klimb.samplers.local:LocalSampler.stream"),
    "scoring": Point("klimb.tasks.scorer:Scorer.score_many"),
    "advantages": Point("klimb.training.iteration:assign_advantages"),
    "backward": Point("torch:Tensor.backward"),
    "optimiser step": Point("klimb.training.optimizers:Optimizer.step"),
    "evaluation": Point("klimb.training.loop:evaluate_and_record"),
    "rollouts": Point("klimb.training.iteration:write_samples"),
    "rename of the rollouts": Point("rename:.parquet"),
    "guard": Point("klimb.training.loop:guard_step"),
    "metrics line": Point("klimb.training.metrics:MetricsLog.write"),
    "callback": Point("klimb.workbench.run:StepRecorder.__call__"),
    "tracker": Point("klimb.workbench.loggers.tracker:AllTrackers.write"),
    "file of a checkpoint": Point("klimb.training.checkpoints:save_file"),
    "manifest of a checkpoint": Point("klimb.training.checkpoints:_sha256"),
    "rename of a checkpoint": Point("rename:checkpoints/step-"),
    "folder of the run": Point("klimb.workbench.provenance:provenance", is_in_steps=False),
    "provenance.json": Point("rename:provenance.json", is_in_steps=False),
    "config.json": Point("rename:config.json", is_in_steps=False),
    "identity.json": Point("rename:identity.json", is_in_steps=False),
    "evaluation before": Point("klimb.workbench.run:_measure_before", is_in_steps=False),
    "model": Point("klimb.policies.policy:Policy.save", is_in_steps=False),
    "curves": Point("klimb.workbench.run:plot_curves", is_in_steps=False),
    "summary": Point("rename:summary.json", is_in_steps=False),
    "report": Point("klimb.workbench.run:report_at_the_end", is_in_steps=False),
}


class Steps:
    """Which step of the loop the process is in."""

    def __init__(self) -> None:
        self.now = 0


def arm(fault: Mapping[str, Any]) -> None:
    """Prepare this process for its fault.

    Args:
        fault: `kind` and what it needs: `kill`, `raise` (point, when, step, error), `half line` (step),
            `clock` (seconds, at), `file size` (bytes), `deaf`.
    """
    KINDS[fault["kind"]](fault)


def _arm_point(fault: Mapping[str, Any]) -> None:
    point = POINTS[fault["point"]]
    steps = _count_steps()
    act = _kill if fault["kind"] == "kill" else _raising(fault["error"])
    is_done: list[bool] = []

    def fire(when: When) -> None:
        if when == fault["when"] and not is_done and (not point.is_in_steps or steps.now == fault["step"]):
            is_done.append(True)
            Path(fault["mark"]).touch()
            act()

    kind, _, what = point.place.partition(":")
    if kind == "rename":
        _watch_renames(what, fire)
    else:
        _wrap(kind, what, fire)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raising(name: str) -> Callable[[], None]:
    def act() -> None:
        raise ERRORS[name]()

    return act


def _count_steps() -> Steps:
    steps = Steps()
    owner, name, iterate = _found("klimb.training.loop", "iterate")

    @functools.wraps(iterate)
    def counted(state: Any, *arguments: Any, **named: Any) -> Any:
        steps.now = state.step + 1
        return iterate(state, *arguments, **named)

    setattr(owner, name, counted)
    return steps


def _found(module: str, dotted: str) -> tuple[Any, str, Any]:
    """Return who has the name, the name, and what it is."""
    owner: Any = import_module(module)
    *path, name = dotted.split(".")
    for each in path:
        owner = getattr(owner, each)
    return owner, name, getattr(owner, name)


def _wrap(module: str, dotted: str, fire: Callable[[When], None]) -> None:
    owner, name, function = _found(module, dotted)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        fire("before")
        result = function(*arguments, **named)
        fire("after")
        return result

    setattr(owner, name, wrapped)


def _watch_renames(ending: str, fire: Callable[[When], None]) -> None:
    """Fire around each rename whose target has this in its path; the model's config.json is not the run's."""

    def is_meant(target: Any) -> bool:
        path = str(target)
        return ending in path and "/model/" not in path and ".tmp-" not in path.rpartition("/")[2]

    for name in ("rename", "replace"):
        rename = getattr(os, name)

        def renamed(source: Any, target: Any, *more: Any, rename: Any = rename, **named: Any) -> None:
            if not is_meant(target):
                rename(source, target, *more, **named)
                return
            fire("before")
            rename(source, target, *more, **named)
            fire("after")

        setattr(os, name, renamed)


def _arm_half_line(fault: Mapping[str, Any]) -> None:
    """Die when half of a line of metrics.jsonl is written."""
    owner, name, write = _found("klimb.training.metrics", "MetricsLog.write")

    def half(log: Any, metrics: Mapping[str, float]) -> None:
        path = Path(log._path)
        before = path.stat().st_size
        write(log, metrics)
        if metrics["step"] == fault["step"]:
            Path(fault["mark"]).touch()
            os.truncate(path, before + (path.stat().st_size - before) // 2)
            _kill()

    setattr(owner, name, half)


def _arm_clock(fault: Mapping[str, Any]) -> None:
    """Let the clock of the wall jump by so many seconds, once a step has begun."""
    steps, real = _count_steps(), time.time
    real_ns = time.time_ns

    def jump() -> float:
        return fault["seconds"] if steps.now >= fault["step"] else 0.0

    time.time = lambda: real() + jump()
    time.time_ns = lambda: real_ns() + int(jump() * 1e9)


def _arm_file_size(fault: Mapping[str, Any]) -> None:
    """Refuse all writing beyond so many bytes of a file, as a full disk would, in whatever language it is done."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], resource.RLIM_INFINITY))


def _arm_nothing(fault: Mapping[str, Any]) -> None:
    """Leave the process as it is."""


KINDS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "kill": _arm_point,
    "raise": _arm_point,
    "half line": _arm_half_line,
    "clock": _arm_clock,
    "file size": _arm_file_size,
    "none": _arm_nothing,
}


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Nothing yet."""
    yield
