"""What one asks of a service that draws answers, and what it hands over. Without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from klimb.experience.samples import SamplingSettings
from klimb.samplers.completion import Completion

MOST_TOP_LOG_PROBS = 20
"""Alternatives of a token whose log-probabilities can be asked for."""

MOST_SEEDS = 2**64
"""Seeds lie between 0 and this − 1."""


class BusyError(RuntimeError):
    """More requests wait than the service lets wait; the same request may be submitted again later."""


class ClosedError(RuntimeError):
    """The service was closed before the request ended, or before it came."""


@dataclass(frozen=True, kw_only=True)
class DrawRequest:
    """One answer to be drawn.

    Attributes:
        prompt_ids: after which it is drawn; at least one.
        settings: of the draws.
        seed: of the random numbers, 0 to 2^64 − 1. Same prompt, settings, seed and weights give the same tokens.
        num_top_log_probs: how many of the likeliest tokens are handed over with each token.
        keep_support: hand over which tokens could be drawn, where some could not.
    """

    prompt_ids: tuple[int, ...]
    settings: SamplingSettings
    seed: int
    num_top_log_probs: int = 0
    keep_support: bool = True

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("prompt_ids is empty; the first token needs at least one token before it")
        if not 0 <= self.seed < MOST_SEEDS:
            raise ValueError(f"seed must be in 0 to 2**64 - 1, got {self.seed}")
        if not 0 <= self.num_top_log_probs <= MOST_TOP_LOG_PROBS:
            raise ValueError(f"num_top_log_probs must be in 0 to {MOST_TOP_LOG_PROBS}, got {self.num_top_log_probs}")


@dataclass(frozen=True, kw_only=True)
class DrawnToken:
    """One token of an answer.

    Attributes:
        token_id: the drawn one.
        log_mu: its log-probability in nats under the distribution it was drawn from.
        log_model: under the policy itself: at its own temperature, nothing cut off.
        top: ids and log-probabilities under the policy itself of the likeliest tokens, in descending order.
        support: ids of the tokens that could be drawn, ascending; None where all could, or nobody asked for it.
    """

    token_id: int
    log_mu: float
    log_model: float
    top: tuple[tuple[int, float], ...] = ()
    support: tuple[int, ...] | None = None


OnToken = Callable[[DrawnToken], None]
"""Called with each token of an answer, in order."""

OnEnd = Callable[[Completion | Exception], None]
"""Called once, last, with the whole answer or with what kept it from being drawn."""


@runtime_checkable
class Ticket(Protocol):
    """One submitted request."""

    def cancel(self) -> None:
        """Stop drawing, and free what the request holds.

        No callback begins after this has returned, `on_end` included; one may be running still. It may be called from
        any thread; after the end it does nothing.
        """
        ...


@runtime_checkable
class DrawService(Protocol):
    """Anything that draws answers to requests that come at any time."""

    @property
    def num_running(self) -> int:
        """Requests whose tokens are being drawn."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests that have not begun."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Tokens that prompt and answer may have together; None: any number."""
        ...

    def submit(self, request: DrawRequest, *, on_token: OnToken, on_end: OnEnd) -> Ticket:
        """Take the request; both callbacks are called in the service's thread and must return soon.

        Raises:
            ValueError: the request cannot be drawn: too long for the positions, or ids outside the vocabulary.
            BusyError: too many are waiting.
            ClosedError: the service is closed.
        """
        ...

    def close(self, *, finish: bool = True) -> None:
        """Take no more requests, and return when all have ended.

        Args:
            finish: end those that were submitted as usual; False ends them at once, with a `ClosedError`.
        """
        ...
