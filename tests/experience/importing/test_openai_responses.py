from collections.abc import Mapping
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, as_row, reason_of, sample_of

from klimb.experience.importing import guess_importer
from klimb.experience.importing.registry import convert_row, importer_named, rename_columns
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Columns
from klimb.experience.samples import Sample

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 2, "b": 2}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "4"}
ADD = {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}


def text_part(text: str = "4!", **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], **more}


def said(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}


def responses_row(
    *output: Any, request: Mapping[str, Any] = {}, response: Mapping[str, Any] = {}, **outer: Any
) -> dict[str, Any]:
    return {
        "request": {"model": "m", "input": "2 + 2?", "temperature": 1, "top_p": 1, **request},
        "response": {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": "completed",
            "error": None,
            "model": "m-1",
            "output": list(output) or [said(text_part())],
            **response,
        },
        **outer,
    }


def response_sample(*output: Any, rules: Mapping[str, Any] = {}, **row: Any) -> Sample:
    return sample_of("openai-responses", responses_row(*output, **row), **rules)


def response_reason(*output: Any, **row: Any) -> str:
    return reason_of("openai-responses", responses_row(*output, **row))


def test_input_and_output_are_prompt_and_response():
    sample = response_sample(request={"instructions": "Short.", "metadata": {"version": "b"}, "user": "u"})
    assert sample.prompt == ({"role": "system", "content": "Short."}, *QUESTION)
    assert (sample.sample_id, sample.response, sample.finish_reason, sample.model) == ("resp_1", "4!", "stop", "m-1")
    assert sample.created_at == 1_700_000_000
    assert (sample.reward, sample.log_mu_provenance, sample.metadata["version"]) == (None, "absent", "b")
    assert sample.sampling is not None and sample.sampling.temperature == 1
    assert "user" in sample.metadata and sample.metadata["user"] != "u"


def test_items_that_went_in_are_the_prompt_with_calls_and_results():
    items = [
        {"role": "developer", "content": "Short."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "2 + "}, {"type": "input_text", "text": "2?"}],
        },
        said(text_part("I add.")),
        CALL,
        {**CALL, "call_id": "c2", "name": "sum"},
        {**RESULT, "call_id": "c2"},
        RESULT,
    ]
    sample = response_sample(request={"input": items, "tools": [ADD]})
    assert [each["role"] for each in sample.prompt] == ["system", "user", "assistant", "tool", "tool"]
    assert sample.prompt[1] == QUESTION[0]
    assert [call["function"]["name"] for call in sample.prompt[2].get("tool_calls", ())] == ["add", "sum"]
    assert [each.get("name") for each in sample.prompt[3:]] == ["sum", "add"]
    assert '"name": "add"' in sample.tools


def test_calls_are_the_response_and_those_behind_a_text_belong_to_its_turn():
    (turn,) = response_sample(CALL).turns
    assert (turn.text, turn.calls[0].name, turn.calls[0].arguments) == ("", "add", '{"a": 2, "b": 2}')
    (turn,) = response_sample(said(text_part("I add.")), CALL).turns
    assert (turn.text, turn.calls[0].name) == ("I add.", "add")


def test_a_call_that_the_server_made_has_its_result_as_context():
    mcp = {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "roll", "arguments": "{}", "output": "4"}
    listing = {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": []}
    row = {"request": {"tools": [{"type": "mcp", "server_label": "s"}]}}
    sample = response_sample(listing, mcp, said(text_part()), **row)
    assert [(turn.role, turn.text, turn.is_drawn) for turn in sample.turns] == [
        ("assistant", "", True),
        ("tool", "4", False),
        ("assistant", "4!", True),
    ]
    assert (sample.tools, sample.metadata["server_tools"]) == ("", "mcp")
    failed = {**mcp, "output": None, "error": "no dice"}
    assert response_sample(failed, said(text_part()), **row).turns[1].text == "no dice"


def test_tools_of_the_servers_own_that_were_not_used_are_named():
    sample = response_sample(request={"tools": [{"type": "web_search"}, ADD]})
    assert sample.metadata["server_tools"] == "web_search"
    assert "web_search" not in sample.tools and "add" in sample.tools


def test_a_refusal_is_the_response_and_named():
    sample = response_sample(said({"type": "refusal", "refusal": "I can't."}))
    assert (sample.response, sample.metadata["refusal"]) == ("I can't.", "true")
    assert "refusal" not in response_sample().metadata
    history = [*QUESTION, said({"type": "refusal", "refusal": "No."}), *QUESTION]
    assert response_sample(request={"input": history}).prompt[1]["content"] == "No."


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "unknown"),
        ({"status": "incomplete", "incomplete_details": None}, "unknown"),
        ({"status": None}, "unknown"),
    ],
)
def test_what_ended_the_response_is_what_the_log_says(response: dict[str, Any], reason: str):
    assert response_sample(response=response).finish_reason == reason


TOKENS = [{"token": "4", "logprob": -0.5, "bytes": [52]}, {"token": "!", "logprob": -1.0, "bytes": [33]}]


def ids_of(tokens: Any) -> tuple[int, ...]:
    return tuple(range(len(tokens)))


def test_logged_tokens_become_log_probabilities_of_ids():
    sample = response_sample(said(text_part(logprobs=TOKENS)), rules={"resolve": ids_of})
    assert (sample.response_ids, sample.log_mu, sample.log_mu_provenance) == ((0, 1), (-0.5, -1.0), "sampler")
    assert response_sample(said(text_part(logprobs=TOKENS))).metadata["log_mu_note"] == (
        "log-probabilities without token ids"
    )
    assert response_sample(said(text_part(logprobs=[]))).log_mu_provenance == "absent"


def test_log_probabilities_of_a_part_of_the_texts_are_none():
    both = said(text_part("4", logprobs=TOKENS[:1]), text_part("!"))
    assert response_sample(both, rules={"resolve": ids_of}).log_mu is None
    whole = said(text_part("4", logprobs=TOKENS[:1]), text_part("!", logprobs=TOKENS[1:]))
    assert response_sample(whole, rules={"resolve": ids_of}).log_mu == (-0.5, -1.0)


def test_tokens_that_do_not_spell_the_text_leave_it_as_text_alone():
    sample = response_sample(said(text_part(logprobs=[{"token": "5", "logprob": -1}])), rules={"resolve": ids_of})
    assert (sample.response, sample.response_ids, sample.log_mu) == ("4!", (), None)
    assert sample.metadata["log_mu_note"].startswith("logged tokens do not spell the response")


@pytest.mark.parametrize(
    "request_", [{"tools": [{"type": "web_search"}]}, {"truncation": "auto"}, {"text": {"verbosity": "low"}}]
)
def test_what_may_have_changed_the_prompt_makes_them_estimates(request_: dict[str, Any]):
    sample = response_sample(said(text_part(logprobs=TOKENS)), request=request_, rules={"resolve": ids_of})
    assert sample.log_mu_provenance == "estimated"


def test_settings_that_change_what_is_drawn_make_them_estimates():
    for request in (
        {"temperature": 0.7},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
    ):
        sample = response_sample(said(text_part(logprobs=TOKENS)), request=request, rules={"resolve": ids_of})
        assert sample.log_mu_provenance == "estimated"
    plain = {"text": {"format": {"type": "text"}}, "max_output_tokens": 20, "tool_choice": "auto", "store": False}
    sample = response_sample(said(text_part(logprobs=TOKENS)), request=plain, rules={"resolve": ids_of})
    assert sample.log_mu_provenance == "sampler"
    assert sample.sampling is not None and sample.sampling.max_new_tokens == 20


def stored(**more: Any) -> dict[str, Any]:
    """A stored response: it repeats the settings, and the items that went in are beside it."""
    return {**responses_row()["response"], "instructions": "Short.", "temperature": 1.0, "top_p": 1.0, **more}


@pytest.mark.parametrize(
    "row",
    [
        stored(input="2 + 2?"),
        stored(input=QUESTION),
        stored(input_items={"object": "list", "data": QUESTION}),
        {"response": stored(), "input_items": QUESTION},
        {"response": stored(input=QUESTION)},
        {"custom_id": "c", "body": {"input": "2 + 2?", "instructions": "Short."}, "response": {"body": stored()}},
        {
            "request": '{"input": "2 + 2?", "instructions": "Short."}',
            "response": {"status_code": 200, "body": stored()},
        },
    ],
)
def test_every_shape_gives_the_same_response(row: dict[str, Any]):
    sample = sample_of("openai-responses", row)
    assert sample.prompt == ({"role": "system", "content": "Short."}, *QUESTION)
    assert (sample.sample_id, sample.response, sample.finish_reason) == ("resp_1", "4!", "stop")
    assert sample.sampling is not None and sample.sampling.temperature == 1
    assert guess_importer(as_row(row)).name == "openai-responses"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"request": {"previous_response_id": "resp_0"}}, "a prompt that is not in the log"),
        ({"response": {"previous_response_id": "resp_0"}}, "a prompt that is not in the log"),
        ({"response": {"conversation": {"id": "conv_1"}}}, "a prompt that is not in the log"),
        ({"request": {"prompt": {"id": "pmpt_1"}}}, "a prompt that is not in the log"),
        ({"request": {"input": [{"type": "item_reference", "id": "msg_0"}]}}, "a prompt that is not in the log"),
        ({"request": {"input": None}}, "no request"),
        ({"request": {"input": ""}}, "no prompt"),
        ({"request": {"input": []}}, "no prompt"),
        ({"request": {"input": 4}}, "no input"),
        ({"request": {"input": [4]}}, "no input"),
        ({"request": {"input": [{"content": "2 + 2?"}]}}, "prompt has a message of another role"),
        ({"request": {"input": [{"role": "user", "content": None}]}}, "prompt is not text"),
        (
            {"request": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]}},
            "prompt holds something else than text",
        ),
        (
            {"request": {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}},
            "prompt holds something else than text",
        ),
        ({"request": {"input": [*QUESTION, THOUGHT, *QUESTION]}}, "thoughts kept apart from the prompt"),
        (
            {"request": {"input": [*QUESTION, {**CALL, "arguments": "2 + 2"}]}},
            "prompt has a tool call whose arguments are no JSON object",
        ),
        ({"request": {"input": [*QUESTION, CALL, {**RESULT, "output": {"a": 1}}]}}, "prompt is not text"),
        ({"request": {"instructions": 4}}, "no instructions"),
        ({"request": {"tools": {"type": "function"}}}, "tools are not a list"),
        ({"request": {"tools": [{"type": "function"}]}}, "a tool without a name"),
        ({"response": {"status": "failed", "error": {"code": "server_error"}}}, "the request failed"),
        ({"response": {"status": "cancelled"}}, "the request failed"),
        ({"response": {"status": "in_progress"}}, "the request failed"),
        ({"response": {"output": None}}, "no output"),
        ({"response": {"output": []}}, "output is no message of the assistant"),
        ({"response": {"output": "4!"}}, "no output"),
        ({"response": {"output": [None]}}, "output is not text"),
        (
            {"response": {"usage": {"output_tokens_details": {"reasoning_tokens": 64}}}},
            "thoughts kept apart from the response",
        ),
        ({"reward": "blue"}, "the reward is text"),
    ],
)
def test_what_does_not_say_what_was_drawn_from_what_is_refused(row: dict[str, Any], reason: str):
    assert response_reason(**row) == reason


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ([THOUGHT, said(text_part())], "thoughts kept apart from the response"),
        (
            [{"type": "reasoning", "summary": [{"text": "I add."}]}, said(text_part())],
            "thoughts kept apart from the response",
        ),
        (
            [
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "a"}]},
                said(text_part()),
            ],
            "thoughts kept apart from the response",
        ),
        (
            [{"type": "web_search_call", "id": "ws_1"}, said(text_part())],
            "output has an item that is not all in the log",
        ),
        ([{"type": "custom_tool_call", "name": "f", "input": "x"}], "output has an item that is not all in the log"),
        ([{"type": ["message"]}], "output has an item that is not all in the log"),
        ([said()], "no response"),
        ([said(text_part(""))], "no response"),
        ([said({"type": "output_text"})], "output holds something else than text"),
        ([said({"type": "refusal", "refusal": None})], "output holds something else than text"),
        ([{**CALL, "name": None}], "output has a tool call without a name"),
        ([said(text_part(logprobs=[{"token": "4!", "logprob": None}]))], ""),
    ],
)
def test_output_that_is_not_as_it_was_drawn_is_refused(output: list[Any], reason: str):
    assert response_reason(*output) == reason


def test_a_model_that_did_not_think_has_no_thoughts_to_lose():
    nothing = {"type": "reasoning", "id": "rs_1", "summary": []}
    usage = {"output_tokens_details": {"reasoning_tokens": 0}}
    assert response_sample(nothing, said(text_part()), response={"usage": usage}).response == "4!"


def test_columns_beside_a_stored_response_are_known_to_be_unread():
    row = rename_columns(as_row(stored(input="2 + 2?", stars=5, note="x")), ImportRules())
    convert_row(row, importer_named("openai-responses").read, ImportRules(), kind="openai-responses")
    assert isinstance(row.values, Columns) and list(row.values.unread) == ["stars", "note"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"id": "o", "traceId": "t", "input": "a", "output": [{"type": "message"}], "object": None}, "langfuse"),
        ({"prompt": "a", "response": "b"}, "table"),
        ({"request": {"messages": QUESTION}, "response": {"choices": [{"text": "4"}], "output": []}}, "openai"),
    ],
)
def test_it_is_guessed_by_items_that_came_back(values: dict[str, Any], kind: str):
    assert guess_importer(as_row(values)).name == kind
