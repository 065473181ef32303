"""What has become of a cell of the matrix, read from its folder, and what is written there about it."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from klimb.errors import ConfigError
from klimb.training.locks import process_identity
from klimb.training.run_folder import RunFolder, free_folder, is_run, write_json
from klimb.workbench.config import RunConfig, build_config, read_tables
from klimb.workbench.session import own_parts
from klimb.workbench.study.plan import Cell, StudyPlan

CellState = Literal["missing", "interrupted", "failed", "changed", "finished"]
"""`interrupted` was begun and can go on; `changed` holds a run of other settings, or of other source of own parts."""


STATUS_NAME, LOG_NAME = "status.json", "log.txt"


NOT_PART_OF_A_RESULT = ("run", "checkpoints")
"""Sections that say where and how a run is kept: it is the same run if they differ."""


LONGEST_TAIL_BYTES = 20_000


def state_of(plan: StudyPlan, cell: Cell) -> CellState:
    """Return what a compare that begins now finds."""
    path = plan.folder_of(cell)
    has_failed = read_status(path).get("state") == "failed"
    if not is_run(path):
        return "failed" if has_failed else "missing"
    if not (_is_of(RunFolder(path).config, cell.config) and _is_of_source(path, cell.config)):
        return "changed"
    if RunFolder(path).summary.is_file():
        return "finished"
    return "failed" if has_failed else "interrupted"


def read_status(path: Path) -> dict[str, Any]:
    """Return what was last written about the run in this folder; empty if nothing was, or not whole."""
    return read_json(path / STATUS_NAME)


def read_json(path: Path) -> dict[str, Any]:
    """Return the table in a JSON file; empty if there is none, or not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_status(path: Path, content: Mapping[str, Any]) -> None:
    """Replace what is written about the run in this folder."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / STATUS_NAME, content)


def tail_of_log(path: Path, *, num_lines: int = 25) -> str:
    """Return the last lines that the run in this folder printed."""
    log = path / LOG_NAME
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LONGEST_TAIL_BYTES))
        return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-num_lines:])


def set_aside(plan: StudyPlan, cell: Cell) -> Path:
    """Move what is in the cell's folder to `set-aside`, out of the way of a new run; nothing is lost."""
    target = free_folder(plan.folder / "set-aside" / cell.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return plan.folder_of(cell).rename(target)


def lock_folder_of(plan: StudyPlan, cell: Cell) -> Path:
    """Where the lock of a cell lies: not in the run's folder, which may be moved while it is held."""
    return plan.folder / "locks" / cell.name


def is_held(plan: StudyPlan, cell: Cell) -> bool:
    """Return True if a living process, of this compare or of another, works on the cell."""
    holder = read_json(lock_folder_of(plan, cell) / "lock")
    if not holder:
        return False
    return holder["host"] != socket.gethostname() or holder == process_identity(int(holder["pid"]))


def _is_of(stored: Path, config: RunConfig) -> bool:
    """Whether the stored configuration, as this version reads it, gives the result that this one does."""
    try:
        tables = {name: table for name, table in read_tables(stored).items() if name not in NOT_PART_OF_A_RESULT}
        found = build_config(tables, source=str(stored))
    except ConfigError:
        return False
    return _result_part(found) == _result_part(config)


def _is_of_source(path: Path, config: RunConfig) -> bool:
    """Whether the parts of the user's own have the source with which the run was begun."""
    return read_json(RunFolder(path).provenance).get("own_parts", {}) == own_parts(config)


def _result_part(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=set(NOT_PART_OF_A_RESULT))
