"""Many small segments become one, so that a store which grows answer by answer stays quick to read.

The merged file is there before the small ones go, and readers drop samples that they meet twice: at no moment is a
sample missing, whenever the process ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from klimb.experience.atomic import replace_atomically
from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.experience.segments import stream_samples, write_samples
from klimb.experience.store_feedback import read_feedback, write_feedback
from klimb.experience.store_files import MERGED_FILE, SegmentFolder, read_merged

SegmentKind = Literal["samples", "feedback"]


SMALL_BYTES = 4_000_000
"""A segment below this is merged with others."""


LOCK_FILE = ".segments.lock"


@contextmanager
def hold_segments(folder: Path) -> Generator[None]:
    """Hold the store's existing segments: only who holds them may rewrite or remove one. Adding one needs no hold.

    It is the kernel's lock on a file, so it ends with its process. Whoever else holds it is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def merge_small_segments(
    folder: Path, *, at_least: int = 2, small_bytes: int = SMALL_BYTES, kind: SegmentKind = "samples"
) -> Path | None:
    """Write the rows of the small segments as one new segment, and return it; None where there is too little to do.

    The small ones stay until `remove_merged`, since somebody may be reading them.

    Args:
        folder: of the store.
        at_least: small segments that there must be.
        small_bytes: a segment below it is small.
        kind: of the segments.
    """
    with hold_segments(folder):
        files = SegmentFolder(folder).look()
        small = [
            segment.path
            for segment in (files.samples if kind == "samples" else files.feedback)
            if segment.num_bytes < small_bytes
        ]
        if len(small) < max(at_least, 2):
            return None
        path = SegmentFolder(folder).new_path(kind)
        # Said first: the list counts for a merged file that is there, and that appears whole or not at all.
        _write_merged(folder, {**read_merged(folder), path.name: [each.name for each in small]})
        if kind == "samples":
            write_samples(path, _each_once(small))
        else:
            write_feedback(path, _feedback_once(small))
        return path


def remove_merged(folder: Path, *, kind: SegmentKind | None = None, grace_seconds: float = 0.0) -> int:
    """Remove the small segments that a merged one has replaced, and return how many there were.

    Args:
        folder: of the store.
        kind: of the segments; None for all.
        grace_seconds: those that were merged less long ago stay: somebody may be reading them.
    """
    with hold_segments(folder):
        num_removed = 0
        left: dict[str, list[str]] = {}
        for merged, names in read_merged(folder).items():
            if kind is not None and not merged.startswith(f"{kind}-"):
                left[merged] = names
                continue
            if not (folder / merged).exists():
                continue
            if time.time() - (folder / merged).stat().st_mtime < grace_seconds:
                left[merged] = names
                continue
            for name in names:
                num_removed += (folder / name).exists()
                (folder / name).unlink(missing_ok=True)
        _write_merged(folder, left)
        return num_removed


def _each_once(paths: Sequence[Path]) -> Iterator[Sample]:
    seen: set[str] = set()
    for path in paths:
        for sample in stream_samples(path):
            if sample.sample_id not in seen:
                seen.add(sample.sample_id)
                yield sample


def _feedback_once(paths: Sequence[Path]) -> list[Feedback]:
    """Return the rows in the order of their files, by which ratings of one time count; of an id the first."""
    rows: dict[str, Feedback] = {}
    for path in paths:
        for row in read_feedback(path):
            rows.setdefault(row.feedback_id, row)
    return list(rows.values())


def _write_merged(folder: Path, merged: dict[str, list[str]]) -> None:
    if not merged:
        (folder / MERGED_FILE).unlink(missing_ok=True)
        return
    with replace_atomically(folder / MERGED_FILE) as aside:
        aside.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
