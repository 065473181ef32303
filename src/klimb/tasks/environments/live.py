"""Environments in the process that holds them: how each is made, reset, told a turn, asked for its reward and closed.

What the code of others raises here is an answer, and no limit is kept here: whoever holds the environments says how a
call is ended that takes too long.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from klimb.experience.samples import ToolCall
from klimb.tasks.environments.random_state import RandomState
from klimb.tasks.environments.requests import Close, Finish, Inspect, Open, Request, Tell
from klimb.tasks.environments.view import view_of
from klimb.tasks.python_rewards import as_number
from klimb.tasks.tools import Tool, check_arguments, tools_of

LONGEST_RESULT = 1_000_000
"""Characters of a result that are passed on: no model reads more."""


LONGEST_ERROR = 10_000
"""Characters of an error that are."""


ASYNC_GRACE_SECONDS = 1.0
"""What waits for several calls is interrupted so much later than each of them."""


class TookTooLong(BaseException):
    """A call is over its time. Not an Exception, so that code of others does not take it for an error of its own."""


TimeLimit = Callable[[float], AbstractContextManager[None]]
"""Raises `TookTooLong` within its block once so many seconds are over, where that can be done."""


class Refused(ValueError):
    """The environment is not one, or cannot be reset with what the problems have: no sample could be made with it."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What environments of a run are made of.

    Attributes:
        factory: makes one; None where there are tools alone.
        tools: offered besides those of the environment.
        name: of the factory, for people.
        call_seconds: that a call may take.
        sample_seconds: that all calls of one environment may take.
    """

    factory: Callable[[], object] | None
    tools: tuple[Tool, ...]
    name: str
    call_seconds: float
    sample_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one call: the message's text, what went wrong, and how long it took."""

    name: str
    content: str
    error: str = ""
    seconds: float = 0.0
    is_slow: bool = False


class Stage:
    """The environments that one process holds, by number. One is at work at a time."""

    def __init__(self, offer: Offer, limit: TimeLimit) -> None:
        self._offer = offer
        self._limit = limit
        self._live: dict[int, LiveEnvironment] = {}

    def answer(self, request: Request) -> dict[str, Any]:
        """Return what came of a request: `failure` where the environment failed, `refused` where it is of no use."""
        try:
            return self._answer(request)
        except Refused as error:
            return {"refused": str(error)}
        except TookTooLong as error:
            return {"failure": str(error), "is_slow": True}
        # Code of others, which may raise anything: it costs this sample.
        except (Exception, SystemExit) as error:
            return {"failure": describe_error(error)}

    def _answer(self, request: Request) -> dict[str, Any]:
        match request:
            case Inspect():
                return LiveEnvironment(self._offer, self._limit, seed=0).describe()
            case Open():
                live = LiveEnvironment(self._offer, self._limit, seed=request.seed)
                self._live[request.number] = live
                return live.open(request.row)
            case Tell():
                return self._live[request.number].tell(request)
            case Finish():
                return self._live[request.number].finish(with_view=request.with_view)
            case Close():
                live = self._live.pop(request.number, None)
                return {} if live is None else live.close()


class LiveEnvironment:
    """One environment, with the tools that it offers and random numbers of its own."""

    def __init__(self, offer: Offer, limit: TimeLimit, *, seed: int) -> None:
        self._offer = offer
        self._limit = limit
        self._random = RandomState(seed)
        self._seed = seed
        self._seconds_left = math.inf if offer.sample_seconds is None else offer.sample_seconds
        self._environment: Any = None
        self._tools: dict[str, Tool] = {}
        self._make()

    def _make(self) -> None:
        if self._offer.factory is not None:
            with self._at_work():
                self._environment = self._offer.factory()
            if not callable(getattr(self._environment, "reset", None)):
                raise Refused(
                    f"{self._offer.name} makes {type(self._environment).__name__}, which has no method `reset`: "
                    "expected an environment as TRL's environment_factory makes them"
                )
        for tool in (*self._offer.tools, *self._own_tools()):
            if tool.name in self._tools:
                raise Refused(f"{self._offer.name}: two tools are called {tool.name!r}; rename one of them")
            self._tools[tool.name] = tool

    def _own_tools(self) -> tuple[Tool, ...]:
        if self._environment is None:
            return ()
        # A door to a server knows its tools once it is open; others have theirs as methods.
        offered = getattr(self._environment, "_offer_tools", None)
        try:
            if offered is None:
                return tools_of(self._environment)
            with self._limit(self._offer.call_seconds):
                return offered()
        except ValueError as error:
            raise Refused(f"{self._offer.name}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Return what such environments offer, and close this one."""
        # It was never reset, and what is closed without that may raise anything.
        with suppress(Exception):
            self.close()
        return {"tools": self._schemas(), "has_reward": self._gives_rewards()}

    def _gives_rewards(self) -> bool:
        return any(hasattr(self._environment, name) for name in ("get_reward", "get_turn_reward"))

    def _schemas(self) -> list[dict[str, Any]]:
        return [tool.schema for tool in self._tools.values()]

    def open(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset the environment with the problem's row; the text is appended to the user's message."""
        opening = None
        if self._environment is not None:
            arguments = arguments_of(self._environment.reset, row, seed=self._seed, name=self._offer.name)
            with self._at_work():
                opening = _complete(self._environment.reset(**arguments))
        if opening is not None and not isinstance(opening, str | list):
            raise TypeError(f"reset returned {type(opening).__name__}, expected a text or None")
        return {"opening": "" if opening is None else as_text(opening), "tools": self._schemas()}

    def tell(self, request: Tell) -> dict[str, Any]:
        """Carry out the calls of a turn, or let the environment answer a turn without calls."""
        results = self._call_all(request.calls)
        if request.error:
            results.append(Result(name="unknown", content=str({"error": request.error}), error=request.error))
        said, seconds = None, 0.0
        if not results and hasattr(self._environment, "respond"):
            begin = time.monotonic()
            with self._at_work():
                said = _complete(self._environment.respond(request.text))
            seconds = time.monotonic() - begin
        if said is not None and not isinstance(said, str):
            raise TypeError(f"respond returned {type(said).__name__}, expected the user's text or None")
        return {
            "results": [vars(result) for result in results],
            "user": None if said is None else as_text(said),
            "user_seconds": seconds,
            "reward": self._read_reward("get_turn_reward"),
            "is_over": (not results and said is None) or self._is_done() or self._is_out_of_time,
            "is_out_of_time": self._is_out_of_time,
        }

    def _is_done(self) -> bool:
        with self._at_work():
            done = getattr(self._environment, "done", False)
            # A method of that name is a tool.
            return bool(done) and not callable(done)

    @property
    def _is_out_of_time(self) -> bool:
        return self._seconds_left <= 0

    def finish(self, *, with_view: bool) -> dict[str, Any]:
        """Return the environment's reward and a copy of it."""
        reward = self._read_reward("get_reward")
        if self._environment is None or not with_view:
            return {"reward": reward, "view": None}
        with self._at_work():
            return {"reward": reward, "view": view_of(self._environment).as_json()}

    def close(self) -> dict[str, Any]:
        """Let the environment close what it opened."""
        if hasattr(self._environment, "close"):
            with self._at_work():
                _complete(self._environment.close())
        return {}

    def _read_reward(self, name: str) -> float | None:
        method = getattr(self._environment, name, None)
        if method is None:
            return None
        with self._at_work():
            returned = _complete(method())
        reward = None if returned is None else as_number(returned)
        if returned is not None and reward is None:
            raise ValueError(f"{name} returned {type(returned).__name__} {returned!r:.60}, expected a finite number")
        return reward

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Let it draw its own random numbers, for as long as a call may take. Its end is never out of time."""
        begin = time.monotonic()
        try:
            with self._random.in_use(), self._limit(self._offer.call_seconds):
                yield
        except TookTooLong:
            raise TookTooLong(f"took longer than {self._offer.call_seconds:g} s") from None
        finally:
            self._seconds_left -= time.monotonic() - begin

    def _call_all(self, calls: Sequence[ToolCall]) -> list[Result]:
        """Return the results in the order of the calls. Those that can wait are carried out last, and together."""
        results: dict[int, Result] = {}
        waiting: dict[int, tuple[Tool, dict[str, Any]]] = {}
        for place, call in enumerate(calls):
            tool, arguments, error = self._read_call(call)
            if tool is None or error:
                results[place] = _failed(call.name, error)
            elif tool.is_async:
                waiting[place] = tool, arguments
            else:
                results[place] = self._call(tool, arguments)
        results |= dict(zip(waiting, self._call_together(list(waiting.values())), strict=True))
        return [results[place] for place in range(len(calls))]

    def _read_call(self, call: ToolCall) -> tuple[Tool | None, dict[str, Any], str]:
        """Return the tool, its arguments, and what is wrong with the call."""
        tool = self._tools.get(call.name)
        if tool is None:
            return None, {}, f"Tool {call.name} not found."
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError as error:
            return tool, {}, f"The arguments are no JSON: {error}"
        return tool, arguments, check_arguments(tool, arguments)

    def _call(self, tool: Tool, arguments: Mapping[str, Any]) -> Result:
        if self._is_out_of_time:
            return _failed(tool.name, self._out_of_time)
        begin = time.monotonic()
        try:
            with self._random.in_use(), self._limit(min(self._offer.call_seconds, self._seconds_left)):
                returned = _complete(tool.function(**arguments))
        except TookTooLong as error:
            returned = error
        # Code of others, which may raise anything: it costs this call.
        except (Exception, SystemExit) as error:
            returned = error
        seconds = time.monotonic() - begin
        self._seconds_left -= seconds
        return self._result_of(tool, returned, seconds)

    def _call_together(self, waiting: Sequence[tuple[Tool, dict[str, Any]]]) -> list[Result]:
        if not waiting:
            return []
        if self._is_out_of_time:
            return [_failed(tool.name, self._out_of_time) for tool, _ in waiting]
        begin, limit = time.monotonic(), min(self._offer.call_seconds, self._seconds_left)
        try:
            with self._random.in_use(), self._limit(limit + ASYNC_GRACE_SECONDS):
                returned = _run(_wait_for_all(waiting, limit))
        except TookTooLong as error:
            returned = [error] * len(waiting)
        seconds = time.monotonic() - begin
        self._seconds_left -= seconds
        return [self._result_of(tool, each, seconds) for (tool, _), each in zip(waiting, returned, strict=True)]

    @property
    def _out_of_time(self) -> str:
        return f"the conversation took longer than its {self._offer.sample_seconds:g} s"

    def _result_of(self, tool: Tool, returned: object, seconds: float) -> Result:
        if isinstance(returned, TookTooLong):
            limit = self._out_of_time if self._is_out_of_time else f"took longer than {self._offer.call_seconds:g} s"
            return _failed(tool.name, limit, seconds=seconds, is_slow=True)
        try:
            if isinstance(returned, BaseException):
                return _failed(tool.name, str(returned) or type(returned).__name__, seconds=seconds)
            return Result(name=tool.name, content=as_text(returned), seconds=seconds)
        # The result's own `__str__`, or the error's, which may raise anything.
        except Exception as error:
            return _failed(tool.name, describe_error(error), seconds=seconds)


def _failed(name: str, error: str, *, seconds: float = 0.0, is_slow: bool = False) -> Result:
    """Return the error as TRL writes it for the policy to read."""
    error = as_text(error[:LONGEST_ERROR])
    return Result(name=name, content=str({"error": error}), error=error, seconds=seconds, is_slow=is_slow)


def arguments_of(reset: Callable[..., object], row: Mapping[str, Any], *, seed: int, name: str) -> dict[str, Any]:
    """Return those columns of the row that `reset` takes, and the seed if it takes one that is no column.

    TRL passes every column; one that the signature does not name would raise there, and is left out here.

    Raises:
        Refused: it wants a column that there is not.
    """
    signature = inspect.signature(reset)
    parameters = signature.parameters.values()
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    given = {**({"seed": seed} if "seed" in named else {}), **row}
    taken = {key: value for key, value in given.items() if takes_all or key in named}
    try:
        signature.bind(**taken)
    except TypeError as error:
        raise Refused(f"{name}: reset{signature}: {error}; a problem has {', '.join(row)}") from error
    return taken


def as_text(value: object) -> str:
    """Return a value as the text of a message; of a list of text blocks, their texts.

    Raises:
        ValueError: it is too long for any model to read.
    """
    if isinstance(value, list) and value and all(isinstance(each, dict) and "type" in each for each in value):
        others = [each["type"] for each in value if each["type"] != "text"]
        if others:
            raise ValueError(f"a block of type {others[0]!r} was returned; there are text blocks alone")
        text = "".join(str(each.get("text", "")) for each in value)
    else:
        text = str(value)
    if len(text) > LONGEST_RESULT:
        raise ValueError(f"the result has {len(text):,} characters, more than {LONGEST_RESULT:,}")
    # Half a surrogate pair is no text to a tokenizer.
    return text.encode("utf-8", "replace").decode("utf-8")


def describe_error(error: BaseException) -> str:
    """Return an exception in one line."""
    try:
        lines = str(error).strip().splitlines()
    # The error's own `__str__`, which may raise anything.
    except Exception:
        lines = []
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _complete(returned: Any) -> Any:
    """Return the value, awaited where it is to be."""
    return _run(_await(returned)) if inspect.isawaitable(returned) else returned


async def _await(returned: Any) -> Any:
    return await returned


async def _wait_for_all(waiting: Sequence[tuple[Tool, Mapping[str, Any]]], seconds: float) -> list[object]:
    return list(await asyncio.gather(*(_wait_for(tool, arguments, seconds) for tool, arguments in waiting)))


async def _wait_for(tool: Tool, arguments: Mapping[str, Any], seconds: float) -> object:
    try:
        async with asyncio.timeout(seconds) as timer:
            return await tool.function(**arguments)  # pyright: ignore[reportGeneralTypeIssues]
    # Code of others, which may raise anything, also a TimeoutError of its own: it costs this call.
    except (Exception, TookTooLong) as error:
        return TookTooLong() if timer.expired() else error


_LOOPS: list[asyncio.AbstractEventLoop] = []
"""The loop of this process, once there is one: what is opened in it, such as a session of HTTP, stays usable."""


def _run(work: Any) -> Any:
    """Return what the coroutine returns."""
    if not _LOOPS:
        _LOOPS.append(asyncio.new_event_loop())
    try:
        return _LOOPS[0].run_until_complete(work)
    except TookTooLong:
        # Nobody knows what an interrupted loop would still do.
        _LOOPS.clear()
        raise
