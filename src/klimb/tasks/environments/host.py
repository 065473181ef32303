"""The programs of the processes that hold environments.

One process, which imports what environments are made of and nothing heavier, forks the others. So each of them is there
in milliseconds, and no process that holds a model is ever copied.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from klimb.errors import ConfigError
from klimb.own_parts import is_own, load_part
from klimb.tasks import worker
from klimb.tasks.environments.factories import load_factory, name_of
from klimb.tasks.environments.families import adopt_orphans, end_family, end_orphans
from klimb.tasks.environments.live import Offer, Stage, TookTooLong
from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.tasks.tools.loading import load_tools

LONGEST_ORDER = 1 << 16
"""Bytes of an order to the process that forks."""


REPEAT_SECONDS = 1.0
"""Code that goes on after it was interrupted is interrupted again after so long."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What such a process is told at its start.

    Attributes:
        environment: the settings of the run.
        factory: what makes environments, where it is no text of the settings; only a fork has one.
        memory_limit_bytes: of each process that holds environments.
    """

    environment: EnvironmentSettings
    factory: Callable[[], object] | None = None
    memory_limit_bytes: int | None = None


def main(descriptor: int) -> None:
    """Serve as the process that forks; the settings are the first thing that comes."""
    control = socket.socket(fileno=descriptor)
    worker.end_with_parent()
    _become_silent()
    with control.makefile("rb", buffering=0) as stream:
        start = worker.read_payload(stream)  # pyright: ignore[reportArgumentType]
    if start is not None:
        serve(control, pickle.loads(start))


def serve(control: socket.socket, settings: HostSettings) -> None:
    """Load what environments are made of, then fork and end processes as told, until there is nobody to tell it."""
    parent = os.getppid()
    try:
        trusted = _prepare(settings)
    # Code of others: whatever it raises is an answer.
    except (Exception, SystemExit) as error:
        _send(control, worker.failure(error))
        return
    _send(control, {"trusted": trusted})
    children: set[int] = set()
    adopt_orphans()
    try:
        _end_as_orphan(control, parent)
        _follow_orders(control, settings, children)
    except OSError:
        pass  # whoever gives the orders is gone
    finally:
        for pid in children:
            end_family(pid)
        end_orphans()


def _prepare(settings: HostSettings) -> bool:
    """Import what environments are made of; return whether they may live in the process of the run."""
    # Whether its numbers are seeded must not depend on which environment of a process was the first to import it.
    if find_spec("numpy") is not None:
        import_module("numpy.random")
    factory = settings.factory or load_factory(settings.environment)
    for location in settings.environment.tools:
        if is_own(location):
            load_part(location, setting="environment.tools")
    return bool(getattr(factory, "trusted", False))


def _end_as_orphan(control: socket.socket, parent: int) -> None:
    """Hear no more orders once the parent is gone; a thread of it that ends is no reason."""

    def on_signal(number: int, frame: object) -> None:
        if os.getppid() != parent:
            # Nothing is raised here: it could hit what ends the others.
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, on_signal)
    worker.end_with_parent(signal.SIGTERM)
    on_signal(signal.SIGTERM, None)


def _follow_orders(control: socket.socket, settings: HostSettings, children: set[int]) -> None:
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, LONGEST_ORDER, 1)
        if not order:
            return
        told = json.loads(order)
        if told["do"] == "fork":
            pid = os.fork()
            if pid == 0:
                children.clear()
                control.close()
                _hold_environments(socket.socket(fileno=descriptors[0]), settings)
            os.close(descriptors[0])
            children.add(pid)
            _send(control, {"pid": pid})
        else:
            is_known = told["pid"] in children
            children.discard(told["pid"])
            _send(control, {"status": end_family(told["pid"]) if is_known else 0})


def _hold_environments(connection: socket.socket, settings: HostSettings) -> None:
    """Answer requests until there are no more; never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        worker.end_with_parent()
        worker.limit_memory(settings.memory_limit_bytes)
        answer_requests(connection, settings)
        os._exit(0)
    # A process that was forked must not go on with what its parent was doing.
    finally:
        os._exit(1)


def answer_requests(connection: socket.socket, settings: HostSettings) -> None:
    """Hold environments for whoever is at the other end."""
    random.seed()
    stage: Stage | None = None
    with connection, connection.makefile("rb") as requests:
        while (request := worker.read_payload(requests)) is not None:
            try:
                stage = stage or Stage(_offer_of(settings), _limit_by(connection))
            # Code of others: whatever it raises is an answer.
            except (Exception, SystemExit, TookTooLong) as error:
                _send(connection, {"refused": str(error), "names_its_key": isinstance(error, ConfigError)})
                continue
            _send(connection, stage.answer(pickle.loads(request)))


def _offer_of(settings: HostSettings) -> Offer:
    told = settings.environment
    factory = settings.factory or load_factory(told)
    return Offer(
        factory=factory,
        tools=load_tools(told.tools, call_seconds=told.call_seconds),
        name=told.factory or name_of(factory),
        call_seconds=told.call_seconds,
        sample_seconds=told.sample_seconds,
    )


def _limit_by(connection: socket.socket) -> Callable[[float], contextlib.AbstractContextManager[None]]:
    """Return a limit that the other end is told of, so that it knows when this process is stuck in foreign code."""

    def on_alarm(number: int, frame: object) -> None:
        raise TookTooLong

    @contextlib.contextmanager
    def limit(seconds: float) -> Iterator[None]:
        _send(connection, {"wait": seconds})
        # Code of others may have put its own handler there.
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), REPEAT_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return limit


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(worker.pack(json.dumps(answer).encode()))


def _become_silent() -> None:
    """Let what is printed go nowhere, and let nothing be read."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)


def serve_as_fork(control: socket.socket, settings: HostSettings) -> None:
    """Serve in a fork of the process of the run, whose signals and output are not to be used; never returns."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        worker.end_with_parent()
        _become_silent()
        # What the run has thrown away is its own to close.
        gc.freeze()
        serve(control, settings)
    # A process that was forked must not go on with what its parent was doing.
    finally:
        sys.stdout = sys.stderr = None  # nothing that was buffered is written twice
        os._exit(0)
