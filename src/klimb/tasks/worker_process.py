"""One scoring process, seen from the training process: never blocks, always killable."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from klimb.tasks import worker

READ_SIZE = 1 << 16


class WorkerProcess:
    """A running worker. All input and output is non-blocking: a stuck worker cannot make its owner wait.

    Attributes:
        job: what it works on, or None.
        deadline: when its present work (loading, or the job) must be done, on the monotonic clock; None while idle.
        is_ready: True once the score function is loaded.
    """

    def __init__(self, start: bytes, *, start_timeout_seconds: float) -> None:
        # Not multiprocessing: its children import the script that is running, with torch and all that it does.
        # -P keeps klimb/tasks off the import path. In a session of its own, Ctrl-C does not reach it, and its children
        # can be killed with it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.requests = self._process.stdin.fileno()
        self.replies = self._process.stdout.fileno()
        for descriptor in (self.requests, self.replies):
            os.set_blocking(descriptor, False)
        self._outgoing = bytearray(worker.pack(start))
        self._incoming = bytearray()
        self.is_ready = False
        self.job: Any = None
        self.deadline: float | None = time.monotonic() + start_timeout_seconds

    @property
    def has_outgoing(self) -> bool:
        """True while part of a request is not yet written."""
        return bool(self._outgoing)

    def begin(self, job: Any, request: bytes, *, timeout_seconds: float) -> None:
        """Starts a job; its clock runs from now."""
        self.job = job
        self.deadline = time.monotonic() + timeout_seconds
        self._outgoing += worker.pack(request)

    def finish(self) -> None:
        """Marks the present work as done."""
        self.job, self.deadline = None, None

    def write(self) -> None:
        """Writes as much of the request as fits now. A dead worker is noticed when reading."""
        try:
            num_written = os.write(self.requests, self._outgoing)
        except BlockingIOError:
            return
        except BrokenPipeError:
            num_written = len(self._outgoing)
        del self._outgoing[:num_written]

    def read(self) -> dict[str, Any] | None:
        """Returns the reply if it is complete, else None.

        Raises:
            EOFError: if the process has ended, or sent what is not a reply.
        """
        try:
            chunk = os.read(self.replies, READ_SIZE)
        except BlockingIOError:
            return None
        if not chunk:
            raise EOFError
        self._incoming += chunk
        header_size = worker.HEADER.size
        if len(self._incoming) < header_size:
            return None
        (size,) = worker.HEADER.unpack(self._incoming[:header_size])
        if len(self._incoming) < header_size + size:
            return None
        payload = bytes(self._incoming[header_size:])
        self._incoming.clear()
        try:
            return json.loads(payload)
        except ValueError as error:
            raise EOFError from error

    def kill(self) -> str:
        """Ends the process and its children now; returns how it ended, for people."""
        # A process that has already ended keeps its own exit status: killing it then changes nothing.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        return f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
