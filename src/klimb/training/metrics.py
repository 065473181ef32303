"""metrics.jsonl: one line of JSON a step, flushed as it is written, cut back to the checkpoint on resume.

Says once, in words, when the weights show that a correction cannot work or does nothing.
"""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

from klimb.findings.run.thresholds import THRESHOLDS
from klimb.training.json_lines import read_lines

logger = logging.getLogger(__name__)


WALL_CLOCK = ("_seconds", "tokens_per_second")
"""Endings of the metrics that depend on the clock. All others are equal, bit for bit, in a run that was interrupted."""


class MetricsLog:
    """Appends to a file; a number that is not finite is written as null."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Open the file and forgets all behind its first `keep_bytes`."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting = b""
        self._file = path.open("ab", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        if size < keep_bytes:
            logger.warning("%s has %d bytes and the checkpoint expects %d: lines are lost", path, size, keep_bytes)
        self._file.truncate(min(size, keep_bytes))
        self._file.seek(0, os.SEEK_END)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._waiting += json.dumps(finite).encode() + b"\n"
        try:
            self._write_waiting()
        except OSError as error:  # what could not be written goes out with the next line
            logger.error("%s cannot be written: %s. Training goes on; the line is kept in memory", self._path, error)

    def num_bytes(self) -> int:
        """Return the size in bytes of all that was written, whether or not it is on the disk yet."""
        return self._file.tell() + len(self._waiting)

    def flush_to_disk(self) -> int:
        """Return the size in bytes once all of it is on the disk.

        Raises:
            OSError: the disk refuses a part of it.
        """
        self._write_waiting()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        try:
            self._write_waiting()
        except OSError as error:
            logger.error("%s: the last lines are lost: %s", self._path, error)
        finally:
            self._file.close()

    def _write_waiting(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Return the lines of a metrics file; a last line that a crash cut short is left out."""
    return read_lines(path)


def without_wall_clock(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the metrics that two equal runs share exactly."""
    return {name: value for name, value in metrics.items() if not name.endswith(WALL_CLOCK)}


MOST_CLIPPED_AT_START = THRESHOLDS.max_clipped_at_start


LEAST_ESS = 0.3
"""verl's documentation warns below this effective sample share of tokens."""


INERT_WIDTH = 1e-3
"""Weights within 1 ± this are taken as 1: more than the gap between sampler and trainer, less than a learning step."""


INERT_STEPS = 3


class Notices:
    """Warnings that are given once; what was said is not part of the run's state."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say_once(self, key: str, text: str, *arguments: object) -> None:
        """Warn, unless something was said under this key."""
        if key not in self._said:
            self._said.add(key)
            logger.warning(text, *arguments)


class WeightsWatch:
    """Reads the metrics of each step's update; what it has said is not part of the run's state."""

    def __init__(self) -> None:
        self._num_inert = 0
        self._notices = Notices()

    def observe(self, metrics: Mapping[str, float], *, has_old_samples: bool, why_mu_is_another: str = "") -> None:
        """Warns when w = π/μ is 1 everywhere although it need not be, or when too few samples carry all the weight.

        Or when the clip acts before anything was learnt, since the policy never was the one that drew.

        Args:
            metrics: of an update; without `ess_token` no ratio was formed and nothing is said.
            has_old_samples: the batch held more than what this step drew.
            why_mu_is_another: why some samples come from a distribution that the policy never was; empty if none do.
        """
        if why_mu_is_another and metrics.get("clip_at_start_fraction", 0.0) > MOST_CLIPPED_AT_START:
            self._notices.say_once(
                "clip-at-start",
                f"the clip changes {metrics['clip_at_start_fraction']:.1%} of the units before the first step on the "
                f"batch, where nothing was learnt: the policy is not μ from the start ({why_mu_is_another}). "
                'correction.kind = "auto" centres a trust region on the policy before the batch',
            )
        if "ess_token" not in metrics:
            return
        could_move = has_old_samples or metrics.get("num_optimizer_steps", 0) > 1
        is_inert = metrics["w_max"] < 1 + INERT_WIDTH and metrics["w_p01"] > 1 - INERT_WIDTH
        self._num_inert = self._num_inert + 1 if could_move and is_inert else 0
        if self._num_inert == INERT_STEPS:
            self._notices.say_once(
                "inert",
                "the trust region is inert: w = π/μ was 1 on every token for 3 steps, so neither a clip nor a "
                "correction acts. Either log_mu is the policy's own (recomputed after the update?), or the learning "
                "rate is too small to move it",
            )
        for name, value in metrics.items():
            if name.endswith("ess_token") and value < LEAST_ESS:
                self._notices.say_once(
                    name,
                    f"the data is too far for ratios: {name} is {value:.2f}, and below {LEAST_ESS} few tokens carry "
                    "all the weight. Younger data (replay.max_age, fewer epochs, a smaller learning rate) or a recipe "
                    "without ratios (topr, asymre, oapl) helps",
                )
