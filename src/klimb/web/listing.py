"""Which runs and studies lie beneath a folder, and how each of them stands."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from klimb.web.files import Facts, Glance, is_alive, read_facts, read_glance

Status = Literal["running", "finished", "failed", "stopped"]


DEEPEST = 10


MOST_FOLDERS = 50_000
"""Folders that one look visits: whoever serves a whole disk gets an answer, and is told that it is not complete."""


SHARE_OF_TIME = 0.05
"""Of the server's time that looking may take; a large folder is looked through less often."""


SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "locks"})


QUIET_SECONDS = 120.0
"""After which a run that writes nothing is taken as stopped, where its lock cannot tell."""


QUIET_STEPS = 10
"""The same in steps of the run, for runs whose steps are long."""


_FILES = (
    "config.json",
    "ending.json",
    "evaluations.jsonl",
    "lock",
    "metrics.jsonl",
    "provenance.json",
    "report.html",
    "status.json",
    "study.json",
    "summary.json",
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One line of the list.

    Attributes:
        id: the folder, relative to the one that is served; `.` is that itself.
        size: bytes of metrics.jsonl and of evaluations.jsonl: when they change there is something to read.
        step: the last one written; None before the first.
        num_steps: as configured.
        reward: `reward_mean` of the last step.
        started: as provenance.json says.
        report: path of the report beneath the folder; empty without one.
        ending: why its last process ended without finishing it; empty where it goes on, and where nobody knows.
    """

    id: str
    status: Status
    size: tuple[int, int]
    step: int | None
    num_steps: int | None
    reward: float | None
    recipe: str
    task: str
    seed: int | None
    started: str
    report: str
    ending: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: its folder, and the path of its report beneath the served folder; empty without one."""

    id: str
    report: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What one look found: `is_cut` if there were more folders than one look visits."""

    runs: tuple[Run, ...] = ()
    studies: tuple[Study, ...] = ()
    is_cut: bool = False

    def as_json(self) -> dict[str, Any]:
        """As the page gets it."""
        return asdict(self)


Stats = dict[str, os.stat_result]


@dataclass
class Watcher:
    """Looks through the folder, at most once per `seconds` (0: at every question), and remembers what is as it was."""

    root: Path
    seconds: float = 1.0
    _facts: dict[str, tuple[tuple[Any, ...], Facts]] = field(default_factory=dict)
    _glances: dict[str, tuple[tuple[Any, ...], Glance]] = field(default_factory=dict)
    _last: Listing = Listing()
    _next_look: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def listing(self) -> Listing:
        """Return the runs and studies there are now, or were a moment ago."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._next_look:
                self._last = self._look()
                now = time.monotonic()
                pause = max(self.seconds, (now - begun) / SHARE_OF_TIME) if self.seconds else 0.0
                self._next_look = now + pause
            return self._last

    def _look(self) -> Listing:
        runs: list[Run] = []
        studies: list[Study] = []
        num_folders = 0
        for folder, files in _walk(self.root):
            num_folders += 1
            if num_folders > MOST_FOLDERS:
                break
            if "provenance.json" in files:
                runs.append(self._run(folder, files))
            elif "study.json" in files:
                studies.append(Study(id=folder, report=_report(folder, files)))
        known = {run.id for run in runs}
        for remembered in (self._facts, self._glances):
            for gone in remembered.keys() - known:
                del remembered[gone]
        return Listing(
            runs=tuple(sorted(runs, key=lambda run: (run.started, run.id), reverse=True)),
            studies=tuple(sorted(studies, key=lambda study: study.id)),
            is_cut=num_folders > MOST_FOLDERS,
        )

    def _run(self, folder: str, files: Stats) -> Run:
        facts = self._known_facts(folder, files)
        glance = self._known_glance(folder, files)
        return Run(
            id=folder,
            status=_status(self.root, folder, files, facts, glance),
            size=(_size(files, "metrics.jsonl"), _size(files, "evaluations.jsonl")),
            step=glance.step,
            num_steps=facts.num_steps,
            reward=glance.reward,
            recipe=facts.recipe,
            task=facts.task,
            seed=facts.seed,
            started=facts.started,
            report=_report(folder, files),
            ending=facts.ending,
        )

    def _known_facts(self, folder: str, files: Stats) -> Facts:
        stamp = _stamp(files, "config.json", "ending.json", "provenance.json", "status.json")
        if folder not in self._facts or self._facts[folder][0] != stamp:
            self._facts[folder] = (stamp, read_facts(self.root, folder))
        return self._facts[folder][1]

    def _known_glance(self, folder: str, files: Stats) -> Glance:
        stamp = _stamp(files, "metrics.jsonl")
        if folder not in self._glances or self._glances[folder][0] != stamp:
            self._glances[folder] = (stamp, read_glance(self.root, folder))
        return self._glances[folder][1]


def _walk(root: Path) -> Iterator[tuple[str, Stats]]:
    """Each folder that holds a run or a study, as a relative path with its known files; nothing below a run."""
    waiting = [(".", root, 0)]
    while waiting:
        name, path, depth = waiting.pop()
        files, folders = _look_into(path)
        yield name, files
        if "provenance.json" in files or depth == DEEPEST:
            continue
        for inner in folders:
            waiting.append((inner if name == "." else f"{name}/{inner}", path / inner, depth + 1))


def _look_into(path: Path) -> tuple[Stats, list[str]]:
    """Return the files that say something and the folders to visit; a folder that has just gone has neither."""
    files: Stats = {}
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name in _FILES:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(facts.st_mode):
                        files[entry.name] = facts
                elif _is_visited(entry):
                    folders.append(entry.name)
    except OSError:
        return files, []
    return files, folders


def _is_visited(entry: os.DirEntry[str]) -> bool:
    is_ours = not entry.name.startswith(".") and entry.name not in SKIPPED and entry.name.isprintable()
    return is_ours and entry.is_dir(follow_symlinks=False)


def _status(root: Path, folder: str, files: Stats, facts: Facts, glance: Glance) -> Status:
    written = ("metrics.jsonl", "evaluations.jsonl", "provenance.json", "ending.json")
    last_write = max(_time(files, name) for name in written)
    is_over = "summary.json" in files and _time(files, "summary.json") >= last_write
    if is_over:
        return "finished"
    alive = is_alive(root, folder) if _size(files, "lock") else None
    if alive is None:
        patience = max(QUIET_SECONDS, QUIET_STEPS * glance.step_seconds)
        # A file from the future is one written before the clock was set back, so it says nothing of now.
        alive = abs(time.time() - last_write) < patience and not (facts.has_failed or facts.ending)
    if alive:
        return "running"
    return "failed" if facts.has_failed else "finished" if "summary.json" in files else "stopped"


def _report(folder: str, files: Stats) -> str:
    if "report.html" not in files:
        return ""
    return "report.html" if folder == "." else f"{folder}/report.html"


def _stamp(files: Stats, *names: str) -> tuple[Any, ...]:
    return tuple((files[name].st_mtime_ns, files[name].st_size) if name in files else None for name in names)


def _size(files: Stats, name: str) -> int:
    return files[name].st_size if name in files else 0


def _time(files: Stats, name: str) -> float:
    return files[name].st_mtime if name in files else 0.0
