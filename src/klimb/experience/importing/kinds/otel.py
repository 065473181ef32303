"""OpenTelemetry's spans of models: what was asked and said stands in their attributes or events."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from klimb.experience.feedback import Feedback
from klimb.experience.importing.cells import (
    first_of,
    listed,
    mapping,
    messages,
    name_of,
    number,
    seconds,
    tool_schemas,
    unpacked,
)
from klimb.experience.importing.chat import finish_reason_of, user_of
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow, hash_of
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.importing.spans import (
    EVALUATION,
    SPAN_IDS,
    attribute,
    has_export,
    is_span,
    spans_in,
    split_spans,
    undotted,
)
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, FinishReason, Message

_INFERENCES = ("chat", "generate_content", "text_completion")


_OTHER_OPERATIONS = (
    *("embeddings", "execute_tool", "create_agent", "invoke_agent", "invoke_workflow", "retrieval", "plan"),
    *("create_memory", "search_memory", "update_memory", "delete_memory"),
)
"""Spans around inferences or beside them. An agent's holds the messages of its inferences once more."""


_ASKED = ("gen_ai.input.messages", "gen_ai.prompt", "llm.input_messages", "llm.prompts")


_SAID = ("gen_ai.output.messages", "gen_ai.completion", "llm.output_messages", "llm.completions")


_TOOLS = ("gen_ai.tool.definitions", "llm.request.functions", "llm.tools")


_NANOSECONDS = ("startTimeUnixNano", "start_time_unix_nano", "timeUnixNano", "time_unix_nano", "observedTimeUnixNano")


_MARKS = ("gen_ai.", "attributes.gen_ai", "attributes.llm", "attributes.openinference.", "llm.")


_NO_SETTINGS = (
    *("model", "choice.count", "stop_sequences", "encoding_formats", "stream", "messages", "tools", "seed", "stop"),
    *("is_stream", "functions"),
)


_LLM_SETTINGS = ("llm.frequency_penalty", "llm.presence_penalty", "llm.top_k", "llm.temperature", "llm.top_p")


_ROLES: Mapping[object, str] = {"model": POLICY_ROLE, "ai": POLICY_ROLE, "human": "user"}


_FINISH_REASONS: Mapping[object, str] = {
    "tool_call": "stop",
    "tool_use": "stop",
    "end_turn": "stop",
    "STOP": "stop",
    "MAX_TOKENS": "length",
}
"""What providers call it, as their instrumentations pass it on."""


NO_CONTENT = (
    "a span has messages only where the program that was traced was told to record them, such as with "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
)


def read_otel(row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """Return a response for each choice of an inference, and the rating of an evaluation; other spans hold none.

    Records are exports of OTLP as JSON (also as Tempo and Jaeger give them), or single spans: of the Python SDK's
    `to_json`, or tables as Phoenix writes them. `split_spans` has made a row of each span.

        gen_ai.input.messages, gen_ai.output.messages, gen_ai.system_instructions, gen_ai.tool.definitions
        events gen_ai.user.message, …, gen_ai.choice; gen_ai.content.prompt and gen_ai.content.completion
        gen_ai.prompt, gen_ai.completion, whole or as gen_ai.prompt.0.role (OpenLLMetry)
        llm.input_messages, llm.output_messages, llm.tools, llm.invocation_parameters (OpenInference)
        gen_ai.request.*, gen_ai.response.id, .model, .finish_reasons
        event gen_ai.evaluation.result: a rating of the span it stands in, or of gen_ai.response.id

    The sample's id is the response's, else the span's. Results of tools that were recorded as objects are JSON text.
    With `stop_sequences`, `stop` does not say whether the model ended its text, so it is unknown.

    Source: OpenTelemetry's Semantic conventions for generative AI 1.38, spans and events, and 1.27 and 1.36 for the
    older forms; OpenLLMetry's and OpenInference's semantic conventions; OTLP 1.8, JSON encoding.
    """
    values = row.values
    if not is_span(values):
        list(spans_in(values))  # a record that was not split is broken; this says why
        raise RowError("an export of spans in place of a span", "read its spans one by one")
    if _is_evaluation(values):
        return [_rating(row, rules)]
    if not _is_inference(values):
        return []
    _check_success(values)
    asked, choices = _exchange(values)
    prompt = (*_instructions(values), *messages(asked, what="input messages"))
    return [_answer(choice, row, prompt, part=part) for part, choice in enumerate(choices)]


def evaluation_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the score as it stands there; of a label, which is no number, None.

    Raises:
        RowError: the row is no evaluation.
    """
    if not _is_evaluation(row.values):
        raise RowError("no rating", "a span that is no evaluation")
    return _rated_name(row.values), row.values.get("gen_ai.evaluation.score.value")


def _is_evaluation(values: Mapping[str, object]) -> bool:
    return any(values.get(name) == EVALUATION for name in ("name", "eventName", "event_name", "event.name"))


def _rating(row: Row, rules: ImportRules) -> Feedback:
    values = row.values
    sample_id = name_of(first_of(values, "gen_ai.response.id", *SPAN_IDS))
    if not sample_id:
        raise RowError("no response named", "an evaluation without gen_ai.response.id and span id")
    score, label = values.get("gen_ai.evaluation.score.value"), values.get("gen_ai.evaluation.score.label")
    if rules.value_map and label is not None:
        score = label
    elif score is None and label is not None:
        raise RowError("a category without a map", f"{label!r}; say what each is: --map pass=1 fail=0"[:120])
    return Feedback(
        feedback_id=hash_of(row.raw),
        sample_id=sample_id,
        value=rating(score, rules, row),
        name=_rated_name(values),
        comment=name_of(values.get("gen_ai.evaluation.explanation")),
        created_at=_seconds(row),
        raw=row.raw,
    )


def _rated_name(values: Mapping[str, object]) -> str:
    return name_of(values.get("gen_ai.evaluation.name")) or "rating"


def _is_inference(values: Mapping[str, object]) -> bool:
    kind = values.get("openinference.span.kind")
    if kind is not None:
        return kind == "LLM"
    if values.get("traceloop.span.kind") in ("workflow", "task", "agent", "tool"):
        return False
    operation = first_of(values, "gen_ai.operation.name", "llm.request.type")
    if operation in _INFERENCES or operation in _OTHER_OPERATIONS:
        return operation in _INFERENCES
    return operation == "completion" or _has_content(values)


def _has_content(values: Mapping[str, object]) -> bool:
    attributes = tuple(f"{name}." for name in _SAID)
    if any(name in _SAID or name.startswith(attributes) for name in values):
        return True
    return any(event.get("name") in ("gen_ai.choice", "gen_ai.content.completion") for event in _events(values))


def _check_success(values: Mapping[str, object]) -> None:
    status = values.get("status")
    code = first_of(mapping(status), "code", "status_code") if mapping(status) else first_of(values, "status_code")
    error = values.get("error.type")
    if error or code in (2, "STATUS_CODE_ERROR", "ERROR", "StatusCode.ERROR"):
        raise RowError("the request failed", str(error or mapping(status).get("message") or code)[:200])


def _exchange(values: Mapping[str, object]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Return what was asked as chat messages, and each choice as those of its response.

    Raises:
        RowError: nothing was recorded, or it is not known what belongs to which choice.
    """
    events = _events(values)
    places = (values, *(mapping(event.get("attributes")) for event in events))
    asked, said = _first_in(places, _ASKED), _first_in(places, _SAID)
    spoken = [entry for event in events for entry in _message_in(event)] if asked is None else _asked(*asked)
    answers = [_body(event) for event in events if _event_name(event) == "gen_ai.choice"]
    choices = [_entries(answer, role=POLICY_ROLE) for answer in answers] if said is None else _choices(*said)
    if not choices:
        raise RowError("no content recorded", NO_CONTENT)
    return spoken, choices


def _first_in(places: Sequence[Mapping[str, object]], names: Sequence[str]) -> tuple[str, object] | None:
    """Return name and value of the first of these attributes that one of the places has; None if none has."""
    for place in places:
        for name in names:
            if (value := attribute(place, name)) is not None:
                return name, value
    return None


def _asked(name: str, value: object) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": _plain(name, value)}]
    entries = listed(mapping(value).get("messages", value))
    if entries is None:
        raise RowError("messages that are no list", f"{name} holds neither text nor a list")
    return [message for entry in entries for message in _entries(mapping(entry), role="user")]


def _choices(name: str, value: object) -> list[list[dict[str, Any]]]:
    if isinstance(value, str):
        return [[{"role": POLICY_ROLE, "content": _plain(name, value)}]]
    listed_entries = listed(value)
    entries = [value] if listed_entries is None else listed_entries
    if name == "llm.output_messages" and len(entries) > 1:
        raise RowError("several output messages", "the span does not say whether they are one response or several")
    return [_entries(mapping(entry), role=POLICY_ROLE) for entry in entries]


def _plain(name: str, text: str) -> str:
    """Return a text that may be one; messages are JSON, which exporters cut at their limit of an attribute."""
    if name.endswith("essages"):
        raise RowError("messages that are no whole JSON", f"{name}: {text[:40]!r}; was it cut at a limit of length?")
    return text


def _entries(entry: Mapping[str, object], *, role: str) -> list[dict[str, Any]]:
    """Return a message of any of the forms as chat messages: the results of tools are messages of their own."""
    outer = undotted(entry)
    inner = mapping(unpacked(outer.get("message"))) or mapping(outer.get("prompt")) or outer
    given = first_of(inner, "role")
    found: dict[str, Any] = {
        "role": _ROLES.get(given, given) if isinstance(given, str) and given else role,
        "finish_reason": first_of(outer, "finish_reason") or first_of(inner, "finish_reason"),
    }
    parts = listed(inner.get("parts"))
    if parts is not None:
        return _of_parts(found, [mapping(part) for part in parts])
    found["content"] = _content(inner)
    calls = [_call(mapping(call)) for call in listed(unpacked(inner.get("tool_calls"))) or ()]
    if calls:
        found |= {"tool_calls": calls, "content": found["content"] or ""}
    for name in ("name", "tool_call_id", "reasoning_content", "reasoning"):
        found[name] = inner.get(name)
    return [found]


def _of_parts(found: dict[str, Any], parts: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Return the results among the parts, then the rest of them as one message."""
    texts: list[object] = []
    calls: list[object] = []
    results: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type")
        if kind == "text":
            texts.append({"type": kind, "text": part.get("content")})
        elif kind == "tool_call":
            calls.append(part)
        elif kind == "tool_call_response":
            content = _as_text(first_of(part, "response", "result"))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": content})
        elif kind in ("reasoning", "thinking"):
            found["reasoning_content"] = part.get("content") or True
        else:
            raise RowError("messages hold something else than text", f"a part of type {kind!r}"[:80])
    if calls:
        found["tool_calls"] = calls
    return results if results and not (texts or calls) else [*results, {**found, "content": texts}]


def _content(message: Mapping[str, object]) -> object:
    """Return what a message says: OpenInference has parts in `contents`, OpenLLMetry writes them as JSON text."""
    contents = listed(message.get("contents"))
    if contents is not None:
        parts = [mapping(undotted(mapping(part)).get("message_content")) for part in contents]
        return [part if part.get("type") == "text" else {"type": part.get("type")} for part in parts]
    content = first_of(message, "content", "text")
    parts = listed(unpacked(content)) if message.get("role") in ("user", "system") else None
    return parts if parts and all("type" in mapping(part) for part in parts) else content


def _call(call: Mapping[str, object]) -> Mapping[str, object]:
    inner = undotted(call)
    return mapping(inner.get("tool_call")) or inner


def _as_text(value: object) -> object:
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False, default=str)


def _events(values: Mapping[str, object]) -> list[Mapping[str, object]]:
    return [mapping(event) for event in listed(values.get("events")) or ()]


def _event_name(event: Mapping[str, object]) -> str:
    return str(event.get("name", ""))


def _body(event: Mapping[str, object]) -> Mapping[str, object]:
    """Return what an event holds: its attributes, or the JSON text in one of them."""
    attributes = mapping(event.get("attributes"))
    return mapping(unpacked(attributes.get("gen_ai.event.content"))) or attributes


def _message_in(event: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return the message of an event that is named after its role, such as gen_ai.user.message."""
    first, _, rest = _event_name(event).partition(".")
    role, _, kind = rest.partition(".")
    if first != "gen_ai" or kind != "message":
        return []
    body = _body(event)
    return _entries({**body, "tool_call_id": body.get("id")} if role == "tool" else body, role=role)


def _instructions(values: Mapping[str, object]) -> tuple[Message, ...]:
    value = attribute(values, "gen_ai.system_instructions")
    if value is None or value == "":
        return ()
    parts = [{"text": mapping(part).get("content")} for part in listed(value) or ()]
    content = value if isinstance(value, str) else parts
    return messages([{"role": "system", "content": content}], what="system instructions")


def _answer(spoken: list[dict[str, Any]], row: Row, prompt: tuple[Message, ...], *, part: int) -> ParsedRow:
    values = row.values
    reason = _finish_reason(spoken, values, part=part)
    said = read_response(spoken, what="output messages")
    named = {
        "trace_id": first_of(values, "traceId", "trace_id", "context.trace_id", "traceID", "TraceId"),
        "span_id": first_of(values, *SPAN_IDS),
        "session_id": first_of(values, "gen_ai.conversation.id", "session.id"),
    }
    return ParsedRow(
        prompt=prompt,
        response=said.text,
        turns=said.turns,
        tools=_tools(row),
        finish_reason=reason,
        row_id=name_of(first_of(values, "gen_ai.response.id") or named["span_id"]),
        part=part,
        request=_settings(values),
        model=name_of(first_of(values, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name")),
        created_at=_seconds(row),
        user=user_of(values),
        metadata={name: str(value) for name, value in named.items() if value is not None},
    )


def _finish_reason(spoken: Sequence[Mapping[str, object]], values: Mapping[str, object], *, part: int) -> FinishReason:
    reasons = listed(attribute(values, "gen_ai.response.finish_reasons")) or ()
    own = next((each["finish_reason"] for each in spoken if each.get("finish_reason")), None)
    reason = own or (reasons[part] if part < len(reasons) else None)
    if reason == "error":
        raise RowError("the request failed", "the finish reason is error")
    found = finish_reason_of(_FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else reason)
    stops = first_of(values, "gen_ai.request.stop_sequences", "llm.chat.stop_sequences")
    return "unknown" if found == "stop" and stops else found


def _tools(row: Row) -> str:
    """Return the schemas of the tools on offer: OpenInference's are in `tool.json_schema`."""
    value = first_of({name: attribute(row.values, name) for name in _TOOLS}, *_TOOLS)
    if not isinstance(value, str) and (entries := listed(value)) is not None:
        return tool_schemas([_schema(mapping(unpacked(entry))) for entry in entries], row)
    return tool_schemas(value, row)


def _schema(entry: Mapping[str, object]) -> Mapping[str, object]:
    inner = undotted(entry)
    schema = mapping(unpacked(mapping(inner.get("tool")).get("json_schema"))) or inner
    parameters = schema.get("parameters")
    return {**schema, "parameters": unpacked(parameters)} if isinstance(parameters, str) else schema


def _settings(values: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that the span states, without their prefix."""
    stated: dict[str, object] = {
        name: value for name, value in mapping(attribute(values, "llm.invocation_parameters")).items()
    }
    for name in values:
        if name.startswith("gen_ai.request.") or name in _LLM_SETTINGS:
            stated[name.removeprefix("gen_ai.request.").removeprefix("llm.")] = values[name]
    output = values.get("gen_ai.output.type")
    if output not in (None, "text"):
        stated["response_format"] = {"type": output}
    return {name: _numeric(value) for name, value in stated.items() if name not in _NO_SETTINGS and value is not None}


def _numeric(value: object) -> object:
    """Tables of spans with one type for all attributes have numbers as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _seconds(row: Row) -> float:
    nanoseconds = first_of(row.values, *_NANOSECONDS)
    if nanoseconds is not None:
        return number(nanoseconds, what="the time", row=replace(row, is_text=True)) / 1e9
    if (microseconds := row.values.get("startTime")) is not None and "traceID" in row.values:  # Jaeger's
        return number(microseconds, what="startTime", row=row) / 1e6
    return seconds(first_of(row.values, "start_time", "startTime", "timestamp", "Timestamp"), row)


def _is_span(values: Mapping[str, object]) -> bool:
    """Tell by an export's levels, or by attributes of the conventions."""
    if has_export(values):
        return True
    attributes = mapping(unpacked(first_of(values, "attributes", "SpanAttributes")))
    names = (*values, *(f"attributes.{name}" for name in attributes))
    is_named = any(name.startswith(_MARKS) for name in names)
    is_span_of_sdk = "attributes" in values and any(name in values for name in ("context", "spanId", "span_id"))
    return is_named or is_span_of_sdk


IMPORTER = Importer(
    name="otel",
    read=read_otel,
    summary="OpenTelemetry's spans of models, with their evaluations",
    looks_alike=_is_span,
    rank=25,
    because="it has spans, or attributes of gen_ai or OpenInference",
    rating_in=evaluation_in,
    split=split_spans,
    nothing="spans of tools, agents and others that are no inference",
)
