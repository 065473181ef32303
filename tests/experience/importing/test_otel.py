import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, as_row, written

from klimb.experience.feedback import Feedback
from klimb.experience.importing import ImportRules, guess_importer, import_rows
from klimb.experience.importing.kinds.otel import IMPORTER
from klimb.experience.importing.registry import anonymise, convert_row, rename_columns
from klimb.experience.importing.spans import attribute, split_spans
from klimb.experience.reading.records import RowError
from klimb.experience.samples import Sample
from klimb.experience.store import Store, open_store

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.response.id": "chatcmpl-1", "gen_ai.response.model": "m-1"}
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "2 + 2?"}]}]
SAID = [{"role": "assistant", "parts": [{"type": "text", "content": "4!"}], "finish_reason": "stop"}]
NOW = {**CHAT, "gen_ai.input.messages": ASKED, "gen_ai.output.messages": SAID}
SCORE = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.75}


def sdk_span(attributes: Mapping[str, Any], *, events: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    """A span as the Python SDK's `to_json` writes it."""
    return {
        "name": "chat m-1",
        "context": {"trace_id": "0x0a", "span_id": "0x0b", "trace_state": "[]"},
        "start_time": "2026-01-02T03:04:05.000000Z",
        "status": {"status_code": "UNSET"},
        "attributes": dict(attributes),
        "events": list(events),
        **more,
    }


def boxed(value: Any) -> dict[str, Any]:
    """A value as OTLP's JSON has it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [boxed(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": boxed(value)} for name, value in attributes.items()]


def otlp_span(attributes: Mapping[str, Any], *, events: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    return {
        "traceId": "0a",
        "spanId": "0b",
        "name": "chat m-1",
        "startTimeUnixNano": "1767323045000000000",
        "attributes": pairs(attributes),
        "events": [{**event, "attributes": pairs(event["attributes"])} for event in events],
        **more,
    }


def otlp(*spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def event(name: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "attributes": attributes}


def made_of_record(values: Mapping[str, Any], **rules: Any) -> list[Sample | Feedback]:
    stated = ImportRules(**rules)
    made: list[Sample | Feedback] = []
    for row in split_spans(as_row(values)):
        made += convert_row(rename_columns(anonymise(row, stated), stated), IMPORTER.read, stated, kind="otel")
    return made


def span_sample(values: Mapping[str, Any]) -> Sample:
    (sample,) = made_of_record(values)
    assert isinstance(sample, Sample)
    return sample


def span_reason(values: Mapping[str, Any], **rules: Any) -> str:
    try:
        made_of_record(values, **rules)
    except RowError as error:
        return error.reason
    return ""


FORMS: dict[str, dict[str, Any]] = {
    "structured": sdk_span(NOW),
    "json text": sdk_span(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in NOW.items()}
    ),
    "otlp": otlp(otlp_span(NOW)),
    "tempo": {"batches": otlp(otlp_span(NOW))["resourceSpans"]},
    "tempo, newer": {"trace": otlp(otlp_span(NOW))},
    "jaeger": {
        "data": [
            {
                "traceID": "0a",
                "spans": [
                    {
                        "traceID": "0a",
                        "spanID": "0b",
                        "operationName": "chat",
                        "startTime": 1_767_323_045_000_000,
                        "tags": [
                            {
                                "key": name,
                                "type": "string",
                                "value": value if isinstance(value, str) else json.dumps(value),
                            }
                            for name, value in NOW.items()
                        ],
                    }
                ],
            }
        ]
    },
    "event of the span": sdk_span(
        CHAT,
        events=[
            {
                "name": "gen_ai.client.inference.operation.details",
                "attributes": {"gen_ai.input.messages": ASKED, "gen_ai.output.messages": SAID},
            }
        ],
    ),
    "event a message": sdk_span(
        CHAT,
        events=[
            event("gen_ai.user.message", content="2 + 2?"),
            event("gen_ai.choice", index=0, finish_reason="stop", message='{"role": "assistant", "content": "4!"}'),
        ],
    ),
    "event a message, in one attribute": sdk_span(
        CHAT,
        events=[
            {"name": "gen_ai.user.message", "attributes": {"gen_ai.event.content": '{"content": "2 + 2?"}'}},
            {
                "name": "gen_ai.choice",
                "attributes": {"gen_ai.event.content": '{"message": {"content": "4!"}, "finish_reason": "stop"}'},
            },
        ],
    ),
    "events in an attribute": sdk_span(
        {
            **CHAT,
            "gen_ai.response.finish_reasons": ["stop"],
            "events": json.dumps(
                [
                    {"event.name": "gen_ai.user.message", "role": "user", "content": "2 + 2?"},
                    {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "4!"}},
                ]
            ),
        }
    ),
    "events of prompt and completion": sdk_span(
        {**CHAT, "gen_ai.response.finish_reasons": ["stop"]},
        events=[
            {"name": "gen_ai.content.prompt", "attributes": {"gen_ai.prompt": json.dumps(QUESTION)}},
            {
                "name": "gen_ai.content.completion",
                "attributes": {"gen_ai.completion": '[{"role": "assistant", "content": "4!"}]'},
            },
        ],
    ),
    "openllmetry": sdk_span(
        {
            **{"gen_ai.response.id": "chatcmpl-1", "gen_ai.response.model": "m-1", "llm.request.type": "chat"},
            **{"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "2 + 2?"},
            **{"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "4!"},
            "gen_ai.completion.0.finish_reason": "stop",
        }
    ),
    "text": sdk_span(
        {**CHAT, "gen_ai.prompt": "2 + 2?", "gen_ai.completion": "4!", "gen_ai.response.finish_reasons": '["stop"]'}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_response(form: str):
    sample = span_sample(FORMS[form])
    assert (sample.prompt, sample.response, sample.finish_reason) == (tuple(QUESTION), "4!", "stop")
    assert (sample.sample_id, sample.model, sample.reward) == ("chatcmpl-1", "m-1", None)
    assert (sample.log_mu, sample.log_mu_provenance) == (None, "absent")
    assert sample.created_at == 1_767_323_045  # date -u -d 2026-01-02T03:04:05 +%s
    assert guess_importer(as_row(FORMS[form])).name == "otel"


OPEN_INFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "m-1",
    "llm.invocation_parameters": '{"temperature": 0.7, "model": "m-1", "tools": []}',
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "2 + 2?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "4!",
    "llm.tools.0.tool.json_schema": '{"type": "function", "function": {"name": "add"}}',
}


@pytest.mark.parametrize(
    "span",
    [
        sdk_span(OPEN_INFERENCE),
        otlp(otlp_span(OPEN_INFERENCE)),
        {f"attributes.{name}": value for name, value in OPEN_INFERENCE.items()} | {"context.span_id": "0b"},
        sdk_span(
            {
                "openinference": {"span": {"kind": "LLM"}},
                "llm": {
                    "model_name": "m-1",
                    "invocation_parameters": '{"temperature": 0.7}',
                    "input_messages": [{"message": {"role": "user", "content": "2 + 2?"}}],
                    "output_messages": [{"message.role": "assistant", "message.content": "4!"}],
                    "tools": [{"tool": {"json_schema": '{"type": "function", "function": {"name": "add"}}'}}],
                },
            }
        ),
    ],
)
def test_openinferences_spans_are_read_flat_and_nested(span: dict[str, Any]):
    sample = span_sample(span)
    assert (sample.prompt, sample.response, sample.model) == (tuple(QUESTION), "4!", "m-1")
    assert sample.sampling is not None and sample.sampling.temperature == 0.7
    assert json.loads(sample.tools) == [{"type": "function", "function": {"name": "add"}}]
    assert sample.finish_reason == "unknown"
    assert guess_importer(as_row(span)).name == "otel"


def test_contents_and_calls_of_openinference_are_read():
    prefix = "llm.input_messages.0.message.contents"
    call = "llm.output_messages.0.message.tool_calls.0.tool_call"
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.input_messages.0.message.role": "user",
        f"{prefix}.0.message_content.type": "text",
        f"{prefix}.0.message_content.text": "2 + ",
        f"{prefix}.1.message_content.type": "text",
        f"{prefix}.1.message_content.text": "2?",
        "llm.output_messages.0.message.role": "assistant",
        f"{call}.id": "c1",
        f"{call}.function.name": "add",
        f"{call}.function.arguments": '{"a.b": 2}',
    }
    sample = span_sample(sdk_span(attributes))
    assert sample.prompt == tuple(QUESTION)
    assert [(call.name, call.arguments) for call in sample.turns[0].calls] == [("add", '{"a.b": 2}')]
    image = {**attributes, f"{prefix}.1.message_content.type": "image"}
    assert span_reason(sdk_span(image)) == "input messages holds something else than text"


def test_calls_and_results_are_parts():
    asked = [
        *ASKED,
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "I add."},
                {"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 2}},
                {"type": "tool_call", "id": "c2", "name": "sum", "arguments": None},
            ],
        },
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "c2", "result": {"sum": "vier"}},
                {"type": "tool_call_response", "id": "c1", "response": "4"},
            ],
        },
    ]
    tools = [{"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
    span = {**NOW, "gen_ai.input.messages": asked, "gen_ai.tool.definitions": json.dumps(tools)}
    sample = span_sample(sdk_span({**span, "gen_ai.system_instructions": [{"type": "text", "content": "Short."}]}))
    system, _, called, *results = sample.prompt
    assert system == {"role": "system", "content": "Short."}
    assert [call["function"]["name"] for call in called.get("tool_calls", ())] == ["add", "sum"]
    assert [(each.get("name"), each["content"]) for each in results] == [("sum", '{"sum": "vier"}'), ("add", "4")]
    assert json.loads(sample.tools)[0]["function"]["name"] == "add"


def test_a_call_of_openllmetry_is_a_turn():
    span = {
        **{"llm.request.type": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "2 + 2?"},
        **{"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.finish_reason": "tool_calls"},
        **{"gen_ai.completion.0.tool_calls.0.name": "add", "gen_ai.completion.0.tool_calls.0.arguments": '{"a": 2}'},
        **{"llm.request.functions.0.name": "add", "llm.request.functions.0.parameters": '{"type": "object"}'},
    }
    sample = span_sample(sdk_span(span))
    assert [(call.name, call.arguments) for call in sample.turns[0].calls] == [("add", '{"a": 2}')]
    assert json.loads(sample.tools)[0]["function"]["parameters"] == {"type": "object"}
    assert sample.finish_reason == "stop"


def test_each_choice_is_a_sample():
    other = {**SAID[0], "parts": [{"type": "text", "content": "5"}], "finish_reason": "length"}
    first, second = made_of_record(sdk_span({**NOW, "gen_ai.output.messages": [SAID[0], other]}))
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert [(s.sample_id, s.response, s.finish_reason) for s in (first, second)] == [
        ("chatcmpl-1", "4!", "stop"),
        ("chatcmpl-1#1", "5", "length"),
    ]
    assert first.group_id == second.group_id


def test_a_span_without_an_id_of_its_response_has_its_own():
    sample = span_sample(otlp(otlp_span({**NOW, "gen_ai.response.id": None})))
    assert (sample.sample_id, sample.metadata["trace_id"]) == ("0b", "0a")


def test_settings_are_those_of_the_request():
    settings = {
        **{"gen_ai.request.temperature": 0.7, "gen_ai.request.top_p": 0.9, "gen_ai.request.top_k": 40.0},
        **{"gen_ai.request.max_tokens": 20, "gen_ai.request.model": "m"},
    }
    found = span_sample(otlp(otlp_span({**NOW, **settings}))).sampling
    assert found is not None
    assert (found.temperature, found.top_p, found.top_k, found.max_new_tokens) == (0.7, 0.9, 40, 20)
    as_texts = {"SpanAttributes": {**{name: str(value) for name, value in settings.items()}, **NOW}, "SpanId": "0b"}
    assert span_sample(as_texts).sampling == found
    assert span_sample(sdk_span(NOW)).sampling is None


def test_with_stop_sequences_it_is_not_known_what_ended_the_text():
    assert span_sample(sdk_span({**NOW, "gen_ai.request.stop_sequences": ["\n"]})).finish_reason == "unknown"


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "embeddings", "gen_ai.input.messages": ASKED},
        {**NOW, "gen_ai.operation.name": "invoke_agent"},
        {**NOW, "gen_ai.operation.name": "execute_tool"},
        {"openinference.span.kind": "CHAIN", "input.value": "a", "output.value": "b"},
        {"traceloop.span.kind": "workflow", "gen_ai.completion": "4!"},
        {"http.request.method": "POST"},
        {},
    ],
)
def test_other_spans_hold_no_response_and_are_no_fault(attributes: dict[str, Any]):
    assert made_of_record(sdk_span(attributes)) == []
    assert made_of_record(otlp(otlp_span(attributes))) == []


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (sdk_span(CHAT), "no content recorded"),
        (sdk_span({**CHAT, "gen_ai.input.messages": ASKED}), "no content recorded"),
        (sdk_span({**NOW, "gen_ai.output.messages": []}), "no content recorded"),
        (sdk_span({**CHAT, "gen_ai.output.messages": SAID}), "no prompt"),
        (sdk_span({**NOW, "gen_ai.input.messages": json.dumps(ASKED)[:-20]}), "messages that are no whole JSON"),
        (sdk_span({**NOW, "gen_ai.output.messages": "4!"}), "messages that are no whole JSON"),
        (sdk_span({**NOW, "gen_ai.input.messages": 4}), "messages that are no list"),
        (sdk_span({**NOW, "gen_ai.input.messages": [None]}), "input messages is not text"),
        (
            sdk_span({**NOW, "gen_ai.input.messages": [{"role": "user", "parts": [None]}]}),
            "messages hold something else than text",
        ),
        (
            sdk_span(
                {**NOW, "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "blob", "content": "AA"}]}]}
            ),
            "messages hold something else than text",
        ),
        (
            sdk_span(
                {**NOW, "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": None}]}]}
            ),
            "input messages holds something else than text",
        ),
        (
            sdk_span({**NOW, "gen_ai.input.messages": [{"role": "critic", "parts": []}]}),
            "input messages has a message of another role",
        ),
        (
            sdk_span(
                {
                    **NOW,
                    "gen_ai.output.messages": [
                        {"role": "assistant", "parts": [{"type": "reasoning", "content": "2"}, *SAID[0]["parts"]]}
                    ],
                }
            ),
            "thoughts kept apart from the response",
        ),
        (
            sdk_span(
                {
                    **NOW,
                    "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "tool_call", "name": None}]}],
                }
            ),
            "output messages has a tool call without a name",
        ),
        (sdk_span({**NOW, "gen_ai.output.messages": [{**SAID[0], "finish_reason": "error"}]}), "the request failed"),
        (sdk_span({**NOW, "error.type": "timeout"}), "the request failed"),
        (sdk_span(NOW, status={"status_code": "ERROR"}), "the request failed"),
        (otlp(otlp_span(NOW, status={"code": 2, "message": "no"})), "the request failed"),
        (otlp(otlp_span(NOW, status={"code": "STATUS_CODE_ERROR"})), "the request failed"),
        (sdk_span({**NOW, "gen_ai.request.temperature": "warm"}), ""),
        (sdk_span({**NOW, "gen_ai.tool.definitions": [{}]}), "a tool without a name"),
        (sdk_span({**NOW, "gen_ai.tool.definitions": "add"}), "tools are not a list"),
        (
            sdk_span({**OPEN_INFERENCE, "llm.output_messages.1.message.content": "5"}),
            "several output messages",
        ),
        (
            sdk_span({**OPEN_INFERENCE, "llm.output_messages.0.message": "4!"}),
            "attributes that contradict each other",
        ),
        ({"resourceSpans": None}, ""),
        ({"resourceSpans": [{}]}, ""),
        ({"resourceSpans": "many"}, "an export of spans that is broken"),
        ({"resourceSpans": [None]}, "an export of spans that is broken"),
        ({"resourceSpans": [{"scopeSpans": {"spans": []}}]}, "an export of spans that is broken"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": ["chat"]}]}]}, "an export of spans that is broken"),
        (sdk_span(NOW, events="many"), ""),
        (sdk_span(NOW, events=[None, {"name": None, "attributes": [None]}]), ""),
        (otlp({**otlp_span(NOW), "startTimeUnixNano": "soon"}), "the time is not a number"),
    ],
)
def test_what_does_not_say_what_was_drawn_from_what_is_refused(span: dict[str, Any], reason: str):
    assert span_reason(span) == reason


def test_an_attribute_that_is_nested_too_deep_is_refused():
    deep: Any = "4!"
    for _ in range(100):
        deep = {"kvlistValue": {"values": [{"key": "a", "value": deep}]}}
    span = otlp_span(NOW)
    span["attributes"].append({"key": "deep", "value": deep})
    assert span_reason(otlp(span)) == "JSON nested too deep"


def test_a_span_that_cannot_be_read_costs_no_other(tmp_path: Path):
    good = otlp_span({**NOW, "gen_ai.response.id": "chatcmpl-2"})
    path = written(tmp_path / "spans.jsonl", [otlp(otlp_span(CHAT), good, otlp_span({"http.route": "/"})), otlp()])
    report = import_rows(Store(tmp_path / "store"), path)
    tally = report.tally
    assert (tally.num_rows, tally.num_added, report.num_rejected, tally.num_skipped) == (3, 1, 1, 1)
    assert report.examples["no content recorded"].startswith("spans.jsonl:1 span 1")
    (sample,) = open_store(tmp_path / "store").samples()
    assert sample.sample_id == "chatcmpl-2" and "chatcmpl-1" not in sample.raw


@pytest.mark.parametrize("form", ["otlp", "tempo", "tempo, newer", "jaeger"])
def test_a_file_of_one_object_is_read_whatever_stands_around_its_spans(tmp_path: Path, form: str):
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(FORMS[form], indent=2))
    report = import_rows(Store(tmp_path / "store"), path)
    assert (report.kind, report.tally.num_rows, report.tally.num_added) == ("otel", 1, 1)


def test_an_evaluation_rates_the_span_it_stands_in(tmp_path: Path):
    rated = otlp_span(NOW, events=[event("gen_ai.evaluation.result", **SCORE)])
    path = written(tmp_path / "spans.jsonl", [otlp(rated)])
    report = import_rows(Store(tmp_path / "store"), path)
    assert (report.tally.num_added, report.tally.num_ratings_added) == (1, 1)
    (sample,) = open_store(tmp_path / "store").samples()
    assert sample.reward == 0.75


def test_an_evaluation_that_comes_later_changes_nothing_of_the_span(tmp_path: Path):
    store = Store(tmp_path / "store")
    import_rows(store, written(tmp_path / "first.jsonl", [otlp(otlp_span(NOW))]))
    rated = otlp_span(NOW, events=[event("gen_ai.evaluation.result", **SCORE)])
    report = import_rows(store, written(tmp_path / "second.jsonl", [otlp(rated)]))
    assert (report.tally.num_duplicates, report.tally.num_ratings_added, report.num_rejected) == (1, 1, 0)


def test_an_evaluation_in_the_logs_names_its_response():
    record = {"eventName": "gen_ai.evaluation.result", "attributes": pairs({**SCORE, "gen_ai.response.id": "r-1"})}
    log = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    (rating,) = made_of_record(log)
    assert isinstance(rating, Feedback)
    assert (rating.sample_id, rating.name, rating.value) == ("r-1", "relevance", 0.75)
    nameless = {**record, "attributes": pairs(SCORE)}
    assert span_reason({"resourceLogs": [{"scopeLogs": [{"logRecords": [nameless]}]}]}) == "no response named"


def test_a_label_is_a_category_that_needs_a_map():
    labelled = [event("gen_ai.evaluation.result", **{"gen_ai.evaluation.score.label": "pass"})]
    assert span_reason(sdk_span(NOW, events=labelled)) == "a category without a map"
    _, rating = made_of_record(sdk_span(NOW, events=labelled), value_map={"pass": 1.0})
    assert isinstance(rating, Feedback) and rating.value == 1.0
    both = [event("gen_ai.evaluation.result", **SCORE, **{"gen_ai.evaluation.score.label": "pass"})]
    _, rating = made_of_record(sdk_span(NOW, events=both))
    assert isinstance(rating, Feedback) and rating.value == 0.75


def test_an_evaluation_without_a_score_is_no_rating():
    _, rating = made_of_record(sdk_span(NOW, events=[event("gen_ai.evaluation.result")]))
    assert isinstance(rating, Feedback) and rating.value is None


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([SCORE, {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 1}], "rates several things"),
        ([{**SCORE, "gen_ai.evaluation.score.value": 4}], "no scale is stated"),
    ],
)
def test_scores_of_several_things_or_off_their_scale_stop_the_import(
    tmp_path: Path, scores: list[dict[str, Any]], message: str
):
    span = otlp_span(NOW, events=[event("gen_ai.evaluation.result", **score) for score in scores])
    path = written(tmp_path / "spans.jsonl", [otlp(span)])
    with pytest.raises(ValueError, match=message):
        import_rows(Store(tmp_path / "store"), path)


@pytest.mark.parametrize("name", ["user.id", "enduser.id", "traceloop.association.properties.user_id"])
def test_users_are_hashed_under_the_names_that_spans_have(name: str):
    sample = span_sample(otlp(otlp_span({**NOW, name: "ann"})))
    assert sample.metadata["user"] not in ("", "ann")
    assert "ann" not in sample.raw


def test_an_attribute_that_is_called_as_a_part_of_the_span_is_beside_it():
    (row,) = split_spans(as_row(sdk_span({"name": "ann", "status": 3})))
    assert (row.values["name"], row.values["attributes.name"], row.values["attributes.status"]) == (
        "chat m-1",
        "ann",
        3,
    )


def test_attributes_with_numbers_in_their_names_are_lists_in_their_order():
    values = {"a.10.b": 3, "a.2.b": 2, "a.2.c.0": 4, "ab": 1}
    assert attribute(values, "a") == [{"b": 2, "c": [4]}, {"b": 3}]
    assert attribute(values, "b") is None
    assert attribute({"a": '{"0": 1}'}, "a") == {"0": 1}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (sdk_span({"http.route": "/"}), "otel"),
        ({"resourceLogs": []}, "otel"),
        ({"prompt": "a", "response": "b", "attributes": {"x": 1}}, "table"),
        ({"id": "o", "traceId": "t", "input": "a", "output": "b"}, "langfuse"),
        ({"messages": QUESTION, "data": [{"spans": []}]}, "prompt-completion"),
    ],
)
def test_it_is_guessed_by_the_names_of_the_conventions(values: dict[str, Any], kind: str):
    assert guess_importer(as_row(values)).name == kind
