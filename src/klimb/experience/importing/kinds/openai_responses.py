"""OpenAI's Responses API: requests with their responses, or stored responses with the items that went in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from klimb.experience.importing.cells import (
    first_of,
    listed,
    mapping,
    tool_schemas,
    unpacked,
)
from klimb.experience.importing.chat import user_of
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.kinds.openai import read_openai
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, FinishReason

_FAILED = ("failed", "cancelled", "in_progress", "queued")


_ELSEWHERE: Mapping[str, str] = {
    "previous_response_id": "it goes on from an earlier response; log all items that went in, and no id of one",
    "conversation": "it goes on with a conversation that OpenAI keeps; log all items that went in",
    "prompt": "it names a stored prompt; log the text that this stands for as instructions and input",
}
"""What a request names in place of the text that the model read, and what to do."""


_RESPONSE = (
    *("id", "object", "created_at", "model", "status", "error", "incomplete_details", "output", "usage", "metadata"),
    *("instructions", "tools", "tool_choice", "temperature", "top_p", "frequency_penalty", "presence_penalty"),
    *("max_output_tokens", "text", "truncation", "reasoning", "user", "safety_identifier", *_ELSEWHERE),
)
"""Fields of a response, where the row itself is one: its other columns are not read."""


_OF_ROW = ("id", "reward", "group", "group_id", "policy_version", "created_at", "custom_id")
"""Columns beside request and response."""


_REPEATED = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
"""Settings of the sampler that a response repeats."""


_NO_SETTINGS = frozenset(
    {
        *("input", "instructions", "tools", "model", "metadata", "user", "safety_identifier", "store", "stream"),
        *("stream_options", "background", "include", "service_tier", "prompt_cache_key", "prompt_cache_retention"),
        *("top_logprobs", "text", "reasoning", "parallel_tool_calls", "max_output_tokens", "max_tool_calls"),
        *("truncation", "tool_choice", *_ELSEWHERE),
    }
)
"""Names in a request that are no settings of the sampler, or that `_settings` reads itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Exchange:
    """What was asked, and what came back.

    Attributes:
        request: where it was not logged beside the response, the response, which repeats the settings.
        items: what went in, without the instructions; None where the log does not have it.
        output: the items of the response.
    """

    request: Mapping[str, object]
    response: Mapping[str, object]
    items: object
    output: Sequence[Mapping[str, object]]

    def said_of(self, name: str) -> object:
        """Return what the request says under a name, else what the response does."""
        value = self.request.get(name)
        return self.response.get(name) if value is None else value


def read_responses(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response: its texts and calls are one turn; what a server put in between, as MCP's results, is context.

        request:   {"input": text or items, "instructions", "tools", …}, or a batch's `body`
        response:  {"id", "output": [items], "model", "status", "incomplete_details", …}, or its `body`
        input_items: of a stored response, what its list of input items gives, in place of a request; also `input`

    Refused is what does not hold the text as it was read or written: a response that goes on from one that is not in
    the row, a stored prompt, items with thoughts (their text is hidden, or a summary), tools of OpenAI's own (a web
    search's results are not in the log), images and files. Tools of OpenAI's own that were on offer and not used are
    named in the metadata, `server_tools`. A refusal is the response, with `refusal` in the metadata.

    Source: OpenAI's API reference, "Responses": the response object, input items, output_text.logprobs. Read from it,
    not from files that a tool made.
    """
    exchange = _exchange_of(row)
    _check_whole(exchange)
    spoken = _as_messages(exchange.output, what="output")
    said = read_response(spoken, what="output")
    (found,) = read_openai(_as_chat(exchange, row, spoken), rules)
    return [replace(found, response=said.text, turns=said.turns) if len(spoken) > 1 else found]


def _as_chat(exchange: _Exchange, row: Row, spoken: Sequence[Mapping[str, object]]) -> Row:
    """Return the row of a chat completion that says the same; of several turns, the last."""
    response, (tools, server_tools) = exchange.response, _tools(exchange.said_of("tools"), row)
    choice = {
        "message": spoken[-1],
        "finish_reason": _finish_reason(response),
        "logprobs": {"content": _logged(exchange.output)} if len(spoken) == 1 else None,
    }
    values = {
        "request": {"messages": _prompt(exchange), "tools": tools, **_settings(exchange, server_tools)},
        "response": {
            "choices": [choice],
            "id": response.get("id"),
            "created_at": response.get("created_at"),
            "model": exchange.said_of("model") if response.get("model") is None else response["model"],
        },
        "user": user_of(row.values) or user_of(exchange.request) or user_of(response) or None,
        "metadata": _metadata(exchange, row, server_tools),
        **{name: row.values.get(name) for name in _OF_ROW},
    }
    return Row(row.place, values, row.raw, row.is_text)


def _exchange_of(row: Row) -> _Exchange:
    values = row.values
    response = _body(values.get("response")) or {name: values[name] for name in _RESPONSE if name in values}
    request = _body(first_of(values, "request", "body"))
    error = first_of(response, "error") or first_of(values, "error")
    if error:
        raise RowError("the request failed", str(error)[:200])
    output = listed(response.get("output"))
    if output is None:
        raise RowError("no output", "expected the server's response with its list `output`")
    items = first_of(request, "input") if request else None
    if items is None:
        items = first_of(values, "input_items", "input")
    if items is None:
        items = first_of(response, "input_items", "input")
    return _Exchange(
        request=request or response, response=response, items=unpacked(items), output=tuple(map(mapping, output))
    )


def _body(value: object) -> Mapping[str, object]:
    """Return the object, or the one in its `body`; JSON text is read."""
    outer = mapping(unpacked(value))
    return mapping(unpacked(outer.get("body"))) or outer


def _check_whole(exchange: _Exchange) -> None:
    """Raise RowError where the row does not hold what the model read and wrote."""
    status = exchange.response.get("status")
    if status in _FAILED:
        raise RowError("the request failed", f"its status is {status}")
    for name, advice in _ELSEWHERE.items():
        if exchange.said_of(name):
            raise RowError("a prompt that is not in the log", f"{name}: {advice}")
    if exchange.items is None:
        raise RowError(
            "no request", "a response alone does not say what was asked; log the request, or its input_items, beside it"
        )
    details = mapping(mapping(exchange.response.get("usage")).get("output_tokens_details"))
    if details.get("reasoning_tokens"):
        raise RowError("thoughts kept apart from the response", f"{details['reasoning_tokens']} tokens of reasoning")


def _prompt(exchange: _Exchange) -> list[dict[str, Any]]:
    """Return what went in as chat messages, the instructions first."""
    instructions, items = exchange.said_of("instructions"), mapping(exchange.items).get("data", exchange.items)
    entries: list[dict[str, Any]] = []
    if isinstance(instructions, str) and instructions:
        entries = [{"role": "system", "content": instructions}]
    elif instructions:
        entries = _as_messages(_listed_items(instructions, what="instructions"), what="instructions")
    if isinstance(items, str):
        return [*entries, *([{"role": "user", "content": items}] if items else [])]
    return [*entries, *_as_messages(_listed_items(items, what="input"), what="input")]


def _listed_items(value: object, *, what: str) -> Sequence[Mapping[str, object]]:
    items = listed(value)
    if items is None or not all(isinstance(item, Mapping) for item in items):
        raise RowError(f"no {what}", f"expected text or a list of items, got {type(value).__name__}")
    return tuple(map(mapping, items))


def _as_messages(items: Sequence[Mapping[str, object]], *, what: str) -> list[dict[str, Any]]:
    """Return items as chat messages; calls belong to the assistant's message right before them."""
    spoken: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            role = item.get("role", POLICY_ROLE if what == "output" else None)
            spoken.append({"role": role, "content": _content(item.get("content"))})
        elif kind == "function_call":
            _add_call(spoken, item, call_id=str(item.get("call_id")))
        elif kind == "function_call_output":
            spoken.append(_result(item, call_id=str(item.get("call_id"))))
        elif kind == "mcp_call":
            _add_call(spoken, item, call_id=str(item.get("id")))
            spoken.append(_result(item, call_id=str(item.get("id"))))
        elif kind == "reasoning":
            _check_thoughts(item, what=what)
        elif kind != "mcp_list_tools":
            raise _not_text(kind, what=what)
    return spoken


def _not_text(kind: object, *, what: str) -> RowError:
    if kind == "item_reference":
        return RowError("a prompt that is not in the log", "an item_reference names an item that OpenAI keeps")
    return RowError(
        f"{what} has an item that is not all in the log", f"of type {kind!r}; messages and calls of functions are"[:120]
    )


def _check_thoughts(item: Mapping[str, object], *, what: str) -> None:
    """Let pass an item of a model that did not think: nothing is in it."""
    if any(item.get(name) for name in ("summary", "content", "encrypted_content")):
        where = "response" if what == "output" else "prompt"
        raise RowError(f"thoughts kept apart from the {where}", "an item of type reasoning: its text is hidden")


def _content(content: object) -> object:
    """Return the content of a message, its refusals as texts."""
    parts = listed(content)
    if parts is None:
        return content
    return [{"text": mapping(part)["refusal"]} if _is_refusal(part) else part for part in parts]


def _is_refusal(part: object) -> bool:
    return mapping(part).get("type") == "refusal" and isinstance(mapping(part).get("refusal"), str)


def _add_call(spoken: list[dict[str, Any]], item: Mapping[str, object], *, call_id: str) -> None:
    call = {"id": call_id, "function": {"name": item.get("name"), "arguments": item.get("arguments")}}
    if not spoken or spoken[-1]["role"] != POLICY_ROLE:
        spoken.append({"role": POLICY_ROLE, "content": ""})
    spoken[-1].setdefault("tool_calls", []).append(call)


def _result(item: Mapping[str, object], *, call_id: str) -> dict[str, Any]:
    """Return what a tool gave back; of an MCP call that failed, its error."""
    output = item.get("output")
    if output is None and isinstance(item.get("error"), str):
        output = item["error"]
    return {"role": "tool", "tool_call_id": call_id, "content": output}


def _tools(value: object, row: Row) -> tuple[str, str]:
    """Return the schemas of the functions on offer, and the types of the tools of OpenAI's own."""
    entries = listed(unpacked(value))
    if entries is None:
        return tool_schemas(value, row), ""
    kinds = [mapping(entry).get("type", "function") for entry in entries]
    functions = [entry for entry, kind in zip(entries, kinds, strict=True) if kind == "function"]
    others = sorted({str(kind)[:40] for kind in kinds if kind != "function"})
    return tool_schemas(functions, row), ", ".join(others)


def _finish_reason(response: Mapping[str, object]) -> FinishReason:
    if response.get("status") == "completed":
        return "stop"
    is_cut = mapping(response.get("incomplete_details")).get("reason") == "max_output_tokens"
    return "length" if is_cut else "unknown"


def _settings(exchange: _Exchange, server_tools: str) -> dict[str, object]:
    """Return the settings under the names of chat completions; those that are null or change nothing are left out."""
    response, request = exchange.response, exchange.request
    repeated = {name: response.get(name) for name in _REPEATED}
    sent = {} if request is response else {name: request[name] for name in request if name not in _NO_SETTINGS}
    text, choice, cut = (exchange.said_of(name) for name in ("text", "tool_choice", "truncation"))
    also = {
        "max_completion_tokens": exchange.said_of("max_output_tokens"),
        "response_format": mapping(text).get("format"),
        "verbosity": None if mapping(text).get("verbosity") == "medium" else mapping(text).get("verbosity"),
        "reasoning_effort": mapping(exchange.said_of("reasoning")).get("effort"),
        "tool_choice": None if choice in ("auto", "none") else choice,
        "truncation": None if cut == "disabled" else cut,
        "server_tools": server_tools or None,
    }
    places = (repeated, sent, also)
    return {name: value for place in places for name, value in place.items() if value is not None}


def _metadata(exchange: _Exchange, row: Row, server_tools: str) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for place in (exchange.request, exchange.response, row.values):
        entries = mapping(place.get("metadata")).items()
        metadata.update((name, value) for name, value in entries if isinstance(value, str))
    own = {
        "server_tools": server_tools,
        "refusal": "true" if any(map(_is_refusal, _parts(exchange.output))) else "",
    }
    return {**metadata, **{name: text for name, text in own.items() if text}}


def _parts(output: Sequence[Mapping[str, object]]) -> list[object]:
    return [part for item in output for part in listed(item.get("content")) or ()]


def _logged(output: Sequence[Mapping[str, object]]) -> list[object] | None:
    """Return the tokens of all texts with their log-probabilities; None if those of a text are missing."""
    lists = [listed(mapping(part).get("logprobs")) for part in _parts(output)]
    return [token for tokens in lists for token in tokens or ()] if lists and all(lists) else None


def _is_responses(values: Mapping[str, object]) -> bool:
    """Tell by the list of items that came back; a trace's own `output` beside its `input` is none."""
    response = _body(values.get("response"))
    if response:
        first = mapping(next(iter(listed(response.get("output")) or ()), None))
        return response.get("object") == "response" or ("type" in first and "choices" not in response)
    return values.get("object") == "response" and "output" in values


IMPORTER = Importer(
    name="openai-responses",
    read=read_responses,
    summary="requests and responses of OpenAI's Responses API",
    looks_alike=_is_responses,
    rank=15,
    because="its response is a list of items, `output`",
)
