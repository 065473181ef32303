"""LangSmith's runs: which of them hold an answer, what the model read, and whose feedback it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, made_of, reason_of, written

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import guess_importer, import_rows
from klimb.experience.importing.langchain import openai_form
from klimb.experience.store import Store

EXPORTS = Path(__file__).parent / "exports"
CHAIN, CALL, GRAPH = map(json.loads, (EXPORTS / "langsmith_runs.jsonl").read_text().splitlines())
ASKED = [{"role": "user", "content": "2 + 2?"}]


def run(outputs: Any = None, *, inputs: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "r-1",
        "run_type": "llm",
        "start_time": "2026-01-02T03:04:05",
        "inputs": {"messages": ASKED} if inputs is None else inputs,
        "outputs": {"choices": [{"message": {"role": "assistant", "content": "4"}}]} if outputs is None else outputs,
        "parent_run_id": None,
        **more,
    }


def feedback(score: object = 1, *, key: str = "user_score", kind: str = "api", by: object = "ann", **more: Any) -> Any:
    source = {"type": kind, "user_id": by}
    return {"id": f"f-{key}-{by}", "key": key, "score": score, "value": None, "feedback_source": source, **more}


def split(row: dict[str, Any], **rules: Any) -> tuple[Sample, list[Feedback]]:
    sample, *ratings = made_of("langsmith", row, **rules)
    assert isinstance(sample, Sample)
    return sample, [each for each in ratings if isinstance(each, Feedback)]


def test_a_chain_with_its_runs_has_the_prompt_that_the_model_read():
    assert guess_importer(as_row(CHAIN)).name == "langsmith"
    sample, (rating,) = split(CHAIN)
    assert sample.prompt == (
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Which planet is the largest?"},
    )
    assert (sample.response, sample.finish_reason, sample.model) == ("Jupiter.", "stop", "m-1")
    assert sample.sampling is not None and sample.sampling.temperature == 0.7
    assert sample.metadata["session_id"] == "th-1"
    assert "user" in sample.metadata and '"ann"' not in sample.raw
    assert (rating.sample_id, rating.name, rating.value) == (CHAIN["id"], "user_score", 1.0)


def test_a_chain_without_its_runs_is_what_it_was_asked_and_gave_back():
    sample, _ = split({**CHAIN, "child_runs": None})
    assert sample.prompt == ({"role": "user", "content": "Which planet is the largest?"},)
    assert (sample.response, sample.metadata["session_id"]) == ("Jupiter.", "th-1")


def test_runs_below_the_root_give_nothing_unless_a_call_was_rated_itself():
    assert made_of("langsmith", CALL) == []
    sample, (rating,) = split({**CALL, "feedback": [feedback(0)]})
    assert (sample.response, rating.value, rating.sample_id) == ("Jupiter.", 0.0, CALL["id"])
    for kind in ("tool", "retriever", "parser"):
        assert made_of("langsmith", run(run_type=kind)) == []


def test_a_graph_gives_its_messages_back_and_what_it_adds_is_the_answer():
    sample, _ = split(GRAPH)
    assert sample.prompt == ({"role": "user", "content": "Which planet is the largest?"},)
    assert [(turn.role, turn.text) for turn in sample.turns] == [
        ("assistant", ""),
        ("tool", "Jupiter"),
        ("assistant", "Jupiter."),
    ]
    assert [(call.name, json.loads(call.arguments)) for call in sample.turns[0].calls] == [
        ("look_up", {"q": "planets"})
    ]
    other = {**GRAPH, "inputs": {"messages": [{"type": "human", "content": "Which is the smallest?"}]}}
    assert reason_of("langsmith", other) == "outputs that repeat another conversation"


def test_rows_of_a_bulk_export_have_their_objects_as_json_text():
    row = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in CHAIN.items()}
    sample, (rating,) = split({**row, "child_runs": None})
    assert (sample.response, rating.value) == ("Jupiter.", 1.0)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "human", "content": "Hi"},
        {"type": "HumanMessageChunk", "content": "Hi"},
        {"type": "human", "data": {"content": "Hi", "type": "human"}},
        {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
         "kwargs": {"content": "Hi"}},
        ["human", "Hi"],
        ["user", "Hi"],
        {"role": "user", "content": "Hi"},
        {"role": "human", "content": "Hi"},
    ],
)  # fmt: skip
def test_every_form_of_a_message_says_the_same(form: Any):
    assert {**openai_form(form)} == {"role": "user", "content": "Hi"}
    sample, _ = split(run(inputs={"messages": [[form]]}))
    assert sample.prompt == ({"role": "user", "content": "Hi"},)


def test_calls_of_tools_have_one_form_and_their_results_name_the_tool():
    spoken = [
        ["human", "2 + 2?"],
        {
            "type": "ai",
            "content": [{"type": "tool_use", "id": "c"}],
            "tool_calls": [{"name": "add", "args": {"a": 2}, "id": "c"}],
        },
        {"type": "tool", "content": "4", "tool_call_id": "c"},
    ]
    sample, _ = split(run(inputs={"messages": spoken}))
    assert [each["role"] for each in sample.prompt] == ["user", "assistant", "tool"]
    assert sample.prompt[1].get("tool_calls") == [
        {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    ]
    assert sample.prompt[2].get("name") == "add"
    broken = {"type": "ai", "content": "", "invalid_tool_calls": [{"name": "add", "args": "{"}]}
    assert reason_of("langsmith", run(inputs={"messages": [broken]})) == "a tool call that LangChain could not read"


def test_history_stands_before_the_question():
    inputs = {"input": "And 3 + 3?", "chat_history": [["human", "2 + 2?"], ["ai", "4"]], "session_id": "s"}
    sample, _ = split(run({"output": "6"}, inputs=inputs, run_type="chain"))
    assert [each["content"] for each in sample.prompt] == ["2 + 2?", "4", "And 3 + 3?"]


def test_several_people_rate_one_run_and_a_model_is_not_one_of_them():
    given = [feedback(1, by="ann"), feedback(0, by="ben"), feedback(True, by=None, kind="model")]
    _, ratings = split(run(feedback=given))
    assert [rating.value for rating in ratings] == [1.0, 0.0, 1.0]
    assert ratings[2].user == "model:"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (feedback(0.5), 0.5),
        (feedback(None, value="up"), 1.0),
        (feedback(None, comment="Nice."), None),
        (feedback(0, comment="Wrong."), 0.0),
    ],
)
def test_a_score_is_the_rating_and_without_one_the_value(entry: Any, value: float | None):
    _, (rating,) = split(run(feedback=[entry]))
    assert (rating.value, rating.comment) == (value, entry.get("comment") or "")


def test_feedback_that_says_nothing_is_no_rating():
    assert split(run(feedback=[feedback(None)]))[1] == []
    assert split(run(feedback=[]))[1] == []
    assert split(run(feedback_stats={"user_score": {"n": 0, "avg": None, "values": {}}}))[1] == []


def test_a_mean_is_taken_where_the_ratings_themselves_are_not_there():
    _, (rating,) = split(run(feedback_stats={"user_score": {"n": 4, "avg": 0.75, "values": {}}}))
    assert (rating.value, rating.comment) == (0.75, "the mean of 4 ratings")
    stats = {"verdict": {"n": 2, "avg": None, "values": {"fine": 2}}}
    assert split(run(feedback_stats=stats), value_map={"fine": 1.0})[1][0].value == 1.0
    mixed = {"verdict": {"n": 2, "avg": None, "values": {"fine": 1, "so-so": 1}}}
    assert split(run(feedback_stats=mixed), value_map={"fine": 1.0, "so-so": 0.5})[1][0].value == 0.75
    assert reason_of("langsmith", run(feedback_stats=mixed)) == "a rating that is text"


def test_an_answer_that_is_json_stays_the_text_that_it_is():
    assert split(run({"output": '{"sum": 4}'}))[0].response == '{"sum": 4}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (run(error="timeout"), "the request failed"),
        (run({}), "no response"),
        (run({"output": None}), "outputs that are no message and not one text"),
        (run({"a": "4", "b": "5"}), "outputs that are no message and not one text"),
        (run({"choices": [{"text": "4"}, {"text": "5"}]}), "a call of several choices"),
        (run({"choices": [{}]}), "a choice without message or text"),
        (run({"generations": [[]]}), "a call of several choices"),
        (run(inputs={}), "no prompt"),
        (run(inputs={"messages": []}), "no prompt"),
        (run(inputs={"question": "2 + 2?", "documents": ["A text."]}), "inputs that are no messages and not one text"),
        (run(inputs={"messages": [["human"]]}), "input has a message of another role"),
        (run({"role": "assistant", "content": "4", "reasoning_content": "hm"}),
         "thoughts kept apart from the response"),
        (run({"type": "ai", "content": "4", "additional_kwargs": {"reasoning_content": "hm"}}),
         "thoughts kept apart from the response"),
        (run(feedback=[feedback(1), feedback(0, key="tone")]), "ratings of several things"),
        (run(feedback=[feedback(None, value={"a": "b"})]), "the rating is not a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(row: Any, reason: str):
    assert reason_of("langsmith", row) == reason


@pytest.mark.parametrize("value", [None, [], {}, "x", 3, [None], [[]], [[None]], {"messages": [None]}, {"lc": 1}])
def test_no_field_that_is_something_else_ends_in_a_traceback(value: object):
    for name in CHAIN:
        reason_of("langsmith", {**CHAIN, name: value})
    for row in (run(value), run(inputs=value), run(feedback=[value]), run(feedback_stats={"a": value})):
        reason_of("langsmith", row)


def test_a_file_of_runs_is_imported_with_its_rating(tmp_path: Path):
    store = Store(tmp_path / "store")
    report = import_rows(store, written(tmp_path / "runs.jsonl", [CHAIN, CALL, GRAPH]))
    assert (report.kind, report.tally.num_rows, report.tally.num_added, report.tally.num_skipped) == (
        "langsmith",
        3,
        2,
        1,
    )
    assert report.num_rejected == 0
    assert {each.sample_id: each.reward for each in store.samples()} == {CHAIN["id"]: 1.0, GRAPH["id"]: None}
