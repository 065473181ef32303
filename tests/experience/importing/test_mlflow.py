"""MLflow's traces: whose words were rated, which assessments count, and what an expectation is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, made_of, reason_of, written

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.rules import ImportRules
from klimb.experience.store import Store

EXPORTS = Path(__file__).parent / "exports"
(TRACE,) = json.loads((EXPORTS / "mlflow_traces.json").read_text())
ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2?"}]


def span(name: str, kind: str, inputs: object, outputs: object, *, parent: str | None = "root", at: int = 1) -> Any:
    attributes = {"mlflow.spanType": kind, "mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs}
    return {
        "span_id": name,
        "parent_span_id": parent,
        "start_time_unix_nano": at,
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }


def call(text: object, *, at: int = 1, name: str = "llm", **inputs: Any) -> Any:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return span(name, "CHAT_MODEL", {"messages": ASKED, "model": "m-1", **inputs}, {"choices": [choice]}, at=at)


def trace(*spans: Any, given_back: object = "4", assessments: Any = (), **info: Any) -> dict[str, Any]:
    root = span("root", "CHAIN", {"question": "2 + 2?"}, given_back, parent=None)
    return {
        "info": {
            "trace_id": "tr-1",
            "request_time": "2026-01-02T03:04:05Z",
            "state": "OK",
            "assessments": list(assessments),
            **info,
        },
        "data": {"spans": [root, *spans]},
    }


def assessment(value: object, *, name: str = "thumbs", **more: Any) -> dict[str, Any]:
    return {
        "assessment_id": f"a-{name}-{more.get('by', '')}",
        "assessment_name": name,
        "source": {"source_type": more.pop("kind", "HUMAN"), "source_id": more.pop("by", "ann")},
        "create_time": "2026-01-02T03:04:06Z",
        "feedback": {"value": value},
        "valid": True,
        **more,
    }


def split(row: dict[str, Any], **rules: Any) -> tuple[Sample, list[Feedback]]:
    sample, *ratings = made_of("mlflow", row, **rules)
    assert isinstance(sample, Sample)
    return sample, [each for each in ratings if isinstance(each, Feedback)]


def test_the_exported_trace_has_the_thumb_that_overrode_the_first():
    sample, (thumb,) = split(TRACE, score_name="thumbs")
    assert sample.prompt == ({"role": "user", "content": "Which planet is the largest?"},)
    assert (sample.response, sample.sample_id) == ("Jupiter is the largest planet.", TRACE["info"]["trace_id"])
    assert (sample.metadata["answer"], sample.metadata["session_id"], sample.metadata["app"]) == (
        "Jupiter",
        "s1",
        "demo",
    )
    assert (thumb.value, thumb.comment) == (0.0, "changed my mind")
    assert "ann@example.com" not in repr((sample, thumb)) and sample.metadata["user"] != "u1"
    _, (judged,) = split(TRACE, score_name="helpfulness", scale=(1, 5))
    assert (judged.value, judged.user) == (0.75, "LLM_JUDGE:judge-1")
    assert reason_of("mlflow", TRACE) == "ratings of several things"


def test_rows_of_search_traces_say_the_same_with_the_whole_trace_and_without():
    row = json.loads((EXPORTS / "mlflow_search_traces.jsonl").read_text())
    whole, _ = split(TRACE, score_name="thumbs")
    for each in (row, {name: value for name, value in row.items() if name != "trace"}):
        assert guess_importer(as_row(each)).name == "mlflow"
        sample, ratings = split(each, score_name="thumbs")
        assert (sample.prompt, sample.response, sample.metadata) == (whole.prompt, whole.response, whole.metadata)
        assert sample.created_at == pytest.approx(whole.created_at, abs=0.01)
        assert [rating.value for rating in ratings] == [0.0]


def test_the_prompt_is_what_the_model_read_and_not_what_the_application_was_asked():
    sample, _ = split(trace(call("4", temperature=0.5, tools=[{"name": "add"}])))
    assert [each["content"] for each in sample.prompt] == ["Be short.", "2 + 2?"]
    assert (sample.model, sample.finish_reason, json.loads(sample.tools)[0]["function"]) == (
        "m-1",
        "stop",
        {"name": "add"},
    )
    assert sample.sampling is not None and sample.sampling.temperature == 0.5


def test_a_later_call_that_said_something_else_is_not_what_was_rated():
    row = trace(call("4", at=1), call("A sum", at=2, name="title"))
    assert split(row)[0].response == "4"
    within = trace(call("4", at=1), call("A sum", at=2, name="title"), given_back={"answer": " 4 ", "sources": []})
    assert split(within)[0].response == "4"
    none = trace(call("Four", at=1), given_back="4")
    assert [each["content"] for each in split(none)[0].prompt] == ["2 + 2?"]
    assert split(none)[0].response == "4"
    silent = trace(call("4", at=2), call("Let me see.", at=1), given_back=None)
    assert split(silent)[0].response == "4"
    assert reason_of("mlflow", trace(call("Four"), given_back={"a": "4", "b": "5"})) == (
        "outputs that are no message and not one text"
    )


def test_an_answer_that_is_json_stays_the_text_that_it_is():
    assert split(trace(call('{"sum": 4}'), given_back='{"sum": 4}'))[0].response == '{"sum": 4}'
    assert split(trace(call('{"sum": 4}'), given_back={"sum": 4}))[0].response == '{"sum": 4}'
    assert split(trace(given_back='{"sum": 4}'))[0].response == '{"sum": 4}'


def test_a_trace_without_a_call_of_a_model_is_what_it_was_asked_and_gave_back():
    sample, _ = split(trace())
    assert (sample.prompt, sample.response) == (({"role": "user", "content": "2 + 2?"},), "4")


@pytest.mark.parametrize(
    "entries",
    [
        [[{"type": "system", "content": "Be short."}, {"type": "human", "content": "2 + 2?"}]],
        [["system", "Be short."], ["human", "2 + 2?"]],
        [{"role": "system", "content": [{"type": "text", "text": "Be short."}]}, {"role": "user", "content": "2 + 2?"}],
    ],
)
def test_messages_of_langchain_are_read_as_openais(entries: Any):
    outputs = {"generations": [[{"text": "4", "message": {"type": "ai", "content": "4"}}]]}
    llm = span("llm", "CHAT_MODEL", {"messages": entries}, outputs)
    sample, _ = split(trace(llm))
    assert ([each["role"] for each in sample.prompt], sample.response) == (["system", "user"], "4")


def test_anthropics_system_prompt_stands_beside_its_messages():
    outputs = {"role": "assistant", "content": [{"type": "text", "text": "4"}], "stop_reason": "max_tokens"}
    llm = span("llm", "CHAT_MODEL", {"system": "Be short.", "messages": ASKED[1:]}, outputs)
    sample, _ = split(trace(llm))
    assert [each["role"] for each in sample.prompt] == ["system", "user"]
    assert (sample.response, sample.finish_reason) == ("4", "length")


def test_several_people_rate_one_answer_and_each_rating_is_kept():
    row = trace(call("4"), assessments=[assessment(True, by="ann"), assessment(False, by="ben")])
    sample, ratings = split(row)
    assert sample.reward is None
    assert [rating.value for rating in ratings] == [1.0, 0.0]
    assert {rating.sample_id for rating in ratings} == {"tr-1"}
    assert len({rating.user for rating in ratings}) == 2 == len({rating.feedback_id for rating in ratings})


@pytest.mark.parametrize(
    ("value", "reward"), [(True, 1.0), (False, 0.0), (0.5, 0.5), ("yes", 1.0), ("no", 0.0), ("unknown", None)]
)
def test_feedback_is_a_number_a_truth_or_a_judges_word(value: object, reward: float | None):
    _, (rating,) = split(trace(call("4"), assessments=[assessment(value, rationale="so")]))
    assert (rating.value, rating.comment) == (reward, "so")


def test_an_object_of_feedback_rates_a_thing_by_each_of_its_keys():
    row = trace(call("4"), assessments=[assessment({"tone": 0.25, "facts": 1}, name="judge")])
    _, (rating,) = split(row, score_name="judge.tone")
    assert (rating.name, rating.value) == ("judge.tone", 0.25)
    assert reason_of("mlflow", row) == "ratings of several things"


def test_what_is_no_rating_is_none():
    failed = {**assessment(None), "feedback": {"error": {"error_code": "JUDGE"}}}
    expectation = {**assessment(None, name="expected"), "expectation": {"value": "4"}}
    del expectation["feedback"]
    withdrawn = assessment(True, valid=False)
    other = assessment(True, span_id="retriever")
    sample, ratings = split(trace(call("4"), assessments=[failed, expectation, withdrawn, other, {}, assessment(None)]))
    assert ratings == []
    assert (sample.metadata["answer"], sample.metadata["expectation.expected"]) == ("4", "4")
    facts = {**expectation, "assessment_name": "facts", "expectation": {"value": ["4", "even"]}}
    sample, _ = split(trace(call("4"), assessments=[facts]))
    assert (sample.metadata["expectation.facts"], "answer" in sample.metadata) == ('["4", "even"]', False)


def test_ratings_of_other_spans_are_no_names_to_choose_from(tmp_path: Path):
    other = assessment(0.25, name="relevance", span_id="retriever")
    row = trace(call("4"), assessments=[assessment(True), assessment(False, by="ben", span_id="llm"), other])
    store = Store(tmp_path / "store")
    report = import_rows(store, written(tmp_path / "traces.jsonl", [row]))
    assert report.tally.num_ratings_added == 2
    assert report.tally.unread["assessments of other spans than the one that answered"] == 1
    assert [each.reward for each in store.samples()] == [0.5]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"info": {}, "data": {}}, "a trace without an id"),
        (
            {"trace_id": "t", "trace": "Trace(trace_id=t)", "request": "{'q': '2 + 2?'}", "spans": "[{'name': 'app'}]"},
            "cells that are no JSON",
        ),
        ({"trace_id": "t", "spans": [], "assessments": "[{'valid': True}]"}, "cells that are no JSON"),
        ({"info": {"trace_id": "t"}, "data": None}, "a trace without its spans"),
        (trace(call("4"), state="ERROR"), "the request failed"),
        (trace(call("4"), state="IN_PROGRESS"), "the request failed"),
        (trace(given_back=None), "no response"),
        (trace(call("4"), assessments=[assessment("fine")]), "a rating that is text"),
        (trace(call("4"), assessments=[assessment([1])]), "the rating is not a number"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(row: Any, reason: str):
    assert reason_of("mlflow", row) == reason


def test_thoughts_beside_the_answer_of_a_call_are_refused():
    said = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    llm = span("llm", "CHAT_MODEL", {"messages": ASKED}, {"choices": [{"message": said}]})
    for given_back in (None, "4"):
        assert reason_of("mlflow", trace(llm, given_back=given_back)) == "thoughts kept apart from the response"


@pytest.mark.parametrize("value", [None, [], {}, "x", 3, [None], [[]]])
@pytest.mark.parametrize(
    "name", ["spans", "assessments", "trace_metadata", "tags", "request_time", "trace_id", "state"]
)
def test_no_field_that_is_something_else_ends_in_a_traceback(name: str, value: object):
    row = trace(call("4"), assessments=[assessment(True)])
    row["data" if name == "spans" else "info"][name] = value
    reason_of("mlflow", row)


def test_a_rating_follows_its_response_to_another_id_and_to_each_turn_of_it():
    row = trace(call("4"), assessments=[assessment(True)])
    sample, (rating,) = split(row, ids="content")
    assert rating.sample_id == sample.sample_id != "tr-1"
    turns = [{"type": "ai", "content": "", "tool_calls": [{"name": "add", "args": {}, "id": "c"}]},
             {"type": "tool", "content": "4", "tool_call_id": "c"}, {"type": "ai", "content": "4"}]  # fmt: skip
    graph = trace(given_back=turns, assessments=[assessment(False)])
    made = made_of(
        "mlflow", graph, encode=lambda whole: [replace(whole, sample_id=f"{whole.sample_id}-t{n}") for n in (0, 1)]
    )
    assert [each.sample_id for each in made if isinstance(each, Feedback)] == ["tr-1-t0", "tr-1-t1"]
    assert len({each.feedback_id for each in made if isinstance(each, Feedback)}) == 2


def test_exported_traces_of_an_agent_a_chain_and_a_function_are_read_and_a_failure_is_refused():
    rows = [json.loads(line) for line in (EXPORTS / "mlflow_agent.jsonl").read_text().splitlines()]
    plain, failed, agent, chain = rows
    sample, (rating,) = split(plain, score_name="good")
    assert (sample.prompt[0]["content"], sample.response, rating.value) == ("2 + 2?", "Four", 1.0)
    assert reason_of("mlflow", failed) == "the request failed"
    sample, (rating,) = split(agent, score_name="good")
    assert [each["role"] for each in sample.prompt] == ["user", "assistant", "tool"]
    assert (sample.response, sample.prompt[2].get("name"), rating.value) == ("It is 4.", "add", 0.0)
    assert json.loads(sample.tools)[0]["function"]["name"] == "add"
    sample, ratings = split(chain, score_name="good")
    assert ([each["role"] for each in sample.prompt], sample.response) == (["system", "user"], "4")
    assert [(rating.value, rating.comment) for rating in ratings] == [(1.0, "right"), (1.0, "")]


def test_a_file_of_traces_asks_which_name_is_the_reward_and_then_joins_the_rating(tmp_path: Path):
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="--score-name"):
        import_rows(store, EXPORTS / "mlflow_traces.json", rules=ImportRules(now=2e9))
    report = import_rows(store, EXPORTS / "mlflow_traces.json", rules=ImportRules(now=2e9, score_name="thumbs"))
    assert (report.tally.num_added, report.tally.num_ratings_added, report.num_rejected) == (1, 1, 0)
    assert [each.reward for each in store.samples()] == [0.0]
