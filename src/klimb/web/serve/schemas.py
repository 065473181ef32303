"""What requests look like: OpenAI's parameters, some of vLLM's, and which others are let pass or refused."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from klimb.experience.samples import LONGEST_STOP_STRING, MOST_STOP_STRINGS, Message, SamplingSettings
from klimb.web.serve.openai_errors import RequestRefused
from klimb.web.serve.settings import ServeSettings

IGNORED = frozenset(
    {
        "chat_id",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "session_id",
        "store",
    }
)
"""Parameters of OpenAI's and of its clients that change no answer: they are let pass and do nothing."""


NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "use_beam_search": (False,),
}
"""Parameters that are known and cannot be had, with the values by which they ask for nothing."""


# Lists fail fast: a million wrong entries are one error, and not a million that take a minute in which nobody else is
# answered.
Text = Annotated[str, Field(max_length=4_000_000)]
Name = Annotated[str, Field(max_length=200)]
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP_STRING)]


MOST_PARTS = 10_000
"""Of a message's content."""


MOST_PROMPTS = 1_024
"""Of a request; a server's own limit on choices may be lower."""


class Loose(BaseModel):
    """Takes keys that it does not know, because clients send back whatever they were given."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())


class TextPart(Loose):
    """A part of a message's content."""

    type: Name
    text: Text | None = None


class FunctionCall(Loose):
    """What a call asks for; the arguments are a JSON object as text."""

    name: Name
    arguments: Text = "{}"


class CallEntry(Loose):
    """A call in an assistant's message."""

    id: Name | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class MessageEntry(Loose):
    """A message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_PARTS, fail_fast=True)] | None = None
    name: Name | None = None
    tool_call_id: Name | None = None
    tool_calls: Annotated[list[CallEntry], Field(max_length=1000, fail_fast=True)] | None = None


class ToolFunction(Loose):
    """A function on offer."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class ToolEntry(Loose):
    """A tool on offer."""

    type: Literal["function"] = "function"
    function: ToolFunction


class NamedTool(Loose):
    """A tool that must be called."""

    type: Name = "function"


class ResponseFormat(Loose):
    """What an answer must look like."""

    type: Name


class StreamOptions(Loose):
    """What a stream holds besides."""

    include_usage: bool | None = None


class SamplingRequest(Loose):
    """What requests of both kinds may say."""

    model: Annotated[str, Field(max_length=4000)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOP_STRINGS, fail_fast=True)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    metadata: Annotated[dict[str, Any], Field(max_length=64)] | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None
    safety_identifier: Annotated[str, Field(max_length=1000)] | None = None
    return_token_ids: bool | None = None
    return_sampling_mask: bool | None = None


class ChatRequest(SamplingRequest):
    """A request for answers in a conversation."""

    messages: Annotated[list[MessageEntry], Field(min_length=1, max_length=10_000, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=1000)] | None = None
    tools: Annotated[list[ToolEntry], Field(max_length=1000, fail_fast=True)] | None = None
    tool_choice: Name | NamedTool | None = None
    response_format: ResponseFormat | None = None


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=10_000_000, fail_fast=True)]


class CompletionRequest(SamplingRequest):
    """A request for what follows a text."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(max_length=MOST_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenIds], Field(max_length=MOST_PROMPTS, fail_fast=True)]
    )
    logprobs: Annotated[int, Field(ge=0, le=1000)] | None = None


def check_others(request: SamplingRequest) -> None:
    """Return if the request asks for nothing that there is not.

    Raises:
        RequestRefused: it has a parameter that is not known, or one that cannot be had with a value that asks for it.
    """
    for name, value in (request.model_extra or {}).items():
        if name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            known = ", ".join(sorted(type(request).model_fields))
            raise RequestRefused(
                f"unknown parameter {name!r}; there are: {known}", param=name, code="unknown_parameter"
            )
        if not any((type(value) is not bool and value == each) or value is each for each in NEUTRAL[name]):
            raise RequestRefused(
                f"{name} cannot be had here: leave it out, or give {json.dumps(NEUTRAL[name][0])}",
                param=name,
                code="unsupported_parameter",
            )


def check_chat(request: ChatRequest, settings: ServeSettings) -> None:
    """Return if a chat request asks for what there is.

    Raises:
        RequestRefused: it asks for a form of answer that cannot be promised, or for too many alternatives.
    """
    check_others(request)
    if request.response_format is not None and request.response_format.type != "text":
        raise RequestRefused(
            f"response_format {request.response_format.type!r} cannot be promised: only 'text' is drawn here; ask for "
            "JSON in the prompt, and check what comes",
            param="response_format",
            code="unsupported_parameter",
        )
    choice = request.tool_choice
    if choice is not None and choice not in ("auto", "none"):
        raise RequestRefused(
            "tool_choice must be 'auto' or 'none': a call that is forced on the policy is not drawn from it",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if request.top_logprobs and not request.logprobs:
        raise RequestRefused("top_logprobs needs logprobs = true", param="top_logprobs")
    _check_most("top_logprobs", request.top_logprobs, settings.max_top_log_probs)


def _check_most(name: str, value: int | None, most: int) -> None:
    if value is not None and value > most:
        raise RequestRefused(f"{name} must be at most {most}, got {value}", param=name)


def check_counts(request: SamplingRequest, settings: ServeSettings) -> None:
    """Return if the request asks for no more choices and tokens than it may.

    Raises:
        RequestRefused: it does.
    """
    _check_most("n", request.n, settings.max_choices)
    _check_most(*_asked_tokens(request), settings.max_tokens)
    if isinstance(request, CompletionRequest):
        _check_most("logprobs", request.logprobs, settings.max_top_log_probs)
    if request.temperature is not None and 0 < request.temperature < LEAST_TEMPERATURE:
        raise RequestRefused(
            f"temperature must be 0, which takes the likeliest token, or at least {LEAST_TEMPERATURE}, got "
            f"{request.temperature}",
            param="temperature",
        )


LEAST_TEMPERATURE = 0.01
"""Below it logits over the temperature may be no numbers."""


def _asked_tokens(request: SamplingRequest) -> tuple[str, int | None]:
    newer = request.max_completion_tokens if isinstance(request, ChatRequest) else None
    return ("max_tokens", request.max_tokens) if newer is None else ("max_completion_tokens", newer)


def sampling_of(
    request: SamplingRequest, settings: ServeSettings, *, temperature: float, num_prompt: int, max_positions: int | None
) -> SamplingSettings:
    """Return how the answers are drawn.

    Args:
        request: what it does not say is the policy's own, with nothing cut.
        settings: the limit where the request has none.
        temperature: of the policy.
        num_prompt: tokens of the prompt.
        max_positions: that prompt and answer may have together.

    Raises:
        RequestRefused: the answer would not fit, or the settings contradict each other.
    """
    name, asked = _asked_tokens(request)
    room = None if max_positions is None else max_positions - num_prompt
    if room is not None and room < (asked or 1):
        raise RequestRefused(
            f"the prompt has {num_prompt} tokens and the answer may have {asked or 1}, but the policy has only "
            f"{max_positions} positions; shorten the prompt or {name}",
            param="messages" if isinstance(request, ChatRequest) else "prompt",
            code="context_length_exceeded",
        )
    limit = asked or min(settings.default_max_tokens, settings.max_tokens if room is None else room)
    stop = request.stop or ()
    values: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "min_new_tokens": request.min_tokens,
    }
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return SamplingSettings(
            **{"temperature": temperature, **given},
            max_new_tokens=limit,
            stop=(stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop)),
        )
    except ValueError as error:
        raise RequestRefused(str(error), param="min_tokens") from error


def messages_of(request: ChatRequest) -> tuple[Message, ...]:
    """Return the messages in klimb's form: results of tools in the order of their calls, with the tools' names.

    Raises:
        RequestRefused: a part is no text, or a message has no content.
    """
    messages: list[Message] = []
    calls: dict[str, tuple[int, str]] = {}
    results: list[tuple[int, Message]] = []
    for place, entry in enumerate(request.messages):
        if entry.role == "tool":
            number, name = calls.get(entry.tool_call_id or "", (len(results), entry.name or ""))
            results.append((number, _tool_message(_content(entry, place), name or entry.name or "")))
            continue
        messages += _in_order(results)
        results = []
        messages.append(_message(entry, place))
        if entry.tool_calls:
            calls = {call.id or "": (number, call.function.name) for number, call in enumerate(entry.tool_calls)}
    return (*messages, *_in_order(results))


def _in_order(results: Sequence[tuple[int, Message]]) -> list[Message]:
    return [message for _, message in sorted(results, key=lambda each: each[0])]


def _tool_message(content: str, name: str) -> Message:
    return {"role": "tool", "content": content, "name": name} if name else {"role": "tool", "content": content}


def _message(entry: MessageEntry, place: int) -> Message:
    role = "system" if entry.role == "developer" else entry.role
    message: Message = {"role": role, "content": _content(entry, place)}
    if entry.role == "assistant" and entry.tool_calls:
        message["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in entry.tool_calls
        ]
    return message


def _arguments(text: str) -> object:
    """Return the object in the text; the text itself where there is none, or one that no file can hold."""
    try:
        found: object = json.loads(text)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return text
    return cast(object, found) if isinstance(found, dict) else text


def _content(entry: MessageEntry, place: int) -> str:
    content = entry.content
    if isinstance(content, str):
        return content
    if content is None:
        if entry.role == "assistant":
            return ""
        raise RequestRefused(f"message {place} ({entry.role}) has no content", param=f"messages[{place}].content")
    for part in content:
        if part.type != "text" or part.text is None:
            raise RequestRefused(
                f"message {place} has a part of type {part.type!r}; only text is read here",
                param=f"messages[{place}].content",
                code="unsupported_parameter",
            )
    return "".join(part.text or "" for part in content)


def tools_offered(request: ChatRequest) -> tuple[Mapping[str, Any], ...]:
    """Return the schemas of the tools on offer, as chat templates read them."""
    if request.tool_choice == "none":
        return ()
    return tuple(tool.model_dump(exclude_none=True) for tool in request.tools or ())


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """Return the prompts: texts, or lists of ids.

    Raises:
        RequestRefused: there is none.
    """
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [cast(list[int], prompt)]
    if not prompt:
        raise RequestRefused("prompt is an empty list; give a text or token ids", param="prompt")
    return cast(list[str | list[int]], prompt)


def check_text(body: SamplingRequest) -> None:
    """Return if all that the request holds can be written as JSON in UTF-8.

    Raises:
        RequestRefused: half a character, a number that is none, or nesting without end.
    """
    try:
        json.dumps(body.model_dump(), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise RequestRefused(
            "the request holds text that is no Unicode (half of a surrogate pair), NaN or infinity, or nests too deep"
        ) from error
