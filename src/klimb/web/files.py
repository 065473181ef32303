"""Files beneath a folder, opened so that no path from outside leads out of it: no `..`, no symbolic link on the way.

What a run's small files say about it, whatever state they are in.
"""

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.training.json_lines import Line, last_line
from klimb.training.locks import process_identity

MOST_PARTS = 32


def parts_of(relative: str) -> tuple[str, ...]:
    """Return the folder and file names of a relative path; `.` has none.

    Raises:
        ValueError: the path is absolute, or a part of it is hidden, empty, `..`, or holds a character that none of our
            files has.
    """
    if relative == ".":
        return ()
    parts = tuple(relative.split("/"))
    if len(parts) > MOST_PARTS or not all(_is_plain(part) for part in parts):
        raise ValueError(f"{relative[:200]!r} is not a path beneath the folder: use a name as the list of runs has it")
    return parts


def open_beneath(root: Path, parts: Sequence[str]) -> int:
    """Return a descriptor, for reading, of the regular file `root/part/…/part`.

    Raises:
        OSError: there is none, or a part of the path is a symbolic link.
    """
    with ExitStack() as stack:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        for part in parts[:-1]:
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            stack.callback(os.close, folder)
        # Without O_NONBLOCK a named pipe would hold the server until somebody writes into it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(parts[-1], flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{'/'.join(parts)} is not a file")
    return descriptor


def read_beneath(root: Path, parts: Sequence[str], *, limit: int) -> bytes | None:
    """Return the file's content up to `limit` bytes; None if it is not there or may not be read."""
    with suppress(OSError), os.fdopen(open_beneath(root, parts), "rb") as file:
        return file.read(limit)
    return None


def _is_plain(part: str) -> bool:
    is_named = bool(part) and not part.startswith(".") and len(part) <= 255
    return is_named and part.isprintable() and not set(part) & set("/\\:")


LARGEST_FILE_BYTES = 2_000_000


LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What does not change while a run goes on."""

    recipe: str = ""
    task: str = ""
    seed: int | None = None
    num_steps: int | None = None
    started: str = ""
    has_failed: bool = False
    ending: str = ""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """The last whole line of metrics.jsonl."""

    step: int | None = None
    reward: float | None = None
    step_seconds: float = 0.0


def read_facts(root: Path, folder: str) -> Facts:
    """From config.json, provenance.json, ending.json where a process did not finish it, and a study's status.json."""
    config = read_table(root, folder, "config.json")
    task = _table(config, "task")
    ending = read_table(root, folder, "ending.json")
    name = task.get("dataset") or task.get("path") or task.get("kind")
    return Facts(
        recipe=_text(_table(config, "objective").get("recipe")),
        task=_text(name).rpartition("/")[2],
        seed=_whole(config.get("seed")),
        num_steps=_whole(_table(config, "training").get("num_steps")),
        started=_text(read_table(root, folder, "provenance.json").get("started_at")),
        has_failed=ending.get("kind") == "error" or read_table(root, folder, "status.json").get("state") == "failed",
        ending=_text(ending.get("reason")),
    )


def read_glance(root: Path, folder: str) -> Glance:
    """From the end of metrics.jsonl; a last line that is half written is left out."""
    row: Line = {}
    with suppress(OSError), os.fdopen(open_beneath(root, (*parts_of(folder), "metrics.jsonl")), "rb") as file:
        row = last_line(file.fileno())
    step, seconds = _whole(row.get("step")), number(row.get("step_seconds"))
    if step is None:
        return Glance()
    return Glance(step=step, reward=number(row.get("reward_mean")), step_seconds=max(0.0, seconds or 0.0))


def read_table(root: Path, folder: str, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the run; empty if there is none."""
    content = read_beneath(root, (*parts_of(folder), name), limit=LARGEST_FILE_BYTES)
    found: object = None
    with suppress(ValueError, RecursionError):
        found = json.loads(content or b"null")
    return found if isinstance(found, dict) else {}


def is_alive(root: Path, folder: str) -> bool | None:
    """Whether the process that the run's lock names is there; None where nobody can tell from here."""
    holder = read_table(root, folder, "lock")
    pid = _whole(holder.get("pid"))
    if pid is None or pid < 1:
        return None
    mine = process_identity(pid)
    return holder == mine if holder.get("host") == mine["host"] else None


def number(value: object) -> float | None:
    """Return the value if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond the floats
        return None


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, Mapping) else {"kind": found}


def _text(value: object) -> str:
    return str(value)[:LONGEST_TEXT] if isinstance(value, str | int | float) else ""


def _whole(value: object) -> int | None:
    finite = number(value)
    return None if finite is None or finite != int(finite) else int(finite)
