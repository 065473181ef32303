"""A disk of a few kilobytes that is full soon, and then is made larger."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ENOUGH = "1g"


@cache
def can_mount() -> bool:
    """Return True if this process may mount a file system in memory; few but root may."""
    with tempfile.TemporaryDirectory() as folder:
        if _mount("-t", "tmpfs", "-o", "size=64k", "none", folder) != 0:
            return False
        return subprocess.run(["umount", folder], capture_output=True).returncode == 0


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """Mount a disk of this size there while entered; gives what makes it large enough."""
    place.mkdir()
    if _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)) != 0:
        raise OSError(f"cannot mount a file system at {place}")
    try:
        yield lambda: _enlarge(place)
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def _enlarge(place: Path) -> None:
    if _mount("-o", f"remount,size={ENOUGH}", str(place)) != 0:
        raise OSError(f"cannot enlarge the file system at {place}")


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode
