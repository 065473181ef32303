"""Where metrics go besides metrics.jsonl: one small protocol, and what keeps a run alive when a tracker fails."""

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

logger = logging.getLogger(__name__)


LONGEST_REST = 64
"""Steps after which a tracker that keeps failing is tried again, at the latest."""


MOST_WAITING = 100_000
"""Steps that are kept for a tracker that fails; older ones are dropped and counted."""


@runtime_checkable
class Tracker(Protocol):
    """Takes the numbers of each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of one step, all of them finite."""
        ...

    def close(self, *, is_finished: bool) -> None:
        """No more is coming: the run is finished, or an error or a signal ended it."""
        ...


Cell = str | float | int | None
"""Of a table; None where there is nothing to say."""


@runtime_checkable
class TakesTables(Protocol):
    """A tracker that also takes a table of answers for a step. A logger of the user's own need not."""

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Write the table of one step, all numbers in it finite."""
        ...


class FailSafeTracker:
    """A tracker whose failures never reach the run.

    The first failure is reported. What could not be written is kept and written later, in order; after the n-th failure
    in a row the next attempt is 2ⁿ steps away, at most `LONGEST_REST`, so that a server that is gone costs little time.
    """

    def __init__(self, tracker: Tracker, *, name: str) -> None:
        self._tracker = tracker
        self._name = name
        self._waiting: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=MOST_WAITING)
        self._num_dropped = 0
        self._num_failures = 0
        self._steps_to_rest = 0
        self._num_tables_missing = 0
        self._reported: set[str] = set()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands on the finite ones of the metrics; a number that is not finite is left out."""
        self._num_dropped += len(self._waiting) == MOST_WAITING
        self._waiting.append((step, {name: value for name, value in metrics.items() if math.isfinite(value)}))
        if self._steps_to_rest:
            self._steps_to_rest -= 1
        else:
            self._hand_on()

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Hands the table on, if the tracker takes any. A table that fails, or would have to wait, is left out."""
        if not isinstance(self._tracker, TakesTables):
            return
        if self._waiting:
            self._num_tables_missing += 1
            return
        try:
            self._tracker.write_table(step, columns, rows)
        # As for numbers: other people's code.
        except Exception as error:
            self._num_tables_missing += 1
            self._report(error, what="a table for ")

    def close(self, *, is_finished: bool) -> None:
        """Write what is still waiting and closes the tracker; says how many steps are missing in it."""
        if self._waiting:
            self._hand_on()
        try:
            self._tracker.close(is_finished=is_finished)
        except Exception as error:
            self._report(error)
        num_missing = len(self._waiting) + self._num_dropped
        if num_missing:
            logger.error("%d steps are missing in %s; metrics.jsonl has all of them", num_missing, self._name)
        if self._num_tables_missing:
            logger.error(
                "%d tables of completions are missing in %s; rollouts/ has all answers",
                self._num_tables_missing,
                self._name,
            )

    def _hand_on(self) -> None:
        try:
            while self._waiting:
                self._tracker.write(*self._waiting[0])
                self._waiting.popleft()
            self._num_failures = 0
        # Other people's code and a network: whatever it raises, hours of training are worth more than its copy.
        except Exception as error:
            self._num_failures += 1
            self._steps_to_rest = min(2**self._num_failures, LONGEST_REST) - 1
            self._report(error)

    def _report(self, error: Exception, *, what: str = "") -> None:
        if what not in self._reported:
            self._reported.add(what)
            logger.error(
                "%s%s failed: %s: %s. Training goes on, metrics.jsonl has every step, and %s is tried again",
                what,
                self._name,
                type(error).__name__,
                error,
                self._name,
            )


class AllTrackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """To each of them."""
        for tracker in self._trackers:
            tracker.write(step, metrics)

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """To each that takes tables."""
        for tracker in self._trackers:
            if isinstance(tracker, TakesTables):
                tracker.write_table(step, columns, rows)

    def close(self, *, is_finished: bool) -> None:
        """Each of them."""
        for tracker in self._trackers:
            tracker.close(is_finished=is_finished)
