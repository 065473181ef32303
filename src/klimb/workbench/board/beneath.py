"""Files beneath a folder, opened so that no path from outside leads out of it: no `..`, no symbolic link on the way."""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

MOST_PARTS = 32


def parts_of(relative: str) -> tuple[str, ...]:
    """The folder and file names of a relative path; `.` has none.

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
    """A descriptor, for reading, of the regular file `root/part/…/part`.

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
    """The file's content up to `limit` bytes; None if it is not there or may not be read."""
    with suppress(OSError), os.fdopen(open_beneath(root, parts), "rb") as file:
        return file.read(limit)
    return None


def _is_plain(part: str) -> bool:
    is_named = bool(part) and not part.startswith(".") and len(part) <= 255
    return is_named and part.isprintable() and not set(part) & set("/\\:")
