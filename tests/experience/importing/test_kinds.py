import json
from typing import Any

import pytest
from tests.experience.importing.importing_rows import (
    QUESTION,
    as_row,
    logged,
    made_of,
    openai_row,
    reason_of,
    sample_of,
    samples_of,
)

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import IMPORTERS, guess_importer
from klimb.experience.importing.kinds import NAMES

ANSWER = [{"role": "assistant", "content": "4"}]
KTO = {"prompt": "2 + 2?", "completion": "4", "label": True}
TABLE = {"prompt": "2 + 2?", "response": "4", "reward": 0.5}
VERL = {
    "data_source": "sums",
    "prompt": QUESTION,
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"index": 7},
}
OBSERVATION = {
    "id": "obs-1",
    "traceId": "trace-1",
    "type": "GENERATION",
    "startTime": "2026-01-02T03:04:05.000Z",
    "input": {"messages": QUESTION},
    "output": {"role": "assistant", "content": "4"},
    "model": "m-1",
    "modelParameters": {"temperature": 0.7, "max_tokens": 20},
}
ROWS: dict[str, dict[str, Any]] = {
    "klimb": {
        "sample_id": "s",
        "group_id": "g",
        "prompt": QUESTION,
        "prompt_ids": [1],
        "response": "4",
        "response_ids": [2],
        "finish_reason": "stop",
        "log_mu_provenance": "absent",
        "policy_version": 0,
    },
    "kto": KTO,
    "verifiers": {"example_id": 1, "prompt": QUESTION, "completion": ANSWER, "reward": 1.0},
    "openai": openai_row(),
    "vllm": openai_row(choice={"token_ids": [5, 2]}),
    "preference": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "prompt-completion": {"prompt": "2 + 2?", "completion": "4"},
    "verl": {**VERL, "responses": ["4", "5"]},
    "anthropic": {
        "request": {"messages": QUESTION},
        "response": {"content": [{"type": "text", "text": "4"}], "stop_reason": "end_turn"},
    },
    "comparison": {"prompt": "2 + 2?", "response_a": "4", "response_b": "5", "winner": "model_a"},
    "trl-completions": {"step": 1, "prompt": "2 + 2?", "completion": "4", "accuracy": 1.0, "advantage": 0.5},
    "table": TABLE,
    "langfuse": OBSERVATION,
    "feedback": {"id": "chatcmpl-1", "value": True},
    "open-webui": {"id": "f", "type": "rating", "data": {"rating": 1}, "meta": {"message_id": "m"}, "snapshot": None},
    "mlflow": {"info": {"trace_id": "tr-1", "state": "OK"}, "data": {"spans": []}},
    "label-studio": {"id": 1, "data": {"prompt": "2 + 2?", "response": "4"}, "annotations": []},
    "argilla": {
        "id": "r",
        "prompt": "2 + 2?",
        "response": "4",
        "quality.responses": [4],
        "quality.responses.users": ["u"],
        "quality.responses.status": ["submitted"],
    },
    "langsmith": {"id": "r", "run_type": "llm", "inputs": {"messages": QUESTION}, "outputs": {"output": "4"}},
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
    "openai-responses": {
        "request": {"input": "2 + 2?"},
        "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "4"}]}]},
    },
    "otel": {"name": "chat m-1", "context": {"span_id": "0x1"}, "attributes": {"gen_ai.operation.name": "chat"}},
}


@pytest.mark.parametrize("kind", IMPORTERS)
def test_each_kind_is_guessed_from_a_row_of_it(kind: str):
    assert guess_importer(as_row(ROWS[kind])).name == kind


def test_a_row_of_no_kind_is_not_guessed_and_its_columns_are_named():
    with pytest.raises(ValueError, match="question, answer"):
        guess_importer(as_row({"question": "", "answer": ""}))


@pytest.mark.parametrize(("label", "reward"), [(True, 1.0), (False, 0.0), ("up", 1.0), ("down", 0.0), (None, None)])
def test_a_kto_label_is_a_reward_and_a_missing_one_is_none(label: object, reward: float | None):
    assert sample_of("kto", {**KTO, "label": label}).reward == reward


def test_text_and_chat_of_the_same_words_are_the_same_sample_of_the_same_group():
    plain, chat = sample_of("kto", KTO), sample_of("kto", {**KTO, "prompt": QUESTION, "completion": ANSWER})
    assert (plain.prompt, plain.response, plain.group_id) == (chat.prompt, chat.response, chat.group_id)
    assert plain.prompt == ({"role": "user", "content": "2 + 2?"},)
    assert (plain.log_mu, plain.log_mu_provenance, plain.source) == (None, "absent", "log")


def test_a_preference_pair_is_two_samples_of_one_group():
    chosen, rejected = samples_of("preference", ROWS["preference"])
    assert [(s.response, s.reward, s.metadata["label"]) for s in (chosen, rejected)] == [
        ("4", 1.0, "chosen"),
        ("5", 0.0, "rejected"),
    ]
    assert chosen.group_id == rejected.group_id
    assert chosen.sample_id != rejected.sample_id


def test_a_preference_pair_of_whole_dialogues_has_what_they_share_as_its_prompt():
    other = [{"role": "assistant", "content": "5"}]
    chosen, rejected = samples_of("preference", {"chosen": QUESTION + ANSWER, "rejected": QUESTION + other})
    assert chosen.prompt == rejected.prompt == tuple(QUESTION)
    assert (chosen.response, rejected.response) == ("4", "5")
    different = {"chosen": QUESTION + ANSWER, "rejected": [{"role": "user", "content": "3 + 3?"}, *other]}
    assert reason_of("preference", different) == "chosen and rejected answer different prompts"


def test_the_last_message_of_a_dialogue_is_the_response():
    sample = sample_of("prompt-completion", {"messages": QUESTION + ANSWER})
    assert (sample.prompt, sample.response, sample.reward) == (tuple(QUESTION), "4", None)
    assert reason_of("prompt-completion", {"messages": QUESTION}) == "messages do not end with the assistant"


def test_verl_rows_without_responses_are_prompts_for_a_task_file():
    assert reason_of("verl", VERL) == "prompts only: use them as a task file"


def test_verl_responses_become_one_group_with_their_rewards():
    first, second = samples_of("verl", {**VERL, "responses": ["4", "5"], "rewards": [1.0, 0.0]})
    assert [(s.response, s.reward) for s in (first, second)] == [("4", 1.0), ("5", 0.0)]
    assert first.group_id == second.group_id
    assert {"answer": "4", "problem_id": "7", "data_source": "sums"}.items() <= first.metadata.items()
    unequal = {**VERL, "responses": ["4", "5"], "rewards": [1.0]}
    assert reason_of("verl", unequal) == "another number of rewards than of responses"


def test_table_columns_of_other_names_are_mapped():
    row = {"question": "2 + 2?", "answer": "4", "score": 3}
    columns = {"prompt": "question", "response": "answer", "reward": "score"}
    sample = sample_of("table", row, columns=columns)
    assert (sample.prompt[0]["content"], sample.response, sample.reward) == ("2 + 2?", "4", 3.0)
    assert reason_of("table", row) == "no column 'prompt'"
    assert reason_of("table", row, columns={"prompt": "qestion"}) == "no column 'qestion'"


def test_a_number_in_csv_is_text_and_a_number_in_json_text_is_refused():
    assert sample_of("table", {**TABLE, "reward": "0.25"}, is_text=True).reward == 0.25
    assert reason_of("table", {**TABLE, "reward": "0.25"}) == "the reward is text"


def test_lists_in_csv_cells_are_json():
    row = {"prompt": "a", "response": "b", "token_ids": "[7, 2]", "log_probs": "[-0.5, -1]", "temperature": "1"}
    sample = sample_of("table", row, is_text=True)
    assert (sample.response_ids, sample.log_mu, sample.log_mu_provenance) == ((7, 2), (-0.5, -1.0), "sampler")


@pytest.mark.parametrize(
    "shape",
    [
        lambda request, response: {"request": request, "response": response},
        lambda request, response: {
            "custom_id": "c",
            "body": request,
            "response": {"status_code": 200, "body": response},
        },
        lambda request, response: {**request, **response},
        lambda request, response: {"request": {"url": "/v1", "body": request}, "response": {"body": response}},
    ],
    ids=["request-response", "batch", "flat", "bodies"],
)
def test_every_shape_of_an_openai_row_gives_the_same_response(shape: Any):
    parts = openai_row()
    sample = sample_of("openai", shape(parts["request"], parts["response"]))
    assert (sample.sample_id, sample.response, sample.finish_reason, sample.model) == (
        "chatcmpl-1",
        "4!",
        "stop",
        "m-1",
    )
    assert sample.prompt == tuple(QUESTION)
    assert sample.created_at == 1_700_000_000
    assert sample.metadata["completion_id"] == "chatcmpl-1"


def test_each_choice_is_a_sample_and_the_first_has_the_id_that_feedback_names():
    row = openai_row()
    (choice,) = row["response"]["choices"]
    row["response"]["choices"] = [{**choice, "reward": 1}, {**choice, "index": 1, "reward": 0}]
    first, second = samples_of("openai", row)
    assert [s.sample_id for s in (first, second)] == ["chatcmpl-1", "chatcmpl-1#1"]
    assert [s.reward for s in (first, second)] == [1.0, 0.0]
    assert reason_of("openai", {**row, "response": {**row["response"], "choices": [choice] * 2}, "reward": 1}) == (
        "one reward for several choices"
    )


@pytest.mark.parametrize("indices", [(None, None), (0, 0), (1, 1), (0, "1"), (0, None), (-1, 0), (True, 0)])
def test_choices_whose_indices_do_not_tell_them_apart_are_numbered_by_their_places(indices: tuple[object, object]):
    row = openai_row()
    (choice,) = row["response"]["choices"]
    texts = ("4!", "5!")
    row["response"]["choices"] = [
        {**choice, "index": index, "message": {"role": "assistant", "content": text}}
        for index, text in zip(indices, texts, strict=True)
    ]
    assert [(s.sample_id, s.response) for s in samples_of("openai", row)] == [
        ("chatcmpl-1", "4!"),
        ("chatcmpl-1#1", "5!"),
    ]


@pytest.mark.parametrize("indices", [(1, 0), (3, 0)])
def test_choices_keep_the_servers_own_numbers(indices: tuple[int, int]):
    row = openai_row()
    (choice,) = row["response"]["choices"]
    row["response"]["choices"] = [{**choice, "index": index} for index in indices]
    assert [s.sample_id for s in samples_of("openai", row)] == [f"chatcmpl-1#{indices[0]}", "chatcmpl-1"]


REFUSED = "I can't help with that."


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "refusal": REFUSED},
        {"role": "assistant", "refusal": REFUSED},
        {"role": "assistant", "content": "", "refusal": REFUSED},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": REFUSED}]},
    ],
)
def test_a_refusal_is_what_the_model_said(message: dict[str, Any]):
    logprobs = {"content": None, "refusal": logged((REFUSED, -0.5))["logprobs"]["content"]}
    row = openai_row(choice={"message": message, "logprobs": logprobs})
    sample = sample_of("openai", row, resolve=lambda tokens: tuple(range(len(tokens))))
    assert (sample.response, sample.finish_reason, sample.log_mu) == (REFUSED, "unknown", (-0.5,))
    assert sample.metadata["refusal"] == "true"
    langfuse = sample_of("langfuse", {**OBSERVATION, "output": message})
    assert (langfuse.response, langfuse.metadata["refusal"]) == (REFUSED, "true")
    history = openai_row(request={"messages": [*QUESTION, message, *QUESTION]})
    assert sample_of("openai", history).prompt[1] == {"role": "assistant", "content": REFUSED}


def test_values_of_a_content_are_none_of_a_refusal():
    choice = {"message": {"content": None, "refusal": REFUSED}, "logprobs": {"content": [], "refusal": None}}
    sample = sample_of("openai", openai_row(choice=choice))
    assert (sample.response, sample.finish_reason, sample.log_mu) == (REFUSED, "stop", None)


def test_an_answer_beside_an_empty_refusal_is_no_refusal():
    sample = sample_of("openai", openai_row(choice={"message": {"content": "4!", "refusal": None}}))
    assert sample.response == "4!" and "refusal" not in sample.metadata
    assert reason_of("openai", openai_row(choice={"message": {"content": None, "refusal": None}})) != ""


def test_an_answer_in_text_to_a_prompt_with_tools_and_calls_is_one_response():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    sample = sample_of("openai", openai_row(request={"messages": messages, "tools": tools}))
    assert (sample.response, sample.log_mu, sample.turns) == ("4!", None, ())
    assert sample.prompt[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 2}}
    assert sample.prompt[2] == {"role": "tool", "content": "4", "name": "add"}
    assert '"add"' in sample.tools


def test_thoughts_beside_an_answer_are_what_the_ids_spell_with_the_model_that_drew_them():
    message = {"role": "assistant", "content": "4!", "reasoning_content": "two and two"}
    row = openai_row(choice={"message": message, "token_ids": [5, 6, 2]})
    assert reason_of("vllm", row) == "thoughts kept apart from the response"
    sample = sample_of("vllm", row, decode=lambda ids: "<think>two and two</think>4!")
    assert (sample.response, sample.response_ids) == ("<think>two and two</think>4!", (5, 6, 2))
    assert reason_of("vllm", row, decode=lambda ids: "other") == "token ids that do not spell the turn"


def test_the_older_text_completions_are_read_and_the_developer_is_the_system():
    choice = {"text": "4!", "finish_reason": "length", "logprobs": {"tokens": ["4", "!"], "token_logprobs": [-0.5, -1]}}
    row = {"request": {"prompt": "2 + 2?", "temperature": 1}, "response": {"choices": [choice]}}
    sample = sample_of("openai", row, resolve=lambda tokens: tuple(range(len(tokens))))
    assert (sample.response, sample.response_ids, sample.log_mu) == ("4!", (0, 1), (-0.5, -1.0))
    request = {"messages": [{"role": "developer", "content": [{"type": "text", "text": "Short."}]}, *QUESTION]}
    assert sample_of("openai", openai_row(request=request)).prompt == (
        {"role": "system", "content": "Short."},
        *QUESTION,
    )


def test_metadata_of_stored_completions_is_kept():
    assert sample_of("openai", openai_row(metadata={"version": "b"})).metadata["version"] == "b"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            openai_row(choice={"message": {"content": None, "tool_calls": [{"id": "t"}]}}),
            "response has a tool call without a name",
        ),
        (
            openai_row(choice={"message": {"content": "4", "reasoning_content": "hm"}}),
            "thoughts kept apart from the response",
        ),
        (openai_row(request={"tools": [{"type": "function"}]}), "a tool without a name"),
        (
            openai_row(request={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "prompt holds something else than text",
        ),
        (
            openai_row(request={"messages": [{"role": "critic", "content": "x"}]}),
            "prompt has a message of another role",
        ),
        ({"response": openai_row()["response"]}, "no request"),
        ({"request": {"messages": QUESTION}, "response": {"error": {"code": 500}}}, "the request failed"),
        ({"request": {"messages": QUESTION}, "response": {"choices": []}}, "no choices"),
    ],
)
def test_what_does_not_say_what_was_drawn_from_what_is_rejected(row: dict[str, Any], reason: str):
    assert reason_of("openai", row) == reason


def test_vllm_rows_have_ids_of_prompt_and_response_and_their_log_probs():
    row = openai_row(choice={"token_ids": [5, 6, 2], **logged(("4", -0.5), ("!", -0.25), ("<end>", -0.125))})
    row["response"]["prompt_token_ids"] = [1, 9, 4]
    sample = sample_of("vllm", row)
    assert (sample.prompt_ids, sample.response_ids) == ((1, 9, 4), (5, 6, 2))
    assert (sample.log_mu, sample.log_mu_provenance) == ((-0.5, -0.25, -0.125), "sampler")


def test_a_sampling_mask_is_the_support():
    choice = {"token_ids": [5, 2], "sampling_mask": [[9, 5], [2]], **logged(("4", -0.5), ("<end>", 0.0))}
    assert sample_of("vllm", openai_row(choice=choice)).support == ((9, 5), (2,))
    info = {"output_token_logprobs": [[-0.5, 5, "4"], [-1.0, 2, None]], "output_token_sampling_mask": [[5], [2, 7]]}
    row = {
        "request": {"text": "2 + 2?", "input_ids": [1, 9], "sampling_params": {"temperature": 1.0, "top_p": 0.9}},
        "response": {"text": "4", "meta_info": info},
    }
    assert sample_of("vllm", row).support == ((5,), (2, 7))


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ([[5]], "another number of sampling masks than of tokens"),
        ([[9], [2]], "a sampling mask that cannot be"),
        ([[5, 5], [2]], "a sampling mask that cannot be"),
        ([5, 2], "the sets of a sampling mask are not a list"),
    ],
)
def test_a_sampling_mask_that_is_none_is_refused(mask: list[Any], reason: str):
    assert reason_of("vllm", openai_row(choice={"token_ids": [5, 2], "sampling_mask": mask})) == reason


def test_token_ids_written_in_place_of_texts_are_ids():
    sample = sample_of("vllm", openai_row(choice=logged(("token_id:5", -0.5), ("token_id:2", -1.0))))
    assert sample.response_ids == (5, 2)


def test_sglang_triples_are_log_probs_and_ids():
    info = {"id": "s-1", "finish_reason": {"type": "stop"}, "output_token_logprobs": [[-0.5, 5, "4"], [-1.0, 2, None]]}
    row = {
        "request": {"text": "2 + 2?", "input_ids": [1, 9], "sampling_params": {"temperature": 1.0}},
        "response": {"text": "4", "meta_info": info},
    }
    sample = sample_of("vllm", row)
    assert (sample.sample_id, sample.response, sample.finish_reason) == ("s-1", "4", "stop")
    assert (sample.response_ids, sample.log_mu, sample.log_mu_provenance) == ((5, 2), (-0.5, -1.0), "sampler")


def test_a_stop_string_is_a_cut_and_not_the_models_end():
    assert sample_of("openai", openai_row(choice={"stop_reason": "\n\n"})).finish_reason == "length"


def test_a_vllm_row_without_ids_says_what_to_ask_of_the_server():
    assert reason_of("vllm", openai_row()) == "no token ids"


def test_a_langfuse_generation_is_a_sample_without_log_probs():
    sample = sample_of("langfuse", OBSERVATION)
    assert (sample.sample_id, sample.response, sample.model) == ("obs-1", "4", "m-1")
    assert sample.sampling is not None and sample.sampling.temperature == 0.7
    assert sample.created_at == 1767323045  # date -u -d 2026-01-02T03:04:05 +%s
    assert (sample.reward, sample.finish_reason, sample.log_mu_provenance) == (None, "unknown", "absent")
    assert sample.metadata["trace_id"] == "trace-1"


def test_langfuse_cells_that_hold_json_as_text_are_read():
    row = {**OBSERVATION, "input": '[{"role": "user", "content": "2 + 2?"}]', "output": '{"content": "4"}'}
    assert sample_of("langfuse", row).prompt == tuple(QUESTION)
    assert sample_of("langfuse", row).response == "4"


def test_langfuse_spans_hold_no_response_and_are_no_fault():
    assert made_of("langfuse", {**OBSERVATION, "type": "SPAN"}) == []


def test_feedback_names_its_response_and_has_an_id_of_its_own():
    (rated,) = made_of("feedback", {"completion_id": "chatcmpl-1", "value": "up", "user": "u", "comment": "good"})
    assert isinstance(rated, Feedback)
    assert (rated.sample_id, rated.value, rated.comment) == ("chatcmpl-1", 1.0, "good")
    (again,) = made_of("feedback", {"completion_id": "chatcmpl-1", "value": "up", "user": "u", "comment": "good"})
    (other,) = made_of("feedback", {"completion_id": "chatcmpl-1", "value": "up", "user": "v", "comment": "good"})
    assert rated.feedback_id == again.feedback_id != other.feedback_id  # type: ignore[union-attr]
    (named,) = made_of("feedback", {"id": "f-1", "completion_id": "chatcmpl-1", "label": False})
    assert (named.feedback_id, named.sample_id, named.value) == ("f-1", "chatcmpl-1", 0.0)  # type: ignore[union-attr]


def test_feedback_without_a_rating_is_none_and_never_bad():
    (rated,) = made_of("feedback", {"id": "chatcmpl-1", "value": None, "comment": "hm"})
    assert isinstance(rated, Feedback) and rated.value is None


def test_feedback_that_names_nothing_is_rejected():
    assert reason_of("feedback", {"value": 1}) == "no response named"


def test_only_scores_of_the_name_asked_for_are_taken():
    row = {"id": "chatcmpl-1", "name": "toxicity", "value": 1}
    assert made_of("feedback", row, score_name="helpfulness") == []
    assert len(made_of("feedback", row, score_name="toxicity")) == 1


def test_an_importer_is_named_as_its_file_is():
    assert sorted(IMPORTERS) == sorted(NAMES)


@pytest.mark.parametrize("is_text", [False, True])
def test_a_request_and_its_response_may_be_json_that_is_text(is_text: bool):
    row = openai_row()
    as_text = {name: json.dumps(value) for name, value in row.items()}
    assert guess_importer(as_row(as_text, is_text=is_text)).name == "openai"
    (found,) = made_of("openai", as_text, is_text=is_text)
    assert isinstance(found, Sample)
    assert (found.sample_id, found.response) == ("chatcmpl-1", "4!")


def test_a_cell_in_which_a_name_comes_twice_does_not_end_the_guess():
    twice = '{"choices": [], "choices": []}'
    assert guess_importer(as_row({"prompt": "a", "response": twice})).name == "table"


def test_a_reward_in_the_response_is_the_rows_unless_there_are_several_choices():
    row = openai_row()
    row["response"]["reward"] = 0.25
    assert sample_of("openai", row).reward == 0.25
    row["response"]["choices"] *= 2
    assert reason_of("openai", row) == "one reward for several choices"


def test_messages_beside_two_answers_are_their_prompt():
    sides = {side: {"role": "assistant", "content": side} for side in ("chosen", "rejected")}
    for pair in (sides, {side: [message] for side, message in sides.items()}, {side: side for side in sides}):
        row = {"messages": QUESTION, **pair}
        assert [(each.prompt, each.response, each.reward) for each in samples_of("preference", row)] == [
            (tuple(QUESTION), "chosen", 1.0),
            (tuple(QUESTION), "rejected", 0.0),
        ]
    whole = {side: [*QUESTION, message] for side, message in sides.items()}
    found = samples_of("preference", {**whole, "messages": whole["chosen"]})
    assert [each.response for each in found] == ["chosen", "rejected"]
