"""What a run's small files say about it, whatever state they are in."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.training.locks import process_identity
from klimb.workbench.board.beneath import open_beneath, parts_of, read_beneath

LARGEST_FILE_BYTES = 2_000_000
TAIL_BYTES = 64_000
"""Of metrics.jsonl that are read for its last line."""
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


@dataclass(frozen=True, kw_only=True)
class Glance:
    """The last whole line of metrics.jsonl."""

    step: int | None = None
    reward: float | None = None
    step_seconds: float = 0.0


def read_facts(root: Path, folder: str) -> Facts:
    """From config.json, provenance.json and, in a study, status.json."""
    config = read_table(root, folder, "config.json")
    task = _table(config, "task")
    name = task.get("dataset") or task.get("path") or task.get("kind")
    return Facts(
        recipe=_text(_table(config, "objective").get("recipe")),
        task=_text(name).rpartition("/")[2],
        seed=_whole(config.get("seed")),
        num_steps=_whole(_table(config, "training").get("num_steps")),
        started=_text(read_table(root, folder, "provenance.json").get("started_at")),
        has_failed=read_table(root, folder, "status.json").get("state") == "failed",
    )


def read_glance(root: Path, folder: str) -> Glance:
    """From the end of metrics.jsonl; a last line that is half written is left out."""
    for line in reversed(_tail(root, folder).split(b"\n")[:-1]):
        row = parsed(line)
        step = _whole(row.get("step")) if isinstance(row, dict) else None
        if isinstance(row, dict) and step is not None:
            seconds = number(row.get("step_seconds"))
            return Glance(
                step=step,
                reward=number(row.get("reward_mean")),
                step_seconds=0.0 if seconds is None else max(0.0, seconds),
            )
    return Glance()


def read_table(root: Path, folder: str, name: str) -> dict[str, Any]:
    """The JSON object in a file of the run; empty if there is none."""
    content = read_beneath(root, (*parts_of(folder), name), limit=LARGEST_FILE_BYTES)
    found = parsed(content) if content else None
    return found if isinstance(found, dict) else {}


def is_alive(root: Path, folder: str) -> bool | None:
    """Whether the process that the run's lock names is there; None where nobody can tell from here."""
    holder = read_table(root, folder, "lock")
    pid = _whole(holder.get("pid"))
    if pid is None or pid < 1:
        return None
    mine = process_identity(pid)
    return holder == mine if holder.get("host") == mine["host"] else None


def parsed(line: bytes) -> Any:
    """The value that the JSON stands for; None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def number(value: object) -> float | None:
    """The value if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond the floats
        return None


def _tail(root: Path, folder: str) -> bytes:
    with suppress(OSError), os.fdopen(open_beneath(root, (*parts_of(folder), "metrics.jsonl")), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return file.read(TAIL_BYTES)
    return b""


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, Mapping) else {"kind": found}


def _text(value: object) -> str:
    return str(value)[:LONGEST_TEXT] if isinstance(value, str | int | float) else ""


def _whole(value: object) -> int | None:
    finite = number(value)
    return None if finite is None or finite != int(finite) else int(finite)
