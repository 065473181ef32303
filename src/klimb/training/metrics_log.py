"""metrics.jsonl: one line of JSON a step, flushed as it is written, cut back to the checkpoint on resume."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

WALL_CLOCK = ("_seconds", "tokens_per_second")
"""Endings of the metrics that depend on the clock. All others are equal, bit for bit, in a run that was interrupted."""


class MetricsLog:
    """Appends to a file; a number that is not finite is written as null."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Opens the file and forgets all behind its first `keep_bytes`."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        size = self._file.seek(0, os.SEEK_END)
        if size < keep_bytes:
            logger.warning("%s has %d bytes and the checkpoint expects %d: lines are lost", path, size, keep_bytes)
        self._file.truncate(min(size, keep_bytes))
        self._file.seek(0, os.SEEK_END)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Appends one line."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps(finite).encode() + b"\n")
        try:
            self._file.flush()
        except OSError as error:  # what could not be written stays in the buffer and goes out with the next line
            logger.error("%s cannot be written: %s. Training goes on; the line is kept in memory", self._path, error)

    def flush_to_disk(self) -> int:
        """Returns the size in bytes once all of it is on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        try:
            self._file.close()
        except OSError as error:
            logger.error("%s: the last lines are lost: %s", self._path, error)


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics file; a last line that a crash cut short is left out."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def without_wall_clock(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics that two equal runs share exactly."""
    return {name: value for name, value in metrics.items() if not name.endswith(WALL_CLOCK)}
