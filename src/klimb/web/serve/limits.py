"""How much one client may ask of the server, and how often."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from klimb.declarations import MOST, Count, configurable
from klimb.web.serve.openai_errors import RequestRefused

MOST_CLIENTS = 10_000
"""Clients whose requests are counted at once; of more, the one that was quiet longest is forgotten."""


@configurable
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a client may send. A request beyond one is refused with a message that names it."""

    max_body_bytes: Annotated[int, Ge(1_000), Le(64_000_000)] = 4_000_000
    """Largest body of a request."""
    body_seconds: Annotated[float, Gt(0), Le(600)] = 20.0
    """A body that has not arrived whole by then is given up."""
    max_json_depth: Annotated[int, Ge(4), Le(200)] = 32
    """Levels of lists and objects in a body."""
    max_messages: Count = 1_000
    """Messages of one conversation."""
    max_new_tokens: Count = 4_096
    """What `max_tokens` and `max_completion_tokens` may ask for."""
    max_choices: Annotated[int, Ge(1), Le(128)] = 16
    """What `n` may ask for."""
    requests_per_minute: Annotated[float, Gt(0), Le(MOST)] = 600.0
    """Of one key, and of one address where keys are not required; as many may come at once."""
    refusals_per_minute: Annotated[float, Gt(0), Le(MOST)] = 60.0
    """Requests of one address with a key that opens nothing; beyond, such are refused with 429. A valid key is heard
    still."""
    max_concurrent: Count = 256
    """Requests that are answered at the same time."""
    max_concurrent_of_client: Count = 64
    """The same, of one key or address."""


class Rate:
    """Requests of clients in a minute, each a bucket of tokens that fills evenly (Turner 1986).

    Args:
        per_minute: tokens that come in a minute, and that a bucket holds.
        clock: seconds, from any beginning on.
    """

    def __init__(self, per_minute: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = max(1.0, per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now, left = self._left(client)
        is_taken = left >= 1
        self._buckets[client] = (left - 1 if is_taken else left, now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if is_taken else (1 - left) / self._per_second

    def _left(self, client: str) -> tuple[float, float]:
        now = self._clock()
        left, since = self._buckets.get(client, (self._size, now))
        return now, min(self._size, left + (now - since) * self._per_second)


class Turnstile:
    """Counts the requests that are being answered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._num_of: dict[str, int] = {}
        self._num = 0

    @contextmanager
    def pass_one(self, client: str) -> Generator[None]:
        """Count the client's request while the block runs.

        Raises:
            RequestRefused: too many are being answered.
        """
        if self._num >= self._limits.max_concurrent:
            raise RequestRefused(
                f"{self._num} requests are being answered, and at most {self._limits.max_concurrent} are; try again "
                "in a moment",
                status=503,
                kind="server_error",
                code="overloaded",
                retry_after=1,
            )
        of_client = self._num_of.get(client, 0)
        if of_client >= self._limits.max_concurrent_of_client:
            raise too_many(
                f"{of_client} of your requests are being answered, and at most "
                f"{self._limits.max_concurrent_of_client} are",
                seconds=1,
            )
        self._num += 1
        self._num_of[client] = of_client + 1
        try:
            yield
        finally:
            self._num -= 1
            self._num_of[client] -= 1
            if not self._num_of[client]:
                del self._num_of[client]


def too_many(what: str, *, seconds: float) -> RequestRefused:
    """Return the refusal of a client that asks too often."""
    seconds = math.ceil(seconds)
    return RequestRefused(
        f"{what}; try again in {seconds} s",
        status=429,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=seconds,
    )
