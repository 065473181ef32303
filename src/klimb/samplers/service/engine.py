"""A policy that draws answers to requests as they come, in a thread of its own."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, TypeVar

from klimb.policies.out_of_memory import DoesNotFitError, free_memory, is_out_of_memory
from klimb.samplers.completion import Completion
from klimb.samplers.decoding_mode import plain_arithmetic
from klimb.samplers.local import CausalModel, LocalSampler, TextModel
from klimb.samplers.mixed_drawing import MixedDrawing
from klimb.samplers.prompts import prompt_limits
from klimb.samplers.service.jobs import DrawBatch, Job, Step
from klimb.samplers.service.request_lanes import RequestLanes, ServiceLimits
from klimb.samplers.service.request_rounds import RequestRounds
from klimb.samplers.service.requests import BusyError, ClosedError, DrawRequest, OnEnd, OnToken, Ticket

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DecodingEngine:
    """A `DrawService` on a policy in this process.

    A Llama-type model on a CPU is decoded by klimb's own decoder, with continuous batching: requests enter and leave
    between any two tokens, each with settings of its own. Prompts are read in chunks between the tokens of the others.
    A prompt that begins like a text that was read before, or like another that is being read, gets the common part as
    a copy: `num_reused_tokens` counts it. Any other model goes through transformers in rounds: requests with equal
    settings are drawn together, and the tokens come when all of them have ended.

    The random number of a token depends on the request's seed and the token's number alone. So a request gives the same
    tokens alone and among others, with and without a beginning that was read before, as far as logits are the same.
    What else is in the batch can change them by rounding, and so a token where that moves a probability across its
    random number. klimb's own decoder gives a text the same bits alone and beside others in a step of one token, and on
    CPUs with bfloat16 products in a chunk of any size as well; in float32 small chunks change the last bits.

    A row whose logits are no distribution ends its own request. Where memory runs out, texts that are only kept are
    forgotten, half as many requests are drawn at once from then on, and those under way go on behind their last token.

    The weights are read when the engine is made: other weights need another engine.

    Args:
        policy: whose answers are drawn.
        max_batch: requests that are drawn at once.
        max_waiting: requests that may wait beside those.
        limits: how much is read and held at once.
        decoder: `auto`, or `transformers` to decode in rounds whatever the model.
    """

    def __init__(
        self,
        policy: CausalModel,
        *,
        max_batch: int = 32,
        max_waiting: int = 256,
        limits: ServiceLimits = ServiceLimits(),  # noqa: B008 - frozen
        decoder: Literal["auto", "transformers"] = "auto",
    ) -> None:
        if max_waiting < 0:
            raise ValueError(f"max_waiting must be >= 0, got {max_waiting}")
        sampler = LocalSampler(policy, max_batch=max_batch, decoder=decoder)
        self._policy = policy
        self._prompt_limits = prompt_limits(sampler.model.config)
        self._most_jobs = max_batch + max_waiting
        self._description = sampler.describe()
        self._batch = _make_batch(sampler, limits)
        self._running: list[Job] = []
        self._waiting: list[Job] = []
        self._closing: Literal["", "finish", "abort"] = ""
        # Guards the four above; notified when one of them changes.
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="klimb-decoding", daemon=True)
        self._thread.start()

    def describe(self) -> str:
        """One line: what decodes the policy's model, and why."""
        return self._description

    @property
    def num_running(self) -> int:
        """Requests whose tokens are being drawn."""
        return sum(not job.is_over for job in self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def num_reused_tokens(self) -> int:
        """Tokens of prompts that were not read, since their states were there already; over all requests."""
        return self._batch.num_reused_tokens

    @property
    def max_positions(self) -> int | None:
        """Tokens that prompt and answer may have together; None: any number."""
        return self._prompt_limits.context

    def submit(self, request: DrawRequest, *, on_token: OnToken, on_end: OnEnd) -> Ticket:
        """Take the request; both callbacks are called in the engine's thread and must return soon.

        A callback that raises ends its own request: the error is logged, and given to `on_end`.

        Raises:
            ValueError: the prompt leaves no room for `max_new_tokens` or holds ids outside the vocabulary, or there are
                stop strings and the policy cannot decode.
            BusyError: too many are waiting.
            ClosedError: the engine is closed.
        """
        self._prompt_limits.check(request.prompt_ids, request.settings)
        if request.settings.stop and not isinstance(self._policy, TextModel):
            raise ValueError(
                f"stop strings need a policy that decodes, and {type(self._policy).__name__} has no decode"
            )
        job = Job(request, on_token, on_end)
        with self._changed:
            if self._closing:
                raise ClosedError("the engine is closed and takes no more requests")
            if self.num_waiting + self.num_running >= self._most_jobs:
                raise BusyError(
                    f"{self.num_running} requests are being drawn and {self.num_waiting} wait, and no more than "
                    f"{self._most_jobs} are taken together; submit it again later"
                )
            self._waiting.append(job)
            self._changed.notify_all()
        return _EngineTicket(self, job)

    def cancel(self, job: Job) -> None:
        """Stop drawing a job; `Ticket.cancel` of the one that was submitted."""
        with self._changed:
            job.is_over = True
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.notify_all()

    def close(self, *, finish: bool = True) -> None:
        """Take no more requests, and return when all have ended; from a callback, return at once.

        Args:
            finish: end those that were submitted as usual; False ends them at once, with a `ClosedError`. After a call
                with True, one with False from another thread ends the wait.
        """
        with self._changed:
            if self._closing != "abort":
                self._closing = "finish" if finish else "abort"
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> "DecodingEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(finish=error is None)

    # In the engine's thread.

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._turn()
        finally:
            with self._changed:
                self._closing = "abort"
                left, self._running, self._waiting = [*self._running, *self._waiting], [], []
            self._batch.clear()
            for job in left:
                self._deliver(Step(job, end=ClosedError("the engine was closed before the answer had ended")))

    def _wait_for_work(self) -> bool:
        """Wait for a request; False when there will be none, or none is to be drawn any more."""
        with self._changed:
            while not (self._closing or self._running or self._waiting):
                self._changed.wait()
            return self._closing != "abort" and bool(self._running or self._waiting)

    def _turn(self) -> None:
        """Let requests leave and enter, and make one pass through the model."""
        left, entering = self._leave_and_enter()

        def advance() -> list[Step]:
            if left:
                self._batch.remove(left)
            self._batch.enter(entering)
            return self._batch.advance()

        for step in self._compute(advance) or ():
            self._deliver(step)
        self._compute(self._batch.tidy)

    def _compute(self, part: Callable[[], T]) -> T | None:
        """Return what a part of the batch's work gives; None where it failed, after which the batch is empty."""
        error: Exception
        try:
            with plain_arithmetic():
                return part()
        except Exception as found:  # whatever it is, it ends the requests under way and not the engine
            if not is_out_of_memory(found):
                logger.exception("drawing %d requests failed", self.num_running)
            error = found.with_traceback(None)
        # Not inside of `except`: until there the traceback holds all that was computed.
        self._recover(error)
        return None

    def _leave_and_enter(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs that were cancelled, and those that begin."""
        with self._changed:
            left = [job for job in self._running if job.is_over]
            self._running = [job for job in self._running if not job.is_over]
            entering = self._batch.choose(self._waiting)
            self._waiting = [job for job in self._waiting if job not in entering]
            self._running += entering
            return left, entering

    def _recover(self, error: Exception) -> None:
        """Begin again with fewer requests where memory ran out; else end those under way with the error."""
        jobs = [job for job in self._running if not job.is_over]
        freed_parked = self._batch.clear()
        free_memory()
        if is_out_of_memory(error):
            if len(jobs) > 1 or freed_parked:
                self._begin_again(jobs, str(error).partition("\n")[0])
                return
            error = DoesNotFitError(
                f"drawing one answer at a time does not fit into memory ({error}). Ask for fewer tokens, take a "
                "smaller model, or free memory of the device"
            )
        for job in jobs:
            self._deliver(Step(job, end=error))

    def _begin_again(self, jobs: list[Job], reason: str) -> None:
        """Let these be the first of those that wait, of whom half as many enter from now on."""
        if len(jobs) > 1:
            self._batch.max_jobs = len(jobs) // 2
        logger.warning(
            "drawing %d requests at once ran out of memory (%s); from now on at most %d, and texts that were kept are "
            "read again",
            len(jobs),
            reason,
            self._batch.max_jobs,
        )
        with self._changed:
            self._running = []
            self._waiting = [*jobs, *self._waiting]

    def _deliver(self, step: Step) -> None:
        """Tell the request what its step brought, unless it was cancelled."""
        job = step.job
        if job.is_over:
            return
        try:
            if step.token is not None:
                job.on_token(step.token)
        except Exception as error:
            logger.exception("on_token of a request raised; the request ends")
            self._end(job, error)
            return
        if isinstance(step.end, Exception):
            self._end(job, step.end)
        elif step.end is not None:
            self._end(job, job.completion(step.end))

    def _end(self, job: Job, outcome: Completion | Exception) -> None:
        """Tell the request its end, unless its own `on_token` has just cancelled it."""
        if job.is_over:
            return
        job.is_over = True
        try:
            job.on_end(outcome)
        except Exception:
            logger.exception("on_end of a request raised; the request had ended")


class _EngineTicket:
    """A request that was submitted to an engine."""

    def __init__(self, engine: DecodingEngine, job: Job) -> None:
        self._engine, self._job = engine, job

    def cancel(self) -> None:
        """Stop drawing, and free what the request holds."""
        self._engine.cancel(self._job)


def _make_batch(sampler: LocalSampler, limits: ServiceLimits) -> DrawBatch:
    if sampler.reason_for_transformers():
        return RequestRounds(sampler)
    policy = sampler.policy
    drawing = MixedDrawing(
        num_slots=sampler.max_batch,
        policy_temperature=policy.temperature,
        end_ids=policy.end_ids,
        decode=policy.decode if isinstance(policy, TextModel) else None,
    )
    return RequestLanes(sampler.own_decoder(num_positions=256), drawing, max_batch=sampler.max_batch, limits=limits)
