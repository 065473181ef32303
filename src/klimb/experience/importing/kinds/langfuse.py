"""Langfuse's exports: generations among the observations, and scores in a file of their own."""

import json
from collections.abc import Mapping, Sequence
from typing import cast

from klimb.experience.importing.cells import first_of, listed, mapping, messages, name_of, seconds, tool_schemas
from klimb.experience.importing.chat import REFUSAL, is_refusal, said_refusal, user_of, with_refusals
from klimb.experience.importing.conversations import read_answer
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.reading.strict_json import DECODER
from klimb.experience.samples import Message

TRACE = "trace_id"


def read_langfuse(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response of a generation; other observations (spans, events) hold none and give nothing.

    Langfuse does not record why a text ended nor log-probabilities, so those stay unknown and absent.

    Source: Langfuse's documentation, "Export to blob storage", observations.
    """
    values = row.values
    kind = name_of(values.get("type")) or "GENERATION"
    if kind.upper() != "GENERATION":
        return []
    answer, asked = _answer(_unpacked(values.get("output"))), _unpacked(values.get("input"))
    said = read_answer(said_refusal(answer), what="output")
    settings = _unpacked(first_of(values, "modelParameters", "model_parameters"))
    return [
        ParsedRow(
            prompt=_prompt(asked),
            response=said.text,
            turns=said.turns,
            tools=tool_schemas(first_of(mapping(asked), "tools", "functions"), row),
            row_id=name_of(values.get("id")),
            request=mapping(settings),
            model=name_of(first_of(values, "model", "providedModelName", "provided_model_name")),
            created_at=seconds(first_of(values, "startTime", "start_time"), row),
            user=user_of(values),
            metadata=_metadata(values) | ({REFUSAL: "true"} if is_refusal(answer) else {}),
        )
    ]


def _unpacked(value: object) -> object:
    """Export write objects as JSON inside a text; other text is text."""
    if not (isinstance(value, str) and value.lstrip()[:1] in ("[", "{", '"')):
        return value
    try:
        return cast(object, DECODER.decode(value))
    except (json.JSONDecodeError, RecursionError):
        return value


def _prompt(value: object) -> tuple[Message, ...]:
    inner = mapping(value)
    return messages(with_refusals(first_of(inner, "messages", "prompt") if inner else value), what="input")


def _answer(value: object) -> Mapping[str, object]:
    """Return the output as a message: a text is its content."""
    if value is None:
        raise RowError("no response", "the observation has no output")
    entries = listed(value) or ()
    value = entries[0] if len(entries) == 1 else value
    inner = mapping(value)
    choices = listed(inner.get("choices")) or ()
    if len(choices) == 1:
        inner = mapping(mapping(choices[0]).get("message"))
    return inner or {"content": value}


def _metadata(values: Mapping[str, object]) -> dict[str, str]:
    named = {
        TRACE: first_of(values, "traceId", "trace_id"),
        "session_id": first_of(values, "sessionId", "session_id"),
        "name": first_of(values, "name"),
    }
    return {name: str(value) for name, value in named.items() if value is not None}


def _is_observation(values: Mapping[str, object]) -> bool:
    has_trace = "traceId" in values or "trace_id" in values
    return has_trace and "input" in values and "output" in values


IMPORTER = Importer(
    name="langfuse",
    read=read_langfuse,
    summary="Langfuse's observations, with --scores its scores",
    looks_alike=_is_observation,
    rank=60,
    because="it has a trace id, input and output",
    nothing="observations that are no generations, such as spans",
)
