"""How a reward function is called: for one response or for several, waiting or not, in klimb's words or in TRL's.

A function's parameters say it:

    f(prompt, response, answer, metadata)          one response; three texts and a dict
    f(prompts, responses, answers, metadatas)      all responses to one problem that are scored together, as lists
    f(prompts, completions, NAME, ...)             TRL's: the same, with each column of the data as a list

`messages`, where it is a parameter, is the conversation before the response (a list of them in the second form).
TRL's form gets prompts as lists of messages and completions as lists of one message, as TRL gives them for a chat, and
as texts where `completions` is annotated `list[str]`. Its columns are those of the task's file with the values that
they have there, and `answer` where none has that name: the column of `task.answer`, as text.

After a conversation each of TRL's completions is the list of all messages behind the prompt: the policy's, results of
tools, a user's. `environments`, where TRL's function takes it, is the list of environments as the conversations left
them; None in the place of one that was lost. klimb's own two forms get them as `environment` and as `environments`,
and the messages behind the prompt as `completion` in the first one, where they are parameters.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from klimb.tasks.batches import Batches, BatchLimits
from klimb.tasks.protocol import Problem, Response

Form = Literal["one", "lists", "trl"]


ARGUMENTS: Mapping[Form, tuple[str, ...]] = {
    "one": ("prompt", "response", "answer", "metadata"),
    "lists": ("prompts", "responses", "answers", "metadatas"),
    "trl": ("prompts", "completions"),
}
"""What each form is called with; what a function of TRL's does not name it does not get."""


NOT_IN_TRL = ("prompt", "completion", "completion_ids")
"""Columns that TRL keeps to itself."""


CONVERSATION = "messages"


COMPLETION, ENVIRONMENT, ENVIRONMENTS = "completion", "environment", "environments"
"""Parameters of functions that look at a conversation with an environment."""


OPTIONAL: Mapping[Form, tuple[str, ...]] = {
    "one": (CONVERSATION, COMPLETION, ENVIRONMENT),
    "lists": (CONVERSATION, ENVIRONMENTS),
    "trl": (),
}
"""What a form gets only where its function has such a parameter."""


@dataclass(frozen=True)
class RewardCall:
    """A reward function and the way it is called; returns what it returned, or raised, for each response.

    Attributes:
        function: what is called.
        location: where it is, for people.
        form: what it is called with.
        named: its parameters.
        takes_all: whether it takes arguments that it does not name.
        is_async: whether it is to be awaited.
    """

    function: Callable[..., Any]
    location: str
    form: Form
    named: tuple[str, ...]
    takes_all: bool
    is_async: bool

    @property
    def batches(self) -> Batches:
        """Functions of one response do not care with which others it comes; those of lists may."""
        if self.form != "one":
            return "group"
        return "any" if self.is_async else "one"

    def __call__(self, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits) -> list[object]:
        """Return what the function gives for each response; an exception where it raised for that one alone.

        Raises:
            ValueError: a function of lists did not return one entry a response.
        """
        if self.form == "one":
            calls = [self._of_one(*pair) for pair in zip(problems, responses, strict=True)]
            if self.is_async:
                return _loop().run_until_complete(_wait_for_all(self.function, calls, limits))
            return [_result_or_error(self.function, call) for call in calls]
        arguments = self._of_lists(problems, responses) if self.form == "lists" else self._of_trl(problems, responses)
        returned = self.function(**arguments)
        if inspect.isawaitable(returned):
            returned = _loop().run_until_complete(_awaited(returned))
        return self._as_list(returned, len(responses))

    def _of_one(self, problem: Problem, response: Response) -> dict[str, Any]:
        given = {
            "prompt": problem.messages[-1]["content"],
            "response": response.text,
            "answer": problem.answer,
            "metadata": dict(problem.metadata),
        }
        extra: dict[str, Callable[[], object]] = {
            CONVERSATION: lambda: _messages(problem),
            **(_of_conversation(response) if _is_conversation(response) else {}),
        }
        return given | {name: find() for name, find in extra.items() if name in self.named}

    def _of_lists(self, problems: Sequence[Problem], responses: Sequence[Response]) -> dict[str, Any]:
        given: dict[str, Any] = {
            "prompts": [problem.messages[-1]["content"] for problem in problems],
            "responses": [response.text for response in responses],
            "answers": [problem.answer for problem in problems],
            "metadatas": [dict(problem.metadata) for problem in problems],
        }
        extra: dict[str, Callable[[], object]] = {CONVERSATION: lambda: list(map(_messages, problems))}
        if any(map(_is_conversation, responses)):
            extra[ENVIRONMENTS] = lambda: [response.environment for response in responses]
        return given | {name: find() for name, find in extra.items() if name in self.named}

    def _of_trl(self, problems: Sequence[Problem], responses: Sequence[Response]) -> dict[str, Any]:
        rows = [{**problem.metadata, "answer": problem.answer, **problem.columns} for problem in problems]
        names = dict.fromkeys(name for row in rows for name in row if name not in NOT_IN_TRL)
        given: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
        if _wants_texts(self.function):
            given["prompts"] = [problem.messages[-1]["content"] for problem in problems]
            given["completions"] = [response.text for response in responses]
        else:
            given["prompts"] = list(map(_messages, problems))
            given["completions"] = list(map(_completion, responses))
        if any(response.environment is not None for response in responses):
            given[ENVIRONMENTS] = [response.environment for response in responses]
        wanted = given if self.takes_all else {name: value for name, value in given.items() if name in self.named}
        try:
            inspect.signature(self.function).bind(**wanted)
        except TypeError as error:
            raise ValueError(
                f"{self.location}: {error}; there are {', '.join(sorted(given))} (the columns of the file, and "
                "`answer` for that of task.answer)"
            ) from None
        return wanted

    def _as_list(self, returned: object, count: int) -> list[object]:
        listed = returned.tolist() if hasattr(returned, "tolist") else returned  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(listed, str | Mapping) or not isinstance(listed, Iterable):
            raise ValueError(
                f"{self.location} returned {type(returned).__name__} {returned!r}"[:120]
                + f", expected a list of {count} rewards, one a response"
            )
        entries = list(listed)
        if len(entries) != count:
            raise ValueError(
                f"{self.location} returned {len(entries)} rewards for {count} responses, expected one each"
            )
        return entries


def read_call(function: Callable[..., Any], location: str) -> RewardCall:
    """Return how the function is to be called.

    Raises:
        ValueError: it does not take what its form is called with.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    named = tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY))
    form: Form = "trl" if "completions" in named else "lists" if "responses" in named else "one"
    called = ARGUMENTS[form] if form != "trl" else named
    extra = tuple(name for name in OPTIONAL[form] if name in named)
    try:
        signature.bind(**dict.fromkeys((*called, *extra)))
    except TypeError as error:
        raise ValueError(
            f"{location} must take the arguments {', '.join(called)} by name, but its signature is {signature}"
        ) from error
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    return RewardCall(function, location, form, named, takes_all, _is_async(function))


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _wants_texts(function: Callable[..., Any]) -> bool:
    annotation = inspect.signature(function).parameters["completions"].annotation
    return str(annotation).replace("typing.", "").lower() in ("list[str]", "sequence[str]")


def _messages(problem: Problem) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in problem.messages]


def _is_conversation(response: Response) -> bool:
    return bool(response.messages) or response.environment is not None


def _of_conversation(response: Response) -> dict[str, Callable[[], object]]:
    return {COMPLETION: lambda: _completion(response), ENVIRONMENT: lambda: response.environment}


def _completion(response: Response) -> list[dict[str, Any]]:
    if response.messages:
        return [dict(message) for message in response.messages]
    return [{"role": "assistant", "content": response.text}]


def _result_or_error(function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
    try:
        return function(**arguments)
    # The user's own code, which may raise anything: it costs this response.
    except Exception as error:
        return error


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the one loop of this process: what a module opens in it, such as a session of HTTP, stays usable."""
    return asyncio.new_event_loop()


async def _awaited(returned: Awaitable[Any]) -> Any:
    return await returned


async def _wait_for_all(
    function: Callable[..., Awaitable[Any]], calls: Sequence[Mapping[str, Any]], limits: BatchLimits
) -> list[object]:
    """Return what each call gave or raised; so many wait at the same time, and each so long."""
    room = asyncio.Semaphore(limits.max_concurrent)

    async def ask(arguments: Mapping[str, Any]) -> object:
        async with room:
            try:
                return await asyncio.wait_for(function(**arguments), limits.timeout_seconds)
            except TimeoutError:
                return TimeoutError(f"timed out after {limits.timeout_seconds:g} s")
            # The user's own code, which may raise anything: it costs this response.
            except Exception as error:
                return error

    return list(await asyncio.gather(*map(ask, calls)))
