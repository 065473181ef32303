"""Scoring many responses without ever being stopped by one of them.

One scoring process, seen from the training process: never blocks, always killable.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

from klimb.declarations import narrow
from klimb.tasks import worker as scoring_program
from klimb.tasks.batches import Batches, BatchLimits, batches_of, is_large, prepare, score_batch
from klimb.tasks.protocol import Problem, Response, Score, Task
from klimb.tasks.settings import ScorerSettings
from klimb.tasks.several_rewards import groups_of
from klimb.tasks.shaping import apply_truncation
from klimb.tasks.shown_text import shown_line, shown_text

READ_SIZE = 1 << 16


class WorkerProcess:
    """A running worker. All input and output is non-blocking: a stuck worker cannot make its owner wait.

    Attributes:
        job: what it works on, or None.
        deadline: when its present work (loading, or the job) must be done, on the monotonic clock; None while idle.
        is_ready: True once the score function is loaded.
        batches: which responses its score function is given at once; known once it is ready.
    """

    def __init__(self, start: bytes, *, start_timeout_seconds: float) -> None:
        # Not multiprocessing: its children import the script that is running, with torch and all that it does.
        # -P keeps klimb/tasks off the import path. In a session of its own, Ctrl-C does not reach it, and its children
        # can be killed with it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", scoring_program.__file__],
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
        self._outgoing = bytearray(scoring_program.pack(start))
        self._incoming = bytearray()
        self.is_ready = False
        self.batches: Batches = "one"
        self.job: Any = None
        self.deadline: float | None = time.monotonic() + start_timeout_seconds

    @property
    def has_outgoing(self) -> bool:
        """True while part of a request is not yet written."""
        return bool(self._outgoing)

    def begin(self, job: Any, request: bytes, *, timeout_seconds: float) -> None:
        """Start a job; its clock runs from now."""
        self.job = job
        self.deadline = time.monotonic() + timeout_seconds
        self._outgoing += scoring_program.pack(request)

    def finish(self) -> None:
        """Mark the present work as done."""
        self.job, self.deadline = None, None

    def write(self) -> None:
        """Write as much of the request as fits now. A dead worker is noticed when reading."""
        try:
            num_written = os.write(self.requests, self._outgoing)
        except BlockingIOError:
            return
        except BrokenPipeError:
            num_written = len(self._outgoing)
        del self._outgoing[:num_written]

    def read(self) -> dict[str, Any] | None:
        """Return the reply if it is complete, else None.

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
        header_size = scoring_program.HEADER.size
        if len(self._incoming) < header_size:
            return None
        (size,) = scoring_program.HEADER.unpack(self._incoming[:header_size])
        if len(self._incoming) < header_size + size:
            return None
        payload = bytes(self._incoming[header_size:])
        self._incoming.clear()
        try:
            return json.loads(payload)
        except ValueError as error:
            raise EOFError from error

    def kill(self) -> str:
        """End the process and its children now; returns how it ended, for people."""
        # A process that has already ended keeps its own exit status: killing it then changes nothing.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        return f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


START_TIMEOUT_SECONDS = 120.0
"""For loading the score function: generous, since a busy machine may import sympy for many seconds."""


LARGE_START_TIMEOUT_SECONDS = 900.0
"""The same where it holds a model."""


BATCHES_AT_ONCE = 4
"""Where any responses may come together, so many times those that wait at the same time: a slow one holds up few."""


MIN_SCORED_TO_STOP = 16
"""The error fraction means little before this many responses."""


MOST_ATTEMPTS = 2
"""A response whose process died is tried once more: the cause may have been another process taking the memory."""


BYTES_PER_GIGABYTE = 1e9


DEFAULTS = ScorerSettings()


class ScoringError(ValueError):
    """The score function cannot be loaded, or fails for too many responses to go on."""


@dataclass(frozen=True)
class Job:
    """Responses to be scored together, by their places among all."""

    places: tuple[int, ...]
    request: bytes
    attempt: int = 1


Outcome = tuple[Job, list[Score] | None]
"""A job and its scores; None in their place means: try again."""


class Scorer:
    """Scores responses of a task; a context manager.

    A trusted task is scored in this process. Any other is scored in worker processes, and a response costs at most
    `timeout_seconds`: then the worker is killed and replaced. A response that times out, makes the score function raise
    or return no number, or twice ends its process, gets a Score without a reward and with the reason.
    What score functions print is discarded. An answer that was cut off counts as `settings.truncated` says.
    A score function that takes several responses at once gets all to one problem together, or, if it does not care
    which come together, any number: such a call may take `timeout_seconds` for each, and what ends it ends them all.

    Attributes:
        num_scored: responses handled so far.
        num_errors: those without a reward, timeouts included.
        num_timeouts: those that took too long.
        first_traceback: of the first exception that a score function raised, or None.
    """

    def __init__(self, task: Task, settings: ScorerSettings = DEFAULTS) -> None:
        """Prepare; processes start on entering.

        Args:
            task: whose score function is called.
            settings: the processes and their limits. The memory limit is on their address space: a reward that uses a
                GPU needs none, and a reward model is not put under it. The share of errors counts once 16 responses are
                scored, and 1 never stops.
        """
        self.task = task
        self.settings = settings
        self.num_scored = 0
        self.num_errors = 0
        self.num_timeouts = 0
        self.first_traceback: str | None = None
        self._score = apply_truncation(task.score, settings.truncated)
        memory = None if is_large(self._score) else settings.memory_limit_gigabytes
        self._memory_limit_bytes = None if memory is None else int(memory * BYTES_PER_GIGABYTE)
        self._start_timeout = LARGE_START_TIMEOUT_SECONDS if is_large(self._score) else START_TIMEOUT_SECONDS
        self._limits = narrow(settings, BatchLimits)
        self._start = b""
        self._workers: list[WorkerProcess] = []

    def identity(self) -> dict[str, Any]:
        """Return what the rewards depend on: the score function, and the limits under which it is called."""
        return {"scoring": asdict(self.settings), "scorer": self.task.score}

    def __enter__(self) -> Scorer:
        """Start the workers and waits until they have loaded the score function.

        Raises:
            ScoringError: if it cannot be loaded, naming what is missing.
        """
        if self.task.trusted:
            prepare(self._score)
        else:
            self._start = self._start_request()
            try:
                for _ in range(self.settings.num_workers):
                    self._workers.append(self._new_worker())
                while not all(worker.is_ready for worker in self._workers):
                    for _ in self._events():
                        pass
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers."""
        self.close()

    def close(self) -> None:
        """End the workers at once."""
        while self._workers:
            self._workers.pop().kill()

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """Return one score per response, in order; `responses[i]` answers `problems[i]`.

        Raises:
            ScoringError: if more than `max_error_fraction` of all responses so far had no reward.
        """
        if len(problems) != len(responses):
            raise ValueError(f"got {len(problems)} problems for {len(responses)} responses; there must be one for each")
        if self.task.trusted:
            unsealed = [response.unsealed() for response in responses]
            return [self.count(score) for score in self._score_here(problems, unsealed)]
        if not self._workers:
            raise ValueError("the scorer has no running workers; use it as `with Scorer(task) as scorer:`")
        while not any(worker.is_ready for worker in self._workers):
            for _ in self._events():
                pass
        queue = deque(self._jobs(problems, responses))
        scores: dict[int, Score] = {}
        try:
            while len(scores) < len(responses):
                self._assign(queue)
                for job, found in self._events():
                    if found is None:
                        queue.appendleft(replace(job, attempt=job.attempt + 1))
                    else:
                        scores |= {place: self.count(score) for place, score in zip(job.places, found, strict=True)}
        finally:
            for worker in [worker for worker in self._workers if worker.job is not None]:
                self._replace(worker)
        return [scores[index] for index in range(len(responses))]

    def _score_here(self, problems: Sequence[Problem], responses: Sequence[Response]) -> Iterator[Score]:
        """Score in this process. A task that says it is trusted may still be wrong: that costs its responses alone."""
        is_by_group = batches_of(self._score) == "group"
        for start, end in groups_of(problems) if is_by_group else [(0, len(problems))]:
            for found in score_batch(self._score, problems[start:end], responses[start:end], self._limits):
                yield found if isinstance(found, Score) else self._score_of(self._entry_of(found))

    @staticmethod
    def _entry_of(found: object) -> dict[str, Any]:
        return scoring_program.entry_of(lambda: found)

    def _jobs(self, problems: Sequence[Problem], responses: Sequence[Response]) -> Iterator[Job]:
        """Divide the responses into what the score function is given at once."""
        batches: Batches = next(worker.batches for worker in self._workers if worker.is_ready)
        if batches == "group":
            stretches = groups_of(problems)
        else:
            size = 1
            if batches == "any":
                most = BATCHES_AT_ONCE * self.settings.max_concurrent
                size = max(1, min(most, -(-len(responses) // self.settings.num_workers)))
            stretches = [(start, min(start + size, len(responses))) for start in range(0, len(responses), size)]
        for start, end in stretches:
            request = (list(problems[start:end]), list(responses[start:end]), self._limits)
            yield Job(tuple(range(start, end)), pickle.dumps(request))

    def _start_request(self) -> bytes:
        """Return what a worker needs to load the score function."""
        try:
            score = pickle.dumps(self._score)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ScoringError(
                f"the score function of task {self.task.name!r} cannot be sent to another process ({error}); define it "
                "at the top of a module, or set trusted=True if it can neither hang nor raise"
            ) from error
        start = {"import_path": sys.path, "memory_limit_bytes": self._memory_limit_bytes, "score": score}
        return pickle.dumps(start)

    def _new_worker(self) -> WorkerProcess:
        return WorkerProcess(self._start, start_timeout_seconds=self._start_timeout)

    def _replace(self, worker: WorkerProcess) -> str:
        """Kills a worker and starts another in its place; returns how it ended."""
        ended = worker.kill()
        self._workers[self._workers.index(worker)] = self._new_worker()
        return ended

    def _assign(self, queue: deque[Job]) -> None:
        """Give jobs to idle workers."""
        for worker in self._workers:
            if queue and worker.is_ready and worker.job is None:
                job = queue.popleft()
                worker.begin(job, job.request, timeout_seconds=self.settings.timeout_seconds * len(job.places))

    def _events(self) -> Iterator[Outcome]:
        """Wait for something to happen; yields finished jobs."""
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.replies, selectors.EVENT_READ, worker)
                if worker.has_outgoing:
                    selector.register(worker.requests, selectors.EVENT_WRITE, worker)
            ready = selector.select(max(min(deadlines, default=0.0) - time.monotonic(), 0.0))
        for key, events in ready:
            if key.data not in self._workers:
                continue  # replaced a moment ago: its descriptors may by now be those of another worker
            if events & selectors.EVENT_WRITE:
                key.data.write()
            else:
                yield from self._on_readable(key.data)
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline is not None and worker.deadline <= now]:
            yield from self._on_deadline(worker)

    def _on_readable(self, worker: WorkerProcess) -> Iterator[Outcome]:
        """Return handles a reply, or the end of the process."""
        try:
            reply = worker.read()
        except EOFError:
            yield from self._on_death(worker)
            return
        if reply is None:
            return
        job = worker.job
        worker.finish()
        if not worker.is_ready:
            self._on_loaded(worker, reply)
        elif job is not None:
            yield job, self._scores_of(job, reply)

    def _on_loaded(self, worker: WorkerProcess, reply: dict[str, Any]) -> None:
        """Mark a worker as ready, or raises ScoringError with what kept it from loading the score function."""
        if "failure" not in reply:
            worker.is_ready, worker.batches = True, reply["batches"]
            return
        self._keep_traceback(reply)
        is_ours = reply["failure"].startswith("ValueError")  # its message says everything; the traceback would bury it
        hint = (
            "; the script being run cannot be imported: move the task to a module"
            if "__main__" in reply["failure"]
            else ""
        )
        raise ScoringError(
            shown_text(
                reply["message"]
                if is_ours
                else f"the score function of task {self.task.name!r} cannot be loaded: {reply['failure']}{hint}\n"
                + reply["traceback"]
            )
        )

    def _on_death(self, worker: WorkerProcess) -> Iterator[Outcome]:
        """Replace a worker that ended by itself; its job is tried again, or given up."""
        if not worker.is_ready:
            raise ScoringError(
                f"the process that loads the score function of task {self.task.name!r} ended ({worker.kill()})"
            )
        job = worker.job
        ended = self._replace(worker)
        if job is not None and job.attempt < MOST_ATTEMPTS:
            yield job, None
        elif job is not None:
            together = _together(job)
            yield job, _unscored(job, f"scoring ended its process {job.attempt} times ({ended}){together}")

    def _on_deadline(self, worker: WorkerProcess) -> Iterator[Outcome]:
        """Replace a worker that took too long; its job is not tried again, since it would take as long."""
        if not worker.is_ready:
            raise ScoringError(
                f"the score function of task {self.task.name!r} was not loaded within {self._start_timeout:g} s"
            )
        job = worker.job
        self._replace(worker)
        self.num_timeouts += len(job.places)
        seconds = self.settings.timeout_seconds * len(job.places)
        yield job, _unscored(job, f"timed out after {seconds:g} s{_together(job)}")

    def _scores_of(self, job: Job, reply: dict[str, Any]) -> list[Score]:
        """Return the scores a reply holds; none with a reward if the score function raised for all of them."""
        if "failure" not in reply:
            return [self._score_of(entry) for entry in reply["scores"]]
        self._keep_traceback(reply)
        return _unscored(job, f"{reply['failure']}{_together(job)}")

    def _score_of(self, entry: dict[str, Any]) -> Score:
        """Return the score that plain values say; one without a reward if the score function raised."""
        if "failure" in entry:
            self._keep_traceback(entry)
            self.num_timeouts += entry["is_timeout"]
            return Score(reward=None, reason=entry["failure"])
        try:
            return Score(**entry)
        except ValueError as error:
            return Score(reward=None, reason=str(error))

    def _keep_traceback(self, failure: dict[str, Any]) -> None:
        self.first_traceback = self.first_traceback or shown_text(failure["traceback"])

    def count(self, score: Score) -> Score:
        """Return a score after counting it, its reason fit to be shown; also one that no score function was asked for.

        Raises:
            ScoringError: too many had no reward.
        """
        score = replace(score, reason=shown_line(score.reason))
        self.num_scored += 1
        self.num_errors += score.reward is None
        most = self.settings.max_error_fraction
        too_many = self.num_errors > most * self.num_scored
        if self.num_scored >= MIN_SCORED_TO_STOP and too_many:
            details = f"\nfirst traceback:\n{self.first_traceback}" if self.first_traceback else ""
            raise ScoringError(
                f"{self.num_errors} of {self.num_scored} responses to task {self.task.name!r} have no reward, more "
                f"than max_error_fraction={most:g}; the last reason: {score.reason}{details}"
            )
        return score


def _unscored(job: Job, reason: str) -> list[Score]:
    return [Score(reward=None, reason=reason)] * len(job.places)


def _together(job: Job) -> str:
    return f", with the {len(job.places)} responses that were scored together" if len(job.places) > 1 else ""
