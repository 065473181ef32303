"""Files that appear whole or not at all."""

import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_atomically(path: Path) -> Generator[Path]:
    """Give a path beside `path` to write to; when the block ends well, that file becomes `path` in one move.

    The file and its folder are flushed to the disk first, so after a crash `path` holds the old content or the new.
    If the block raises, `path` is untouched and the file aside is removed.
    """
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield aside
        flush_to_disk(aside)
        os.replace(aside, path)
        flush_to_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Return once the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_usual_mode(paths: Iterable[Path]) -> None:
    """Give files the mode that any new file has in their folder, as the umask says.

    safetensors makes its files readable by their owner alone, whatever the umask is.
    """
    for path in paths:
        probe = path.with_name(f".{path.name}.mode-{os.getpid()}")
        try:
            probe.touch()
            path.chmod(stat.S_IMODE(probe.stat().st_mode))
        finally:
            probe.unlink(missing_ok=True)
