"""Signals that ask a run to end: SIGTERM, SIGINT and SIGHUP. The first is a request, the second ends the process.

In the loop the step is finished and saved (`StopRequest`); before and after it there is no step to finish, and what is
being done is left (`stops_at_once`). A SIGHUP that is ignored already, as under `nohup`, stays ignored.
"""

import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


Handler = Callable[[int, FrameType | None], None]


class Stopped(KeyboardInterrupt):
    """A signal came where there is no step to finish. Like Ctrl-C, it is no `Exception`: no library swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class StopRequest:
    """While entered, the first signal is noted in `signal_number` and a second one kills.

    Outside of the main thread Python allows no handlers; then nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        self._previous = _take_over(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _give_back(self._previous)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        _let_the_next_one_kill()
        _say(f"{signal.Signals(number).name}: finishing this step, then saving; once more ends at once")


@contextmanager
def stops_at_once() -> Generator[None]:
    """While the block runs, the first signal raises `Stopped` in the main thread, and a second one kills."""

    def stop(number: int, frame: FrameType | None) -> None:
        _let_the_next_one_kill()
        raise Stopped(number)

    previous = _take_over(stop)
    try:
        yield
    finally:
        _give_back(previous)


def _take_over(handler: Handler) -> dict[int, object]:
    """Set the handler of each signal that is not to be ignored; return those from before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    taken = [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in taken}


def _give_back(previous: dict[int, object]) -> None:
    for number, handler in previous.items():
        if handler is not None:  # one that was not set from Python, which Python cannot set again
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]


def _let_the_next_one_kill() -> None:
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)


def _say(text: str) -> None:
    """Print to stderr from within a handler, where the stream may be closed or in the middle of a write."""
    try:
        print(f"\n{text}", file=sys.stderr, flush=True)
    except (OSError, ValueError, RuntimeError):
        return
