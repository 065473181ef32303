"""Writing for many at once: what arrives within a moment is written together, and each is told when it is on the disk.

One flush to the disk takes milliseconds, however much it writes; one for each request would be the limit of the server.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")


Answer = TypeVar("Answer")


logger = logging.getLogger(__name__)


class Closed(RuntimeError):
    """Nothing is written any more."""


class GroupCommit(Generic[Item, Answer]):
    """A thread that writes items in groups, in the order in which they came.

    Args:
        write: writes a group so that it is on the disk when it returns, one answer an item; an answer that is an
            exception is raised for that item alone. What it raises itself is raised for all of the group.
        wait_seconds: after the first item of a group, how long it waits for more.
        most: items of a group.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        wait_seconds: float = 0.02,
        most: int = 1_000,
    ) -> None:
        self._write, self._wait_seconds, self._most = write, wait_seconds, most
        self._waiting: queue.Queue[tuple[Item, Future[Answer]] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._more = threading.Event()
        self._thread = threading.Thread(target=self._run, name="klimb-group-commit", daemon=True)
        self._thread.start()

    def add(self, item: Item) -> Future[Answer]:
        """Return the answer to come.

        Raises:
            Closed: after `close`.
        """
        future: Future[Answer] = Future()
        with self._lock:
            if self._is_closed:
                raise Closed("nothing is written any more: the server is ending")
            self._waiting.put((item, future))
        return future

    def close(self) -> None:
        """Write what is waiting, then end."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._more.set()
                self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if group:
                self._commit(group)

    def _next_group(self) -> tuple[list[tuple[Item, Future[Answer]]], bool]:
        """Return the next items, and whether more can come."""
        first = self._waiting.get()
        if first is None:
            return [], False
        self._more.wait(self._wait_seconds)
        group = [first]
        while len(group) < self._most:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return group, False
            group.append(item)
        return group, True

    def _commit(self, group: list[tuple[Item, Future[Answer]]]) -> None:
        try:
            answers = self._write([item for item, _ in group])
        # Whatever it is, those who wait must hear of it, and the thread must go on for those who come.
        except Exception as error:
            logger.error("%d items were not written: %s", len(group), error)
            answers = [error] * len(group)
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(cast(Answer, answer))
