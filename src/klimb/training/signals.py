"""SIGTERM and SIGINT as a request: finish the step, save, leave. The second one ends the process at once."""

import signal
import sys
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A signal ended the run after its state was saved.

    Attributes:
        status: what the process should exit with: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number


class StopRequest:
    """While entered, the first signal is noted in `signal_number` and a second one kills.

    Outside of the main thread Python allows no handlers; then nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(number).name
        print(f"\n{name}: finishing this step, then saving; once more ends at once", file=sys.stderr, flush=True)
