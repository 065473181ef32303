"""What goes between a program and the policy: a call, what is said to it, and whoever carries both."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from klimb.experience.samples import Message
from klimb.samplers.completion import Completion
from klimb.tasks.programs.outcome import ProgramEnd
from klimb.tasks.tools.call_format import ParsedTurn


class CallRefused(ValueError):
    """A call that is not answered by a turn; the program is told why, and may go on.

    Attributes:
        code: in a word, as OpenAI's API has it.
    """

    def __init__(self, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a call is answered with.

    Attributes:
        prompt_ids: after which it was drawn.
        completion: the turn.
        content: what it says beside its calls of tools.
        parsed: its calls of tools; None where none were on offer.
    """

    prompt_ids: tuple[int, ...]
    completion: Completion
    content: str
    parsed: ParsedTurn | None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of a program.

    Attributes:
        messages: the conversation so far, as the program has it.
        tools: schemas of the tools that it offers.
        overruled: settings that it asks for and does not get, by their names.
        answer: resolved by whoever draws, or with a `CallRefused`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    overruled: tuple[str, ...] = ()
    answer: Future[Said] = field(default_factory=Future)

    def say(self, said: Said) -> None:
        """Answer the call; a program that is gone hears nothing."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(said)

    def refuse(self, refused: CallRefused) -> None:
        """Tell the program why there is no answer."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_exception(refused)


@runtime_checkable
class Endpoint(Protocol):
    """Where programs call. It answers while it is entered, and is entered by whoever makes it."""

    @property
    def base_url(self) -> str:
        """Address that an OpenAI client takes, on this machine."""
        ...

    def open(self, take: Callable[[Call], None]) -> str:
        """Return a new key; `take` is called with each call that is made with it, and must return soon."""
        ...

    def close(self, key: str) -> None:
        """Let the key be worth nothing from now on."""
        ...


class Inbox:
    """What a program does, one thing after the other: its calls, then its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._end: ProgramEnd | None = None
        self._asked: Future[Call | ProgramEnd] | None = None

    def put(self, what: Call | ProgramEnd) -> None:
        """Take a call, or the end. Calls that are left when a program ends were made by nobody who waits."""
        with self._lock:
            if isinstance(what, ProgramEnd):
                self._end, left = what, list(self._calls)
                self._calls.clear()
            elif self._end is not None:
                left = [what]
            else:
                left = []
                self._calls.append(what)
            asked, found = self._asked, self._take() if self._asked is not None else None
            if found is not None:
                self._asked = None
        for call in left:
            call.refuse(CallRefused("the program has ended", code="sample_is_over"))
        if asked is not None and found is not None:
            asked.set_result(found)

    def next(self) -> Future[Call | ProgramEnd]:
        """Return what the program does next; asked for again only once it is known."""
        asked: Future[Call | ProgramEnd] = Future()
        with self._lock:
            found = self._take()
            if found is None:
                self._asked = asked
        if found is not None:
            asked.set_result(found)
        return asked

    def _take(self) -> Call | ProgramEnd | None:
        return self._calls.popleft() if self._calls else self._end
