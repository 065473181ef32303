"""Draws in another thread, as events of this one's loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

from klimb.samplers.completion import Completion
from klimb.samplers.service.requests import BusyError, ClosedError, DrawnToken, DrawRequest, DrawService, Ticket
from klimb.web.serve.openai_errors import RequestRefused

Event = tuple[int, DrawnToken | Completion]
"""The number of an answer, and its next token or, last, the whole of it."""


Tell = Callable[[int, DrawnToken | Completion | Exception], None]


RETRY_SECONDS = 1.0


class DrawFailed(RuntimeError):
    """The service could not draw an answer that it had taken."""


async def draw(service: DrawService, requests: Sequence[DrawRequest]) -> AsyncGenerator[Event]:
    """Yield the tokens of all answers as they are drawn. Whoever closes the iterator early ends the draws.

    Raises:
        RequestRefused: the service is busy or closed, or cannot draw this.
        DrawFailed: drawing failed.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[int, DrawnToken | Completion | Exception]] = asyncio.Queue()

    def tell(number: int, what: DrawnToken | Completion | Exception) -> None:
        # The loop is gone when the server ends before its draws do.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(events.put_nowait, (number, what))

    tickets: list[Ticket] = []
    try:
        for number, request in enumerate(requests):
            tickets.append(_submit(service, request, number, tell))
        num_open = len(tickets)
        while num_open:
            number, what = await events.get()
            if isinstance(what, BusyError | ClosedError):
                raise _refused(what)
            if isinstance(what, Exception):
                raise DrawFailed(f"the answer could not be drawn: {what}") from what
            num_open -= isinstance(what, Completion)
            yield number, what
    finally:
        for ticket in tickets:
            ticket.cancel()


def _submit(service: DrawService, request: DrawRequest, number: int, tell: Tell) -> Ticket:
    try:
        return service.submit(
            request, on_token=lambda token: tell(number, token), on_end=lambda ended: tell(number, ended)
        )
    except (BusyError, ClosedError, ValueError) as error:
        raise _refused(error) from error


def _refused(error: BusyError | ClosedError | ValueError) -> RequestRefused:
    if isinstance(error, ValueError):
        return RequestRefused(str(error))
    is_busy = isinstance(error, BusyError)
    return RequestRefused(
        str(error),
        status=429 if is_busy else 503,
        kind="rate_limit_error" if is_busy else "server_error",
        code="server_busy" if is_busy else "server_closing",
        retry_after=RETRY_SECONDS,
    )
