"""Which files make up a store, each checked once as long as it does not change."""

import json
import os
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from klimb.experience.migrations import can_migrate, migrate_segment
from klimb.experience.segments import SegmentError, check_samples_schema, kind_of
from klimb.experience.store_feedback import check_feedback_schema

MERGED_FILE = ".merged.json"
"""Of a store: which segments were merged into which, until they are removed."""


_NUMBERED = re.compile(r"(?:samples|feedback)-(\d+)-[0-9a-f]+\.parquet")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One Parquet file of a store.

    Attributes:
        path: where it is.
        kind: `samples` or `feedback`.
        changed_at: time of its last change in ns; with the size it tells that the file is still the same.
        num_bytes: its size.
    """

    path: Path
    kind: str
    changed_at: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class SegmentFiles:
    """The files of a store at one moment, sorted by name.

    Attributes:
        samples: segments of samples.
        feedback: segments of ratings.
        unfinished: what stopped writers left behind, or what one is writing now; no part of the store.
    """

    samples: tuple[Segment, ...]
    feedback: tuple[Segment, ...]
    unfinished: tuple[Path, ...] = ()


class SegmentFolder:
    """The segments in a folder, or one of them.

    Args:
        folder: need not exist.
        only: the name of the one file to see; empty for all.
    """

    def __init__(self, folder: Path, *, only: str = "") -> None:
        self.folder = folder
        self.only = only
        self._seen: dict[Path, Segment] = {}

    def look(self) -> SegmentFiles:
        """Return the files now.

        Raises:
            SegmentError: a Parquet file here is damaged or not of klimb.
            FileNotFoundError: the only file is gone.
        """
        self._seen = {path: self._checked(path) for path in (self.folder / self.only,)} if self.only else self._all()
        unfinished = () if self.only else tuple(sorted(self.folder.glob(".*.parquet.tmp-*")))
        return SegmentFiles(
            samples=tuple(segment for segment in self._seen.values() if segment.kind == "samples"),
            feedback=tuple(segment for segment in self._seen.values() if segment.kind == "feedback"),
            unfinished=unfinished,
        )

    def _all(self) -> dict[Path, Segment]:
        """Return what is there but for what a merged file holds as well, which may go at any moment.

        A file that goes while they are looked at was merged meanwhile: they are looked at again.
        """
        while True:
            there = sorted(self.folder.glob("[!.]*.parquet"))
            replaced = _replaced(self.folder, {path.name for path in there})
            paths = [path for path in there if path.name not in replaced]
            try:
                return {path: self._checked(path) for path in paths}
            except FileNotFoundError:
                if all(path.exists() for path in paths):
                    raise

    def new_path(self, kind: str) -> Path:
        """Return a name that no other writer takes: the number orders files, the random part tells writers apart."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(match[1]) for path in self.folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
        return self.folder / f"{kind}-{max(numbers, default=0) + 1:06d}-{secrets.token_hex(8)}.parquet"

    def _checked(self, path: Path) -> Segment:
        status = path.stat()
        seen = self._seen.get(path)
        if seen is not None and (seen.changed_at, seen.num_bytes) == (status.st_mtime_ns, status.st_size):
            return seen
        is_feedback = kind_of(path) == "feedback"
        if is_feedback:
            check_feedback_schema(path)
        else:
            status = _check_samples(path)
        return Segment(
            path=path,
            kind="feedback" if is_feedback else "samples",
            changed_at=status.st_mtime_ns,
            num_bytes=status.st_size,
        )


def read_merged(folder: Path) -> dict[str, list[str]]:
    """Return by each merged segment, there or about to be, the names of those that it replaces."""
    try:
        return json.loads((folder / MERGED_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _replaced(folder: Path, there: Collection[str]) -> set[str]:
    return {name for merged, names in read_merged(folder).items() if merged in there for name in names}


def _check_samples(path: Path) -> os.stat_result:
    """Return the file's status once its samples can be read; one of an older version is first brought up to date.

    Raises:
        SegmentError: it cannot be read, or not be written in today's version where it is.
    """
    try:
        check_samples_schema(path)
    except SegmentError:
        if not can_migrate(path):
            raise
        try:
            migrate_segment(path)
        except OSError as error:
            raise SegmentError(
                f"{path} is of an older version of klimb and cannot be brought up to date where it is "
                f"({error.strerror}); copy it to where you can write"
            ) from error
        check_samples_schema(path)
    return path.stat()
