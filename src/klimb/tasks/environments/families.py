"""Ending a process with all that it started, whatever these did to get away: Linux tells who is whose child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""From <sys/prctl.h>."""


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent, started by this one, ended before them. Only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_family(pid: int) -> int:
    """End a child of this process with all that it started; return its exit code, or minus the signal that ended it.

    One that left its group is found where there is /proc, and where its parents still live: others are ended by
    `end_orphans`.
    """
    family = _descendants_of(pid)
    # One that has ended already keeps its own status: it is still to be waited for.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while adopted := _read_children()[os.getpid()] & family:
        _kill(adopted)
    return os.waitstatus_to_exitcode(status)


def end_orphans() -> None:
    """End whatever is still a child of this process."""
    while children := _read_children()[os.getpid()]:
        _kill(children)


def _kill(children: Collection[int]) -> None:
    for child in children:
        # One that ended is a child until it is waited for, so that its number means nobody else.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _descendants_of(pid: int) -> set[int]:
    children = _read_children()
    found, waiting = set[int](), [pid]
    while waiting:
        new = children[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _read_children() -> defaultdict[int, set[int]]:
    """Return the children of every process; of none where there is no /proc."""
    children: defaultdict[int, set[int]] = defaultdict(set)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            children[int(parent)].add(int(folder.name))
    return children
