"""What a full or failing disk refused to take: kept in memory and written later, in order, so that nothing is lost."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


MOST_WAITING = 1_000
"""Writes that are kept without being needed by a resume; older ones are dropped, and told at the end."""


@dataclass(frozen=True)
class _Write:
    what: str
    write: Callable[[], None]
    is_needed: bool


class LateWrites:
    """Does the writes of a run that are not worth ending it for, and does them again where the disk refused."""

    def __init__(self) -> None:
        self._waiting: deque[_Write] = deque()
        self._num_dropped = 0

    def do(self, what: str, write: Callable[[], None], *, is_needed: bool = False) -> None:
        """Write; where the disk refuses, say so and keep it for later.

        Args:
            what: is not kept, e.g. `the rollouts of step 3 are`.
            write: does it, and may be called again.
            is_needed: a resume reads it, so that no checkpoint may be saved without it.
        """
        self._waiting.append(_Write(what, write, is_needed))
        try:
            self._write_all()
        except OSError as error:
            logger.error("%s NOT kept: %s. Training goes on, and it is tried again after the next step", what, error)
            self._drop_spare()

    def catch_up(self) -> None:
        """Do what is waiting.

        Raises:
            OSError: something that a resume needs is still refused.
        """
        try:
            self._write_all()
        except OSError:
            if any(each.is_needed for each in self._waiting):
                raise

    def close(self) -> None:
        """Do what is waiting one last time; say what is lost."""
        try:
            self._write_all()
        except OSError as error:
            lost = len(self._waiting) + self._num_dropped
            logger.error(
                "%d files or lines of the run are lost, the last: %s (%s)", lost, self._waiting[-1].what, error
            )

    def _write_all(self) -> None:
        while self._waiting:
            self._waiting[0].write()
            self._waiting.popleft()

    def _drop_spare(self) -> None:
        spare = [each for each in self._waiting if not each.is_needed]
        if len(spare) > MOST_WAITING:
            self._waiting.remove(spare[0])
            self._num_dropped += 1
