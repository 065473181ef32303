"""One conversation with an environment: how it opens, what answers the policy's turns, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from klimb.experience.samples import Message, ToolCall
from klimb.tasks.environments.processes import EnvironmentDied, Host
from klimb.tasks.environments.requests import Close, Finish, Tell
from klimb.tasks.environments.view import EnvironmentView, read_view
from klimb.tasks.shown_text import shown_line
from klimb.tasks.tools import CallFormat, Tool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What answers a turn of the policy.

    Attributes:
        messages: results of tools, in the order of the calls, or a user's turn; none where nothing answers.
        errors: what went wrong, one a message; empty for what went well.
        seconds: that each message took; calls that waited together took as long as all of them.
        is_over: whether the conversation ends here, before the policy would go on.
        reward: of the turn alone; None where the environment gives none.
        content: the turn without its calls.
        calls: the tools that the turn asked for.
        call_error: what could not be read of its calls, for the policy.
    """

    messages: tuple[Message, ...] = ()
    errors: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    is_over: bool
    reward: float | None = None
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_error: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a conversation; the environment's own reward is one beside those of reward functions.

    Attributes:
        reward: of the environment's `get_reward`; None where it has none, or where the sample is lost.
        view: a copy of the environment for reward functions; None where there is none, or the sample is lost.
        error: why the sample is lost, in one line; empty where it is not.
        seconds: that the environment and its tools took to answer, all in all.
        num_calls: of tools.
        num_failed_calls: those that were answered with an error; those whose tool or arguments were wrong are among
            them.
        num_slow_calls: those that took too long.
        num_unread_turns: turns whose calls could not be read.
        is_out_of_time: whether the time of a sample ended it.
    """

    reward: float | None
    view: EnvironmentView | None = None
    error: str = ""
    seconds: float = 0.0
    num_calls: int = 0
    num_failed_calls: int = 0
    num_slow_calls: int = 0
    num_unread_turns: int = 0
    is_out_of_time: bool = False


@dataclass(kw_only=True)
class Counts:
    """What a conversation has come to so far; the words are those of `Outcome`."""

    seconds: float = 0.0
    num_calls: int = 0
    num_failed_calls: int = 0
    num_slow_calls: int = 0
    num_unread_turns: int = 0
    is_out_of_time: bool = False


@dataclass(kw_only=True, eq=False)
class Episode:
    """A conversation that is open. What it is asked is done by whoever holds its environment, one thing at a time.

    Attributes:
        number: of its environment.
        host: whoever holds the environment.
        call_format: how the policy writes its calls.
        with_view: whether a copy of the environment is wanted at the end.
        opening: what is appended to the last user message.
        tools: schemas of what the policy may call.
        error: why the sample is lost, if it is: a conversation that failed has no reward.
    """

    number: int
    host: Host
    call_format: CallFormat
    with_view: bool
    opening: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    _counts: Counts = field(default_factory=Counts)
    _outcome: Outcome | None = None
    _is_closed: bool = False

    def respond(self, text: str) -> Future[Reply]:
        """Answer a turn of the policy.

        Args:
            text: as it was drawn, with the special tokens that mark calls, without the one that ends it.
        """
        if self._outcome is not None or self._is_closed:
            raise ValueError("the conversation is finished; a turn is answered before that")
        return self.host.submit(lambda: self._respond(text))

    def _respond(self, text: str) -> Reply:
        parsed = self.call_format.parse(text, [_described_by(schema) for schema in self.tools])
        heard: dict[str, Any] = {"content": parsed.content, "calls": parsed.calls, "call_error": parsed.error}
        self._counts.num_unread_turns += bool(parsed.error)
        if self.error:
            return Reply(is_over=True, **heard)
        request = Tell(number=self.number, text=text, calls=parsed.calls, error=parsed.error)
        answer = self._ask(request)
        return Reply(is_over=True, **heard) if answer is None else self._read_reply(answer, heard)

    def _read_reply(self, answer: Mapping[str, Any], heard: Mapping[str, Any]) -> Reply:
        results, counts = answer["results"], self._counts
        messages: list[Message] = [
            {"role": "tool", "name": result["name"], "content": result["content"]} for result in results
        ]
        seconds = [result["seconds"] for result in results]
        errors = [shown_line(result["error"]) for result in results]
        calls = results[: len(heard["calls"])]
        counts.num_calls += len(calls)
        counts.num_failed_calls += sum(bool(call["error"]) for call in calls)
        counts.num_slow_calls += sum(call["is_slow"] for call in calls)
        counts.is_out_of_time = counts.is_out_of_time or answer["is_out_of_time"]
        if counts.num_slow_calls:
            self.host.is_clean = False
        if answer["user"] is not None:
            messages.append({"role": "user", "content": answer["user"]})
            seconds.append(answer["user_seconds"])
            errors.append("")
        counts.seconds += sum(seconds)
        return Reply(
            messages=tuple(messages),
            errors=tuple(errors),
            seconds=tuple(seconds),
            is_over=answer["is_over"],
            reward=answer["reward"],
            **heard,
        )

    def _ask(self, request: Tell | Finish) -> dict[str, Any] | None:
        """Return the answer; None, and the sample is lost, where there is none."""
        try:
            answer = self.host.ask(request)
        except EnvironmentDied as error:
            answer = {"failure": str(error)}
        if "failure" not in answer:
            return answer
        self.error = shown_line(answer["failure"])
        if answer.get("is_slow"):
            self.host.is_clean = False
        return None

    def finish(self) -> Outcome:
        """Ask the environment for its reward and a copy of itself; the conversation has ended."""
        return self.begin_finish().result()

    def begin_finish(self) -> Future[Outcome]:
        """Do what `finish` does without waiting for it."""
        return self.host.submit(self._finish)

    def _finish(self) -> Outcome:
        if self._outcome is None:
            answer = None if self.error else self._ask(Finish(number=self.number, with_view=self.with_view))
            if answer is None:
                self._outcome = Outcome(reward=None, error=self.error, **vars(self._counts))
            else:
                view = None if answer["view"] is None else read_view(answer["view"])
                self._outcome = Outcome(reward=answer["reward"], view=view, **vars(self._counts))
        return self._outcome

    def close(self) -> None:
        """Let the environment close what it opened, without waiting for it; the conversation may have ended or not."""
        if not self._is_closed:
            self._is_closed = True
            self.host.submit(self._close)

    def _close(self) -> None:
        try:
            answer = self.host.ask(Close(number=self.number))
            if "failure" in answer:
                self.host.is_clean = False
        except EnvironmentDied:
            pass  # there is nothing left to be closed
        finally:
            self.host.numbers.discard(self.number)


def _described_by(schema: Mapping[str, Any]) -> Tool:
    """Return what a format reads of a tool: whoever holds the environment calls it."""
    told = schema["function"]
    return Tool(
        name=told["name"], description=told["description"], parameters=told["parameters"], function=_call_elsewhere
    )


def _call_elsewhere(**arguments: object) -> object:
    raise NotImplementedError("a tool is called where its environment is")
