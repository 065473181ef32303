"""MLflow's traces with the feedback on them: `Trace.to_json`, or the rows of `mlflow.search_traces`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klimb.experience.feedback import Feedback
from klimb.experience.importing.calls import Answer, answer_in, asked_in, chosen_call, decoded, unpacked
from klimb.experience.importing.cells import first_of, listed, mapping, name_of, seconds, tool_schemas
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.ratings import Given, name_unread, pairs_of, with_ratings
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import Message

MODEL_SPANS = ("LLM", "CHAT_MODEL")


JUDGED: Mapping[str, float | None] = {"yes": 1.0, "no": 0.0, "unknown": None}
"""What MLflow's own judges say, `CategoricalRating`."""


OPEN_STATES = ("OK", "STATE_UNSPECIFIED", "TRACESTATUS_OK", "")


_SAID_AGAIN = (
    *("trace_id", "state", "request_time", "execution_duration", "request", "response"),
    *("trace_metadata", "tags", "spans", "assessments"),
)
"""Columns of `search_traces` that say what the trace beside them says too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trace:
    """A trace, whichever of its forms the row has."""

    trace_id: str
    info: Mapping[str, object]
    metadata: Mapping[str, object]
    tags: Mapping[str, object]
    spans: Sequence[Mapping[str, object]]
    assessments: Sequence[Mapping[str, object]]
    request: object
    response: object


def read_mlflow(row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """One response of a trace and a rating of it for each assessment that is feedback and valid.

    The response is that of the last call of a model (a span of the type LLM or CHAT_MODEL) whose words the trace gave
    back: that has the messages as the model read them. Without such a call it is what the trace was asked and gave
    back. Expectations are no ratings: they are kept as `expectation.NAME`, and a single one as the `answer`.

    Source: MLflow 3.17, `entities/trace.py`, `entities/trace_info.py`, `entities/span.py` and `entities/assessment.py`.
    """
    trace = _trace_of(row)
    state = name_of(first_of(trace.info, "state", "status")).upper()
    if state not in OPEN_STATES:
        raise RowError("the request failed", f"the trace is in state {state}")
    asked, answer, call = _exchange_of(trace)
    user = name_of(trace.metadata.get("mlflow.trace.user"))
    inputs = mapping(_attribute(call, "mlflow.spanInputs"))
    tools = first_of(inputs, "tools", "functions") or _attribute(call, "mlflow.chat.tools")
    found = ParsedRow(
        prompt=asked,
        response=answer.said.text,
        turns=answer.said.turns,
        tools=tool_schemas(tools, row),
        finish_reason=answer.finish_reason,
        row_id=trace.trace_id,
        request=inputs,
        model=name_of(first_of(inputs, "model") or _attribute(call, "mlflow.llm.model")),
        created_at=_when(first_of(trace.info, "request_time", "timestamp_ms"), row),
        user=user,
        metadata=_metadata_of(trace),
    )
    given = _of_answer(trace, call)
    if len(given) < len(trace.assessments):
        name_unread(row, "assessments of other spans than the one that answered")
    return with_ratings(found, _given(given, row), row, rules, value_of=_value_of)


def ratings_in(row: Row) -> list[tuple[str, object]]:
    """Return what is rated in a trace, and each rating as it stands there."""
    trace = _trace_of(row)
    _, _, call = _exchange_of(trace)
    given = pairs_of(_given(_of_answer(trace, call), row))
    return [(name, None if str(value).lower() in JUDGED else value) for name, value in given]


def _trace_of(row: Row) -> _Trace:
    values = row.values
    whole = mapping(unpacked(values.get("trace"))) or values
    if whole is not values:
        for name in _SAID_AGAIN:
            values.get(name)
    info, data = mapping(unpacked(whole.get("info"))) or whole, mapping(unpacked(whole.get("data"))) or whole
    spans, assessments = unpacked(data.get("spans")), unpacked(info.get("assessments"))
    if isinstance(spans, str) or isinstance(assessments, str):
        raise RowError(
            "cells that are no JSON", "CSV has a trace as Python prints it; write to_json(orient='records', lines=True)"
        )
    trace_id = name_of(first_of(info, "trace_id", "request_id"))
    if not trace_id:
        raise RowError("a trace without an id", f"its info has {', '.join(info)[:120]}")
    return _Trace(
        trace_id=trace_id,
        info=info,
        metadata=mapping(unpacked(first_of(info, "trace_metadata", "request_metadata"))),
        tags=mapping(unpacked(info.get("tags"))),
        spans=[mapping(span) for span in listed(spans) or ()],
        assessments=[mapping(each) for each in listed(assessments) or ()],
        request=unpacked(data.get("request")),
        response=unpacked(data.get("response")),
    )


def _exchange_of(trace: _Trace) -> tuple[tuple[Message, ...], Answer, Mapping[str, object]]:
    """Return what was asked, what was said, and the span of the call; an empty one for the trace as a whole."""
    root = _root_of(trace.spans)
    given_back = _attribute(root, "mlflow.spanOutputs") if root else trace.response
    calls = [span for span in trace.spans if _attribute(span, "mlflow.spanType") in MODEL_SPANS]
    calls.sort(key=_began)
    outputs = [_attribute(span, "mlflow.spanOutputs") for span in calls]
    chosen = chosen_call(outputs, given_back)
    if chosen is not None:
        return asked_in(_attribute(calls[chosen], "mlflow.spanInputs")), answer_in(outputs[chosen]), calls[chosen]
    request = _attribute(root, "mlflow.spanInputs") if root else trace.request
    if request is None and given_back is None:
        raise RowError("a trace without its spans", "export traces with their data: search_traces(include_spans=True)")
    return asked_in(request), answer_in(given_back), {}


def _of_answer(trace: _Trace, call: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """Return the assessments of the trace, its root or the call that answered; others are of other spans."""
    own = (None, _span_id(call), _span_id(_root_of(trace.spans)))
    return [each for each in trace.assessments if each.get("span_id") in own]


def _root_of(spans: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    for span in spans:
        if not first_of(span, "parent_span_id", "parent_id"):
            return span
    return {}


def _began(span: Mapping[str, object]) -> float:
    began = first_of(span, "start_time_unix_nano", "start_time_ns", "start_time")
    return float(began) if isinstance(began, int | float) else 0.0


def _span_id(span: Mapping[str, object]) -> object:
    return first_of(span, "span_id") or mapping(span.get("context")).get("span_id")


def _attribute(span: Mapping[str, object], name: str) -> object:
    """Return an attribute of a span: MLflow writes each as JSON text."""
    return decoded(mapping(unpacked(span.get("attributes"))).get(name))


def _when(value: object, row: Row) -> float:
    """Seconds since the epoch: `search_traces` counts milliseconds, and the trace itself has a date."""
    if row.is_text and isinstance(value, str) and value.isdigit():
        return int(value) / 1000
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000
    return seconds(value, row)


def _metadata_of(trace: _Trace) -> dict[str, str]:
    named = {
        "session_id": trace.metadata.get("mlflow.trace.session"),
        "name": trace.tags.get("mlflow.traceName"),
        **{name: value for name, value in trace.tags.items() if not name.startswith("mlflow.")},
    }
    expected = {
        name_of(first_of(each, "assessment_name", "name")): mapping(each["expectation"]).get("value")
        for each in trace.assessments
        if mapping(each.get("expectation")) and each.get("valid") is not False
    }
    named |= {f"expectation.{name}": value for name, value in expected.items()}
    if len(expected) == 1 and not isinstance(answer := next(iter(expected.values())), list | dict):
        named["answer"] = answer
    return {name: _as_text(value) for name, value in named.items() if value is not None}


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _given(assessments: Sequence[Mapping[str, object]], row: Row) -> list[Given]:
    """Return the ratings that hold: an assessment that another one overrides is not valid."""
    return [
        given
        for each in assessments
        if each.get("valid") is not False and mapping(each.get("feedback"))
        for given in _ratings_of(each, row)
    ]


def _ratings_of(entry: Mapping[str, object], row: Row) -> Sequence[Given]:
    """Return the rating, or one `NAME.KEY` for each key of a value that is an object."""
    feedback, name = mapping(entry["feedback"]), name_of(first_of(entry, "assessment_name", "name"))
    if feedback.get("error") is not None:
        return []
    source, own_id = mapping(entry.get("source")), name_of(entry.get("assessment_id"))
    kind = name_of(source.get("source_type")) or "HUMAN"
    user = name_of(source.get("source_id"))
    at = seconds(first_of(entry, "last_update_time", "create_time"), row)
    value = feedback.get("value")
    parts = mapping(value)
    values = {f"{name}.{key}": part for key, part in parts.items()} if parts else {name: value}
    return [
        Given(
            name=each,
            value=part,
            entry=entry,
            own_id=f"{own_id}#{each}" if own_id and parts else own_id,
            comment=name_of(entry.get("rationale")),
            user=user if kind == "HUMAN" else f"{kind}:{user}",
            created_at=at,
        )
        for each, part in values.items()
    ]


def _value_of(value: object, rules: ImportRules, row: Row) -> float | None:
    if isinstance(value, str) and value.lower() in JUDGED and not rules.value_map:
        return JUDGED[value.lower()]
    return rating(value, rules, row)


def _looks_alike(values: Mapping[str, object]) -> bool:
    info = mapping(unpacked(values.get("info")))
    is_trace = ("trace_id" in info or "request_id" in info) and "data" in values
    is_found = "spans" in values and ("trace_metadata" in values or "request_metadata" in values)
    return is_trace or is_found or ("trace" in values and "execution_duration" in values)


IMPORTER = Importer(
    name="mlflow",
    read=read_mlflow,
    summary="MLflow's traces, with the feedback on them",
    looks_alike=_looks_alike,
    rank=7,
    because="it has the info and the data of a trace",
    rating_in=ratings_in,
)
