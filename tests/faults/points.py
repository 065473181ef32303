"""The named points of a run, and what goes wrong there. Armed inside the forked process, before its command begins."""

import builtins
import ctypes
import errno
import functools
import io
import os
import signal
import time
from collections.abc import Callable, Mapping
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
        part: `step`: it is passed in every step, or in those that are even; else in what comes before or after them.
    """

    place: str
    part: Literal["before", "step", "after"] = "step"


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
    "folder of the run": Point("klimb.workbench.provenance:provenance", part="before"),
    "provenance.json": Point("rename:provenance.json", part="before"),
    "config.json": Point("rename:config.json", part="before"),
    "identity.json": Point("rename:identity.json", part="before"),
    "evaluation before": Point("klimb.workbench.run:_measure_before", part="before"),
    "model": Point("klimb.policies.policy:Policy.save", part="after"),
    "curves": Point("klimb.workbench.run:plot_curves", part="after"),
    "summary": Point("rename:summary.json", part="after"),
    "report": Point("klimb.workbench.run:report_at_the_end", part="after"),
}


class Steps:
    """Which step of the loop the process is in."""

    def __init__(self) -> None:
        self.now = 0


def arm(fault: Mapping[str, Any]) -> None:
    """Prepare this process for its fault.

    Args:
        fault: `kind`, one of `KINDS`, and what it needs: `kill`, `raise` (point, when, step, error), `half file`
            (file, step), `clock` (seconds, step), `file size` (bytes), `read-only` (step).
    """
    KINDS[fault["kind"]](fault)


def _arm_point(fault: Mapping[str, Any]) -> None:
    point = POINTS[fault["point"]]
    steps = _count_steps()
    act = _kill if fault["kind"] == "kill" else _raising(fault["error"])
    is_done: list[bool] = []

    def fire(when: When) -> None:
        if when == fault["when"] and not is_done and (point.part != "step" or steps.now == fault["step"]):
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


def _arm_half_file(fault: Mapping[str, Any]) -> None:
    """Die when half of what goes into a file of this name is written; in this step, where one is given."""
    steps, real_open = _count_steps(), io.open

    def opened(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        file = real_open(path, mode, *more, **named)
        if set(mode) & set("wa+") and _is_record(str(path), fault["file"]):
            real_write = file.write

            def write(data: Any) -> int:
                if fault["step"] is None or steps.now == fault["step"]:
                    Path(fault["mark"]).touch()
                    real_write(data[: len(data) // 2])
                    file.flush()
                    _kill()
                return real_write(data)

            file.write = write
        return file

    io.open = builtins.open = opened


def _is_record(path: str, name: str) -> bool:
    """Tell whether a file, or one that is moved into its place, has this name; the model's config.json is not meant."""
    return name in path.rpartition("/")[2] and "/model/" not in path


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


def _arm_read_only(fault: Mapping[str, Any]) -> None:
    """Make all folders of the runs read-only when a step begins; 0: before anything is made."""
    if os.geteuid() == 0:
        _obey_permissions()
    if fault["step"] == 0:
        Path("runs").mkdir()
        Path("runs").chmod(0o555)
        return
    owner, name, iterate = _found("klimb.training.loop", "iterate")

    @functools.wraps(iterate)
    def closing(state: Any, *arguments: Any, **named: Any) -> Any:
        if state.step + 1 == fault["step"]:
            for path in [path for path in Path("runs").rglob("*") if path.is_dir()]:
                path.chmod(0o555)
        return iterate(state, *arguments, **named)

    setattr(owner, name, closing)


def _obey_permissions() -> None:
    """Give up the right of root to write where nobody may."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _arm_nothing(fault: Mapping[str, Any]) -> None:
    """Leave the process as it is."""


KINDS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "kill": _arm_point,
    "raise": _arm_point,
    "half file": _arm_half_file,
    "read-only": _arm_read_only,
    "clock": _arm_clock,
    "file size": _arm_file_size,
    "none": _arm_nothing,
}
