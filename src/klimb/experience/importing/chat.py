"""What several kinds of rows write alike: group and user.

A request and its response as chat servers log them: where each part stands in the many shapes of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from klimb.experience.importing.cells import (
    first_of,
    listed,
    mapping,
    messages,
    name_of,
    seconds,
    token_ids,
    tool_schemas,
    unpacked,
    whole_number,
)
from klimb.experience.importing.conversations import Said, check_thoughts, read_answer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.request_settings import flat_settings, settings_among
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.importing.users import user_in
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import FinishReason, Message

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
}


class GroupAndUser(TypedDict):
    """Fields of a `ParsedRow` that rows of several kinds have in columns of their own."""

    group: str
    user: str
    created_at: float


def group_and_user(row: Row) -> GroupAndUser:
    """Return the row's group, user and time, under the names that logs give them."""
    return GroupAndUser(
        group=name_of(first_of(row.values, "group", "group_id")),
        user=user_of(row.values),
        created_at=seconds(first_of(row.values, "created_at", "created", "timestamp"), row),
    )


def with_group_and_user(found: ParsedRow, row: Row) -> ParsedRow:
    """Return the same with what `group_and_user` says."""
    return replace(found, **group_and_user(row))


def user_of(values: Mapping[str, object]) -> str:
    """Return the user's id; empty if the row has none."""
    return user_in(values)


def finish_reason_of(value: object) -> FinishReason:
    """`stop`, `length`, or `unknown` for whatever else a server says."""
    value = mapping(value).get("type", value)  # SGLang: {"type": "stop", "matched": 2}
    return _FINISH_REASONS.get(value, "unknown") if isinstance(value, str) else "unknown"


REFUSAL = "refusal"
"""In the metadata of a response that is a model's refusal, as the server says."""


PLAIN_TEXT = "a prompt given as text, without a chat template"


SEVERAL_PARTS = "a message of several parts, which servers join in ways of their own"


_PREFIX_MARKS = ("prefix", "partial")
"""With which a request's last message says that the answer goes on with it (Mistral, DeepSeek; Moonshot, Qwen)."""


_ECHOES = ("echo", "return_full_text")


_REQUEST_MARKS = ("messages", "prompt", "text", "input_ids", "prompt_token_ids")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """What was asked, with which settings, and the choices that came back."""

    request: Mapping[str, object]
    response: Mapping[str, object]
    choices: tuple[Mapping[str, object], ...]


def exchange_of(row: Row) -> Exchange:
    """Return the parts of a row. `{request, response}`, a batch's `{body, response: {body}}`, or all in one object.

    Raises:
        RowError: no request, a failed one, or no choices.
    """
    values = row.values
    request = _request_of(values)
    response = _body(first_of(values, "response", "completion")) or values
    error = first_of(response, "error") or first_of(values, "error")
    if error:
        raise RowError("the request failed", str(error)[:200])
    choices = listed(response.get("choices"))
    if choices is None and "meta_info" in response:  # SGLang's own protocol has one response and no choices
        choices = [response]
    if not choices:
        raise RowError("no choices", "expected the server's response with its `choices`")
    if not any(name in request for name in _REQUEST_MARKS):
        raise RowError(
            "no request", "a response alone does not say what was asked; log the request's messages beside it"
        )
    return Exchange(request=request, response=response, choices=tuple(map(mapping, choices)))


def found_in(exchange: Exchange, row: Row, rules: ImportRules, *, part: int) -> ParsedRow:
    """Return what the row says of one choice, as text; token ids and log-probabilities are the kinds' own."""
    choice, request, response = exchange.choices[part], exchange.request, exchange.response
    prompt_ids = token_ids(prompt_ids_of(exchange, choice), what="prompt_token_ids")
    said = _said(choice, request)
    if not prompt_ids:
        _check_no_prefix(request)
    return ParsedRow(
        prompt=_prompt(request),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(first_of(request, "tools", "functions"), row),
        finish_reason=_finish_reason(choice),
        row_id=name_of(
            first_of(response, "id") or mapping(response.get("meta_info")).get("id") or row.values.get("id")
        ),
        part=_indices(exchange.choices)[part],
        group=name_of(first_of(row.values, "group", "group_id")),
        reward=reward(_reward(exchange, choice, row), rules, row),
        prompt_ids=prompt_ids,
        request=settings_among(request) if request is row.values else flat_settings(request),
        prompt_notes=_prompt_notes(request),
        model=name_of(first_of(response, "model") or first_of(request, "model")),
        policy_version=whole_number(row.values.get("policy_version") or 0, what="policy_version", row=row),
        created_at=seconds(first_of(response, "created", "created_at") or first_of(row.values, "created_at"), row),
        user=user_of(row.values) or user_of(request) or user_of(mapping(row.values.get("metadata"))),
        metadata=_metadata(exchange, row) | ({REFUSAL: "true"} if is_refusal(mapping(choice.get("message"))) else {}),
    )


def prompt_ids_of(exchange: Exchange, choice: Mapping[str, object]) -> object:
    """Ids of the prompt, wherever a server or a proxy wrote them; None if nowhere."""
    for place in (choice, exchange.response, exchange.request):
        if (ids := first_of(place, "prompt_token_ids", "input_ids")) is not None:
            return ids
    prompt = listed(exchange.request.get("prompt"))
    return prompt if _is_ids(prompt) else None


def _request_of(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return what was asked: in its own cell, or in the row; LiteLLM's spend logs may have it beside no `messages`."""
    if request := _body(first_of(values, "request", "body")):
        return request
    return values if unpacked(values.get("messages")) else _body(values.get("proxy_server_request")) or values


def _body(value: object) -> Mapping[str, object]:
    """Return the object, or the one in its `body`; each may be JSON text."""
    outer = mapping(unpacked(value))
    return mapping(unpacked(outer.get("body"))) or outer


def _prompt(request: Mapping[str, object]) -> tuple[Message, ...]:
    value = _asked(request)
    if value is None or _is_ids(listed(value)):
        return ()
    return messages(with_refusals(value), what="prompt")


def _asked(request: Mapping[str, object]) -> object:
    """Return the messages, which may be JSON text, or what stands in place of them."""
    value = unpacked(request.get("messages"))
    return first_of(request, "prompt", "text") if value is None else value


def _prompt_notes(request: Mapping[str, object]) -> tuple[str, ...]:
    contents = [listed(mapping(entry).get("content")) or () for entry in listed(_asked(request)) or ()]
    has_parts = any(len(parts) > 1 for parts in contents)
    return (*((PLAIN_TEXT,) if _is_plain_text(request) else ()), *((SEVERAL_PARTS,) if has_parts else ()))


def _is_plain_text(request: Mapping[str, object]) -> bool:
    """Tell whether the prompt was given as a text: of such a one a server makes tokens without a chat template."""
    return isinstance(_asked(request), str)


def _check_no_prefix(request: Mapping[str, object]) -> None:
    """Raise for an answer that goes on with the request's last message, where the message itself says so."""
    last = mapping((listed(_asked(request)) or (None,))[-1])
    if any(last.get(name) is True for name in _PREFIX_MARKS):
        raise RowError(
            "an answer that continues a message",
            "the end of its prompt is the beginning of its turn; log the prompt's token ids too",
        )


def _indices(choices: Sequence[Mapping[str, object]]) -> Sequence[int]:
    """Return the number of each choice: the server's own if these tell them apart, else their places."""
    indices = [choice.get("index") for choice in choices]
    numbers = [index for index in indices if type(index) is int and index >= 0]
    return numbers if len(set(numbers)) == len(choices) else range(len(choices))


def is_refusal(entry: Mapping[str, object]) -> bool:
    """Tell whether a message is a model's refusal: OpenAI's have it beside an empty content, or as a part of it."""
    return not entry.get("tool_calls") and _refusal(entry) is not None


def _refusal(entry: Mapping[str, object]) -> str | None:
    content = entry.get("content")
    if content and isinstance(content, str):
        return None
    parts = [mapping(part) for part in listed(content) or ()]
    refused = [part.get("refusal") for part in parts] if parts else [entry.get("refusal")]
    is_alone = bool(refused) if parts else content in (None, "")
    texts = [text for text in refused if isinstance(text, str) and text]
    return "".join(texts) if is_alone and texts and len(texts) == len(refused) else None


def with_refusals(value: object) -> object:
    """Return messages in which a refusal is what its message says."""
    entries = listed(value)
    return value if entries is None else [said_refusal(mapping(each)) if mapping(each) else each for each in entries]


def said_refusal(entry: Mapping[str, object]) -> Mapping[str, object]:
    """Return a message whose content is its refusal, if it is one."""
    return {**entry, "content": _refusal(entry)} if is_refusal(entry) else entry


def _is_ids(value: Sequence[object] | None) -> bool:
    return bool(value) and isinstance(value[0], int)


def _said(choice: Mapping[str, object], request: Mapping[str, object]) -> Said:
    check_thoughts(choice)
    if choice.get("message") is not None:
        return read_answer(said_refusal(mapping(choice["message"])), what="response")
    text = choice.get("text")
    if not isinstance(text, str):
        raise RowError("a choice without message or text", f"it has {', '.join(choice)[:80]}")
    return Said(text=_without_prompt(text, request) if echoes(request) else text)


def echoes(request: Mapping[str, object]) -> bool:
    """Tell whether the server was asked to begin the response with the prompt."""
    settings = flat_settings(request)
    return any(settings.get(name) is True for name in _ECHOES)


def _without_prompt(text: str, request: Mapping[str, object]) -> str:
    prompt = first_of(request, "prompt", "text")
    if not isinstance(prompt, str) or not text.startswith(prompt):
        raise RowError("a response with its prompt", "echo was asked for, and where the prompt ends is not recorded")
    return text.removeprefix(prompt)


def _finish_reason(choice: Mapping[str, object]) -> FinishReason:
    """Return a stop string cuts the response: the model did not end it."""
    if isinstance(choice.get("stop_reason"), str):
        return "length"
    return finish_reason_of(choice.get("finish_reason") or mapping(choice.get("meta_info")).get("finish_reason"))


def _reward(exchange: Exchange, choice: Mapping[str, object], row: Row) -> object:
    of_row = first_of(exchange.response, "reward") if exchange.response is not choice else None
    of_row = row.values.get("reward") if of_row is None else of_row
    if choice.get("reward") is not None or of_row is None:
        return choice.get("reward")
    if len(exchange.choices) > 1:
        raise RowError("one reward for several choices", "write a `reward` into each choice")
    return of_row


def _metadata(exchange: Exchange, row: Row) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for place in (exchange.request, exchange.response, row.values):
        entries = mapping(place.get("metadata")).items()
        metadata.update((name, value) for name, value in entries if isinstance(value, str))
    custom_id = row.values.get("custom_id")
    return {**metadata, "custom_id": custom_id} if isinstance(custom_id, str) else metadata
