"""The processes that hold environments, seen from the process of the run: each answers in time, or is ended."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, runtime_checkable

from klimb.tasks import worker
from klimb.tasks.environments import host
from klimb.tasks.environments.live import Offer, Stage
from klimb.tasks.environments.requests import Request

START_TIMEOUT_SECONDS = 120.0
"""For importing what environments are made of: generous, as for a score function."""


GRACE_SECONDS = 5.0
"""A process that was to interrupt a call is waited for so much longer: then it is stuck in foreign code."""


IDLE_SECONDS = 60.0
"""What an answer may take besides the calls in it: to be made ready and written, on a busy machine."""


END_SECONDS = 10.0
"""The process that forks ends the others in so long, or is killed."""


BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from klimb.tasks.environments.host import main; main(int(sys.argv[1]))"
)


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Many processes side by side need no threads in each; and those of a BLAS take memory by the gigabyte."""


Found = TypeVar("Found")


class EnvironmentDied(Exception):
    """The process of an environment is gone; the message says how it ended."""


@runtime_checkable
class Host(Protocol):
    """Whoever holds environments: does one thing after the other.

    Attributes:
        numbers: of the environments that it holds.
        is_clean: False once a call had to be interrupted: then nobody knows what is still going on in it.
    """

    numbers: set[int]
    is_clean: bool

    def submit(self, work: Callable[[], Found]) -> Future[Found]:
        """Do this when its turn comes."""
        ...

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the answer; called by the work that was submitted.

        Raises:
            EnvironmentDied: there will never be one.
        """
        ...


class ThisProcess:
    """Holds environments that can neither hang nor die: here, where a call costs nothing."""

    def __init__(self, offer: Offer) -> None:
        self.numbers: set[int] = set()
        self.is_clean = True
        self._stage = Stage(offer, lambda _: contextlib.nullcontext())

    def submit(self, work: Callable[[], Found]) -> Future[Found]:
        """Do it now."""
        return _do(work)

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the answer."""
        return self._stage.answer(request)


class ForkServer:
    """The process that forks those that hold environments, and ends them.

    Attributes:
        trusted: whether what makes environments says that they may live in the process of the run.
    """

    def __init__(self, settings: host.HostSettings, *, is_fork: bool) -> None:
        """Start it and wait until it has imported what environments are made of.

        Args:
            settings: what it is told.
            is_fork: fork it from this process, which alone has what environments are made of.

        Raises:
            ValueError: what environments are made of cannot be imported.
        """
        self.trusted = False
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._pid = self._fork(theirs, settings) if is_fork else self._start(theirs, settings)
        try:
            self._control.settimeout(START_TIMEOUT_SECONDS)
            self._on_start(_receive(self._control))
        except (EOFError, TimeoutError) as error:
            self.close()
            raise ValueError(
                f"the process that loads environments ended, or took over {START_TIMEOUT_SECONDS:g} s"
            ) from error
        except BaseException:
            self.close()
            raise

    def _on_start(self, answer: dict[str, Any]) -> None:
        if "failure" in answer:
            # A message of ours says everything; the traceback would bury it.
            if answer["failure"].startswith(("ValueError", "ConfigError")):
                raise ValueError(answer["message"])
            raise ValueError(f"the environment cannot be loaded: {answer['failure']}\n{answer['traceback']}")
        self.trusted = answer["trusted"]

    def _start(self, theirs: socket.socket, settings: host.HostSettings) -> int:
        descriptor = theirs.fileno()
        # In a session of its own, Ctrl-C does not reach it. Texts hash alike in every run, so that the order of a set
        # of them is no other after a resume.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, str(descriptor), json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(descriptor,),
            env={**ONE_THREAD, **os.environ, "PYTHONHASHSEED": "0"},
        )
        self._control.sendall(worker.pack(pickle.dumps(settings)))
        return self._process.pid

    def _fork(self, theirs: socket.socket, settings: host.HostSettings) -> int:
        self._process = None
        pid = os.fork()
        if pid == 0:
            self._control.close()
            host.serve_as_fork(theirs, settings)
        return pid

    def fork(self, connection: socket.socket) -> int:
        """Return the id of a new process that holds environments and is reached by this socket's other end.

        Raises:
            EnvironmentDied: the process that forks is gone.
        """
        with self._lock:
            return self._order({"do": "fork"}, connection)["pid"]

    def end(self, pid: int) -> str:
        """End such a process and all that it started; returns how it ended, for people."""
        with self._lock:
            status = self._order({"do": "end", "pid": pid})["status"]
        return f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"

    def _order(self, order: dict[str, Any], connection: socket.socket | None = None) -> dict[str, Any]:
        try:
            descriptors = [] if connection is None else [connection.fileno()]
            socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
            return _receive(self._control)
        except (OSError, EOFError) as error:
            raise EnvironmentDied("the process that starts environments has ended") from error
        except BaseException:
            # An answer that is not waited for would be taken for that to the next order: it ends all there is.
            self._control.shutdown(socket.SHUT_RDWR)
            raise

    def close(self) -> None:
        """End it, and with it every process that it forked."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        if self._pid == 0:
            return
        self._wait()
        self._pid = 0

    def _wait(self) -> None:
        killer = threading.Timer(END_SECONDS, lambda: os.kill(self._pid, signal.SIGKILL))
        killer.daemon = True
        killer.start()
        try:
            if self._process is not None:
                self._process.wait()
            else:
                os.waitpid(self._pid, 0)
        finally:
            killer.cancel()


class EnvironmentProcess:
    """A process that holds environments. It does one thing after the other, and what ends it ends them all."""

    def __init__(self, server: ForkServer) -> None:
        self.numbers: set[int] = set()
        self.is_clean = True
        self._server = server
        self._ended = ""
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._pid = server.fork(theirs)
            except BaseException:
                self._socket.close()
                raise
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"environment-{self._pid}")

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._ended

    def submit(self, work: Callable[[], Found]) -> Future[Found]:
        """Do this when its turn comes; at once when there will be no turn: what it asks then has no answer."""
        try:
            return self._thread.submit(work)
        except RuntimeError:  # it was closed
            return _do(work)

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the answer.

        Raises:
            EnvironmentDied: the process has ended, or was ended because it was stuck.
        """
        if self._ended:
            raise EnvironmentDied(self._ended)
        limit = 0.0
        try:
            self._socket.settimeout(IDLE_SECONDS)
            self._socket.sendall(worker.pack(pickle.dumps(request)))
            while "wait" in (answer := _receive(self._socket)):
                limit = answer["wait"]
                self._socket.settimeout(limit + GRACE_SECONDS)
            return answer
        except TimeoutError:
            self._end(f"took longer than {limit:g} s and could not be interrupted")
        except (EOFError, OSError, ValueError):
            self._end("ended its process")
        raise EnvironmentDied(self._ended)

    def _end(self, reason: str) -> None:
        if self._ended:
            return  # it is being closed
        others = len(self.numbers) - 1
        together = f", and with it the {others} others that shared it" if others > 0 else ""
        self._ended = reason
        try:
            how = self._server.end(self._pid)
        except EnvironmentDied as error:
            how = str(error)
        self._ended = f"{reason} ({how}){together}"

    def close(self) -> None:
        """End it at once, whatever it is doing."""
        if self.is_alive:
            self._ended = "the environments were closed"
            with contextlib.suppress(EnvironmentDied):
                self._server.end(self._pid)
        self._thread.shutdown()
        self._socket.close()


def _do(work: Callable[[], Found]) -> Future[Found]:
    future: Future[Found] = Future()
    try:
        future.set_result(work())
    # It is raised again for whoever waits.
    except Exception as error:
        future.set_exception(error)
    return future


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Return the next answer.

    Raises:
        EOFError: there is none to come.
    """
    (size,) = worker.HEADER.unpack(_receive_exactly(connection, worker.HEADER.size))
    return json.loads(_receive_exactly(connection, size))


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(min(size - len(received), 1 << 20))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)
