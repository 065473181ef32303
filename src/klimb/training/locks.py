"""One run, one process: a lock file that says who holds a run folder and notices when the holder is dead."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)


class RunFolderInUse(ValueError):
    """Another process writes into the run folder."""


@contextmanager
def run_folder_lock(folder: Path) -> Generator[None]:
    """Hold the folder for this process; a lock whose process is dead is taken over with a warning.

    Raises:
        RunFolderInUse: a living process holds it, or one on another machine, where nobody can look from here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    _take(path)
    try:
        yield
    finally:
        _release(path)


def _take(path: Path) -> None:
    with _exclusively(path) as file:
        holder = _read(file)
        if holder and _holds(holder, path):
            raise RunFolderInUse(
                f"{path.parent} is in use by process {holder['pid']} on {holder['host']}; wait for it or stop it"
            )
        if holder:
            logger.warning("%s: taking over the lock of process %s, which is dead", path, holder["pid"])
        _write(file, json.dumps(process_identity(os.getpid())))


def _release(path: Path) -> None:
    try:
        with _exclusively(path) as file:
            if _read(file) == process_identity(os.getpid()):
                _write(file, "")
    except OSError as error:  # the next process takes it over, since this one will be dead
        logger.error("%s could not be given back: %s", path, error)


@contextmanager
def _exclusively(path: Path) -> Generator[IO[str]]:
    """Return the file, seen by one process at a time. The kernel's lock is held for a moment only.

    Holding it for the whole run would let a scoring process, which inherits it, keep the folder after our death.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}), and a run writes there from its first step on; "
            "make it writable, or copy it to where you can write"
        ) from error
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        text = file.read()
        holder = json.loads(text) if text.strip() else {}
        return {**holder, "pid": int(holder["pid"])} if holder else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}  # cut short by a crash while it was written, or damaged


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _holds(holder: dict[str, Any], path: Path) -> bool:
    if holder.get("host") != socket.gethostname():
        raise RunFolderInUse(
            f"{path.parent} was taken by process {holder.get('pid')} on {holder.get('host')}, which cannot be seen "
            f"from {socket.gethostname()}; if that run is dead, delete {path}"
        )
    return holder == process_identity(int(holder["pid"]))


def process_identity(pid: int) -> dict[str, Any]:
    """Return what tells a process from all others, now and later."""
    return {"pid": pid, "host": socket.gethostname(), "started": _start_time(pid)}


def _start_time(pid: int) -> str:
    """Tells apart two processes that were given the same number; `dead` when there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        pass
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return "unknown"
    # Field 22 (start time in clock ticks), counted behind the name, which may hold spaces and parentheses.
    fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return "dead" if fields[0] == "Z" else fields[19]
