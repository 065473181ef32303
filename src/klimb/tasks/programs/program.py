"""One program that runs for a sample: started, watched in a thread of its own, ended when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.tasks.programs.outcome import ProgramEnd, read_end

START_SECONDS = 60.0
"""A program has so much longer until its first call: it imports, on a busy machine."""


LOOK_SECONDS = 0.1
"""Between two looks whether the time of a program is over."""


MOST_OUTPUT, MOST_ERRORS = 65_536, 8_192
"""Bytes at the end of what a program prints that are kept."""


BYTES_PER_GIGABYTE = 1e9


BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from klimb.tasks.programs.start import main; main(int(sys.argv[2]), sys.argv[3:])"
)


def words_of(command: str) -> tuple[str, ...]:
    """Return the program and its arguments; `python` is the one that runs klimb."""
    first, *rest = shlex.split(command)
    return (sys.executable if first == "python" else first, *rest)


@dataclass(frozen=True, kw_only=True)
class ProgramLimits:
    """How far a program may go.

    Attributes:
        call_seconds: from an answer to its next call, or to its end.
        sample_seconds: in which it is waited for, all in all; None: any number.
        memory_bytes: of its address space; None: any number.
    """

    call_seconds: float
    sample_seconds: float | None
    memory_bytes: int | None

    @classmethod
    def of(cls, settings: EnvironmentSettings) -> ProgramLimits:
        """Return the limits that the settings state."""
        gigabytes = settings.memory_limit_gigabytes
        return cls(
            call_seconds=settings.call_seconds,
            sample_seconds=settings.sample_seconds,
            memory_bytes=None if gigabytes is None else int(gigabytes * BYTES_PER_GIGABYTE),
        )


class Program:
    """A program that runs.

    It leads a process group of its own: whatever it started and left behind is ended with it. The clock runs from its
    start to its first call, and from each answer to the next call.

    Args:
        words: the program and its arguments.
        problem: what it reads as its input, as text.
        environment: its environment variables.
        limits: how far it may go.
        on_end: called once, in the program's thread, with how it ended; not after `close`.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        problem: str,
        environment: Mapping[str, str],
        limits: ProgramLimits,
        on_end: Callable[[ProgramEnd], None],
    ) -> None:
        self._limits, self._on_end = limits, on_end
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._allowance = limits.call_seconds + START_SECONDS
        self._waiting_since: float | None = time.monotonic()
        self._is_closed, self._is_reaped = False, False
        self._process = _start(words, problem, environment, limits.memory_bytes)
        self._thread = threading.Thread(target=self._watch, name="klimb-program", daemon=True)
        self._thread.start()

    def begin_wait(self) -> None:
        """Start the clock: the program has its answer."""
        with self._lock:
            self._allowance, self._waiting_since = self._limits.call_seconds, time.monotonic()

    def end_wait(self) -> None:
        """Stop the clock: the program made a call, and waits itself."""
        with self._lock:
            self._seconds, self._waiting_since = self._waited(), None

    def close(self) -> None:
        """End the program, if it runs, with all that it started."""
        self._is_closed = True
        self._kill()
        self._thread.join()

    def _waited(self) -> float:
        since = self._waiting_since
        return self._seconds + (0.0 if since is None else time.monotonic() - since)

    def _why_late(self) -> str:
        """Return which limit the program has passed; empty if none."""
        with self._lock:
            since, waited = self._waiting_since, self._waited()
            if since is None:
                return ""
            if time.monotonic() - since > self._allowance:
                return f"{self._allowance:g} s without a call of the program"
            whole = self._limits.sample_seconds
            return "" if whole is None or waited <= whole else f"the program took more than {whole:g} s in all"

    def _watch(self) -> None:
        process, late = self._process, ""
        output, errors = _Tail(process.stdout, MOST_OUTPUT), _Tail(process.stderr, MOST_ERRORS)
        with process, selectors.DefaultSelector() as selector:
            for tail in (output, errors):
                selector.register(tail.pipe, selectors.EVENT_READ, tail)
            while not self._has_ended():
                _read_some(selector)
                late = late or self._why_late()
                if late:
                    self._kill()
            # Whoever it left behind may hold the pipes open.
            self._kill()
            output.read()
            errors.read()
            with self._lock:
                process.wait()
                self._is_reaped = True
        if self._is_closed:
            return
        with self._lock:
            seconds = self._waited()
        if late:
            self._on_end(ProgramEnd(error=f"{late}; it was ended", seconds=seconds, is_out_of_time=True))
        else:
            self._on_end(read_end(process.returncode, output.kept, errors.kept, seconds=seconds))

    def _has_ended(self) -> bool:
        """Tell whether the program has ended. Its number stays taken, so that its group can be ended by it."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _kill(self) -> None:
        with self._lock:
            if not self._is_reaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)


class _Tail:
    """The end of what a pipe brings."""

    def __init__(self, pipe: IO[bytes] | None, most: int) -> None:
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        self.pipe, self.kept, self._most = pipe, b"", most

    def read(self) -> bool:
        """Read all that is there; False once nothing more will come."""
        while True:
            try:
                chunk = os.read(self.pipe.fileno(), 65_536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self.kept = (self.kept + chunk)[-self._most :]


def _read_some(selector: selectors.BaseSelector) -> None:
    """Read what comes next, or wait a moment for it."""
    if not selector.get_map():
        time.sleep(LOOK_SECONDS / 5)
        return
    for key, _ in selector.select(LOOK_SECONDS):
        if not key.data.read():
            selector.unregister(key.fileobj)


def _start(
    words: Sequence[str], problem: str, environment: Mapping[str, str], memory_bytes: int | None
) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as given:
        given.write(problem.encode())
        given.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, json.dumps(sys.path), str(memory_bytes or 0), *words],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
