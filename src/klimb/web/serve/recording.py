"""Answers become samples on the disk before their last byte is sent: many of them with one flush."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from klimb.experience import Sample, Store
from klimb.experience.compaction import merge_small_segments, remove_merged
from klimb.experience.migrations import migrate_folder
from klimb.experience.segments import write_samples
from klimb.experience.store_files import SegmentFolder

logger = logging.getLogger(__name__)


MOST_RECENT = 1_000
"""Samples that are remembered after they were written: feedback mostly comes soon."""


MERGE_AT = 64
"""Small segments at which they become one."""


class NotRecorded(OSError):
    """An answer could not be written to the store."""


@dataclass(frozen=True)
class _Waiting:
    samples: Sequence[Sample]
    written: Future[None]


class Recorder:
    """Writes samples to a store, and finds them there.

    Args:
        folder: of the store; made if there is none.
        commit_seconds: how long the first of a group waits for others.
        merge_at: small segments at which they are merged in the background.
        grace_seconds: how long the small segments are left for those who are reading them.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, *, commit_seconds: float = 0.02, merge_at: int = MERGE_AT, grace_seconds: float = 60.0
    ) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        migrate_folder(self.folder)
        _remove_unfinished(self.folder)
        remove_merged(self.folder, grace_seconds=grace_seconds)
        self.error = ""
        self.num_written = 0
        self._commit_seconds, self._merge_at, self._grace_seconds = commit_seconds, merge_at, grace_seconds
        self._segments = SegmentFolder(self.folder)
        self._store = Store(self.folder)
        self._store_lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._unwritten: dict[str, Sample] = {}
        self._recent: OrderedDict[str, Sample] = OrderedDict()
        self._changed = threading.Condition()
        self._is_closing = threading.Event()
        self._num_small = len(self._segments.look().samples)
        self._writer = threading.Thread(target=self._write_groups, name="klimb-recorder", daemon=True)
        self._merger = threading.Thread(target=self._merge, name="klimb-merger", daemon=True)
        self._is_merge_due = threading.Event()
        self._writer.start()
        self._merger.start()

    def record(self, samples: Sequence[Sample]) -> "Future[None]":
        """Return a future that is done once the samples are on the disk; it raises `NotRecorded` where they are not.

        Raises:
            RuntimeError: the recorder is closed.
        """
        waiting = _Waiting(samples, Future())
        # Running from the start: whoever waits may go away, and what is written is written all the same.
        waiting.written.set_running_or_notify_cancel()
        with self._changed:
            if self._is_closing.is_set():
                raise RuntimeError("the recorder is closed: no more answers can be stored")
            self._waiting.append(waiting)
            self._unwritten.update({sample.sample_id: sample for sample in samples})
            self._changed.notify()
        return waiting.written

    def find(self, completion_id: str) -> Sample | None:
        """Return the sample of this store with that id, as it was written; None if there is none."""
        with self._changed:
            known = self._unwritten.get(completion_id) or self._recent.get(completion_id)
            if known is not None:
                return known
        with self._store_lock:
            return next(iter(self._store.stored_samples([completion_id])), None)

    def close(self) -> None:
        """Return once all that was given is written."""
        with self._changed:
            self._is_closing.set()
            self._changed.notify()
        self._writer.join()
        self._is_merge_due.set()
        self._merger.join()
        remove_merged(self.folder, grace_seconds=self._grace_seconds)

    def _write_groups(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing.is_set())
                if not self._waiting:
                    return
            self._is_closing.wait(self._commit_seconds)
            with self._changed:
                group, self._waiting = self._waiting, []
            self._write_group(group)

    def _write_group(self, group: Sequence[_Waiting]) -> None:
        """Write the samples of a group together; where one of them cannot be written at all, each by itself."""
        try:
            self._write([sample for waiting in group for sample in waiting.samples])
        except OSError as error:
            self.error = f"the store cannot be written: {error.strerror or 'the log says why'}"
            self._tell(group, error)
        # A sample that Arrow cannot hold is its own request's affair, and that of nobody beside it.
        except Exception as error:
            if len(group) == 1:
                self._tell(group, error)
            else:
                for waiting in group:
                    self._write_group([waiting])
        else:
            self.error = ""
            self._tell(group, None)

    def _write(self, samples: Sequence[Sample]) -> None:
        if not samples:
            return
        write_samples(self._segments.new_path("samples"), samples)
        self.num_written += len(samples)
        self._num_small += 1
        if self._num_small >= self._merge_at:
            self._is_merge_due.set()

    def _tell(self, group: Sequence[_Waiting], error: Exception | None) -> None:
        if error is not None:
            logger.error("%d answers were not recorded in %s: %s", len(group), self.folder, error)
        with self._changed:
            for sample in (sample for waiting in group for sample in waiting.samples):
                written = self._unwritten.pop(sample.sample_id, None)
                if written is not None and error is None:
                    self._recent[sample.sample_id] = written
            while len(self._recent) > MOST_RECENT:
                self._recent.popitem(last=False)
        for waiting in group:
            if error is None:
                waiting.written.set_result(None)
            else:
                waiting.written.set_exception(NotRecorded(self.error or "it cannot be written as a sample"))

    def _merge(self) -> None:
        while not self._is_closing.is_set():
            self._is_merge_due.wait()
            self._is_merge_due.clear()
            if self._is_closing.is_set():
                return
            try:
                merge_small_segments(self.folder, at_least=self._merge_at // 2)
                self._num_small = 0
                self._is_closing.wait(self._grace_seconds)
                remove_merged(self.folder, grace_seconds=self._grace_seconds)
            except (OSError, ValueError) as error:
                logger.warning("%s: its small segments stay as they are: %s", self.folder, error)


def _remove_unfinished(folder: Path) -> None:
    """Remove what writers that are dead have left behind: no part of the store."""
    for path in SegmentFolder(folder).look().unfinished:
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and not _is_alive(int(number)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
