"""A setting is harmless because it is known to be; whatever else a request asks for makes raw values estimates."""

import json
import math
from typing import Any

import pytest
from tests.experience.importing.importing_rows import QUESTION, logged, openai_row, reason_of, sample_of

from klimb.experience.importing import ImportRules
from klimb.experience.importing.log_probs import NO_LIMIT
from klimb.experience.importing.request_settings import changing_settings, flat_settings, is_choice, prompt_settings

CHOICE = {"token_ids": [5, 2], **logged(("4!", -0.5), ("", -0.25))}


def drawn_with(request: dict[str, Any], *, prompt_ids: tuple[int, ...] = (1, 9), **rules: Any):
    row = openai_row(request=request, choice=CHOICE)
    row["response"]["prompt_token_ids"] = list(prompt_ids) or None
    return sample_of("vllm", row, **rules)


@pytest.mark.parametrize(
    "setting",
    [
        {"bad_words": ["x"]},
        {"allowed_token_ids": [1, 2]},
        {"ignore_eos": True},
        {"typical_p": 0.9},
        {"mirostat": 2},
        {"regex": "[0-9]"},
        {"ebnf": "root ::= x"},
        {"no_repeat_ngram_size": 3},
        {"xtc_probability": 0.5},
        {"dry_multiplier": 0.8},
        {"tfs_z": 0.9},
        {"repeat_penalty": 1.1},
        {"repeat_last_n": 64},
        {"top_n_sigma": 1.0},
        {"vllm_xargs": {"a": 1}},
        {"guided_choice": ["a", "b"]},
        {"structured_outputs": {"regex": "a"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"do_sample": False},
        {"post_sampling_probs": True},
        {"format": "json"},
        {"a_sampler_of_next_year": 0.3},
    ],
    ids=lambda setting: next(iter(setting)),
)
@pytest.mark.parametrize("within", ["", "extra_body", "options", "sampling_params", "parameters"])
def test_raw_values_under_any_setting_that_is_not_known_to_be_harmless_are_estimates(setting: Any, within: str):
    sample = drawn_with({within: setting} if within else setting)
    (name,) = setting
    assert sample.log_mu == (-0.5, -0.25)
    assert sample.log_mu_provenance == "estimated"
    assert sample.metadata["log_mu_note"] == f"raw log-probabilities, drawn with {name}"


@pytest.mark.parametrize(
    "setting",
    [
        {"seed": 1, "stop": ["\n"], "n": 4, "user": "", "stream": True, "stream_options": {"include_usage": True}},
        {"logprobs": True, "top_logprobs": 5, "metadata": {"a": "b"}, "store": True, "service_tier": "flex"},
        {"timeout": 60, "echo": False, "max_tokens": 5, "stop_token_ids": [7], "return_token_ids": True},
        {"tools": [{"type": "function", "function": {"name": "add"}}], "tool_choice": "auto"},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "repeat_penalty": 1, "repeat_last_n": 64, "typical_p": 1.0},
        {"mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "xtc_probability": 0, "xtc_threshold": 0.1},
        {"dry_multiplier": "0", "dry_base": 1.75, "tfs_z": 1, "top_n_sigma": -1, "no_repeat_ngram_size": 0},
        {"logit_bias": {}, "bad_words": [], "guided_json": None, "ignore_eos": False, "grammar": ""},
        {"response_format": {"type": "text"}, "do_sample": True, "best_of": 1, "num_beams": 1},
        {"options": {"num_ctx": 4096, "num_predict": -1, "num_thread": 4}, "keep_alive": "5m"},
        {"litellm_call_id": "c", "topLogprobs": 5, "extra_body": {"cache_salt": "s"}},
    ],
)
def test_harmless_settings_and_those_that_are_off_change_nothing(setting: dict[str, Any]):
    assert drawn_with(setting).log_mu_provenance == "sampler"


@pytest.mark.parametrize(
    "setting",
    [
        {"best_of": 8},
        {"best_of": 8, "n": 2},
        {"use_beam_search": True},
        {"num_beams": 4},
        {"parameters": {"best_of": "2"}},
        {"penalty_alpha": 0.6},
    ],
)
@pytest.mark.parametrize("kind", ["raw", "processed"])
def test_an_answer_that_was_chosen_among_several_is_no_draw(setting: dict[str, Any], kind: Any):
    sample = drawn_with(setting, log_probs=kind)
    assert (sample.response, sample.response_ids, sample.log_mu) == ("4!", (5, 2), None)
    assert sample.metadata["log_mu_note"].startswith("log-probabilities of an answer that was chosen among several: ")


def test_all_of_the_best_of_so_many_are_draws():
    assert not is_choice({"best_of": 4, "n": 4}) and is_choice({"best_of": 4, "n": 3})
    assert drawn_with({"best_of": 4, "n": 4}).log_mu_provenance == "sampler"


def test_settings_beside_an_inner_object_go_first():
    settings = flat_settings({"top_k": 5, "options": {"top_k": 7, "mirostat": 1}, "extra_body": {"top_k": 9}})
    assert settings == {"top_k": 5, "mirostat": 1, "top_k stated twice": True}
    assert flat_settings(settings) == settings
    assert changing_settings(settings) == ("mirostat", "top_k stated twice")
    assert flat_settings({"top_k": None, "options": {"top_k": 7}}) == {"top_k": 7}


@pytest.mark.parametrize(
    ("name", "outer", "inner"),
    [("temperature", 1, 0.6), ("top_k", -1, 20), ("frequency_penalty", 0, 0.5), ("min_tokens", 0, 3)],
)
@pytest.mark.parametrize("within", ["extra_body", "options", "generation_config"])
def test_a_setting_that_is_stated_in_two_ways_is_not_known(name: str, outer: float, inner: float, within: str):
    sample = drawn_with({name: outer, within: {name: inner}})
    assert sample.log_mu_provenance == "estimated"
    assert f"{name} stated twice" in sample.metadata["log_mu_note"]


def test_a_setting_that_is_stated_twice_alike_or_is_harmless_is_known():
    within = {"temperature": "1.0", "max_tokens": 7, "seed": 2, "top_p": None}
    sample = drawn_with({"temperature": 1, "max_tokens": 9, "seed": 1, "extra_body": within})
    assert sample.log_mu_provenance == "sampler"


@pytest.mark.parametrize("name", ["thinking_budget", "reasoning_budget"])
def test_a_budget_of_thoughts_ends_them_where_the_model_would_not(name: str):
    assert changing_settings({name: 100}) == prompt_settings({name: 100}) == (name,)
    assert changing_settings({"reasoning_budget": -1}) == ()


def test_strict_tools_constrain_what_is_drawn():
    function = {"name": "add", "parameters": {}}
    assert changing_settings({"tools": [{"type": "function", "function": {**function, "strict": True}}]}) == ("tools",)
    assert changing_settings({"tools": [{"type": "function", "function": {**function, "strict": False}}]}) == ()


@pytest.mark.parametrize(
    ("stated", "noted"),
    [
        ({"repetition_penalty": 1.1}, "repetition_penalty 1.1"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"typical_p": 0.9}, "typical_p"),
        ({"min_tokens": 5}, "min_new_tokens 5"),
        ({"do_sample": 0.0}, "do_sample"),
    ],
)
def test_what_a_server_takes_from_its_own_configuration_can_be_stated(stated: dict[str, float], noted: str):
    sample = drawn_with({}, sampling=stated)
    assert sample.log_mu_provenance == "estimated"
    assert sample.metadata["log_mu_note"] == f"raw log-probabilities, drawn with {noted}"


def test_the_request_says_more_than_what_was_stated_for_all():
    assert drawn_with({"frequency_penalty": 0}, sampling={"frequency_penalty": 0.5}).log_mu_provenance == "sampler"


def test_a_setting_that_nobody_knows_cannot_be_stated():
    with pytest.raises(ValueError, match="got temprature"):
        ImportRules(sampling={"temprature": 1})


def test_a_row_that_is_request_and_response_in_one_is_searched_for_known_settings_alone():
    parts = openai_row(choice=CHOICE)
    parts["response"]["prompt_token_ids"] = [1, 9]
    flat = {**parts["request"], **parts["response"], "comment": "fine", "system_fingerprint": "f"}
    assert sample_of("vllm", flat).log_mu_provenance == "sampler"
    assert sample_of("vllm", {**flat, "typical_p": 0.5}).log_mu_provenance == "estimated"
    assert sample_of("vllm", {**flat, "extra_body": {"min_tokens": 4}}).log_mu_provenance == "estimated"


def test_columns_of_a_table_are_settings_where_they_are_called_so():
    row = {"prompt": "2 + 2?", "response": "4", "token_ids": [7, 2], "log_probs": [-0.5, -1.0], "temperature": 1}
    assert sample_of("table", {**row, "options": {"A": "4", "B": "5"}, "comment": "x"}).log_mu_provenance == "sampler"
    for setting in ({"frequency_penalty": 0.5}, {"options": {"mirostat": 2}}, {"sampling": {"min_tokens": 2}}):
        assert sample_of("table", {**row, **setting}).log_mu_provenance == "estimated"
    as_text = {"prompt": "2 + 2?", "response": "4", "token_ids": "[7]", "log_probs": "[-1]", "temperature": "1"}
    assert sample_of("table", {**as_text, "sampling": '{"top_p": 0.5}'}, is_text=True).log_mu_provenance == "estimated"
    assert sample_of("table", {**as_text, "typical_p": "1.0"}, is_text=True).log_mu_provenance == "sampler"


PROMPT_IS_ANOTHER = "the prompt was rendered otherwise, and its token ids are not recorded: "


@pytest.mark.parametrize(
    "argument",
    [
        {"chat_template": "{{ messages[0].content }}"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"add_generation_prompt": False},
        {"documents": [{"text": "Two and two are four."}]},
        {"reasoning_effort": "low"},
        {"enable_thinking": False},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"think": False},
        {"truncate_prompt_tokens": 64},
        {"transforms": ["middle-out"]},
    ],
)
@pytest.mark.parametrize("kind", ["raw", "processed"])
def test_behind_another_prompt_than_a_template_makes_of_the_messages_no_value_is_log_mu(argument: Any, kind: Any):
    sample = drawn_with(argument, prompt_ids=(), log_probs=kind)
    (name,) = flat_settings(argument)
    assert sample.log_mu_provenance == "estimated"
    assert sample.metadata["log_mu_note"] == PROMPT_IS_ANOTHER + name
    assert drawn_with(argument).log_mu_provenance == "sampler"


def test_a_text_alone_says_that_its_prompt_was_another():
    row = openai_row(request={"chat_template_kwargs": {"enable_thinking": False}})
    sample = sample_of("openai", row)
    assert (sample.response, sample.log_mu) == ("4!", None)
    assert sample.metadata["prompt_note"] == PROMPT_IS_ANOTHER + "chat_template_kwargs"
    assert "prompt_note" not in sample_of("openai", openai_row()).metadata


@pytest.mark.parametrize(
    "request_of_a_continuation",
    [
        {"continue_final_message": True, "add_generation_prompt": False},
        {"extra_body": {"continue_final_message": True}},
        {"messages": [*QUESTION, {"role": "assistant", "content": "It is ", "prefix": True}]},
        {"messages": [*QUESTION, {"role": "assistant", "content": "It is ", "partial": True}]},
    ],
)
def test_an_answer_that_goes_on_with_a_message_is_half_a_turn(request_of_a_continuation: dict[str, Any]):
    row = openai_row(request=request_of_a_continuation, choice=CHOICE)
    for kind in ("openai", "vllm"):
        assert reason_of(kind, row) == "an answer that continues a message"
    assert drawn_with(request_of_a_continuation).log_mu_provenance == "sampler"


def test_whether_an_answer_goes_on_with_a_last_message_of_the_assistant_is_not_known():
    messages = [*QUESTION, {"role": "assistant", "content": "It is "}]
    assert drawn_with({"messages": messages}, prompt_ids=()).log_mu_provenance == "estimated"
    assert drawn_with({"messages": messages}).log_mu_provenance == "sampler"


def test_a_prompt_given_as_text_has_no_chat_template():
    row = {
        "request": {"prompt": "2 + 2 =", "temperature": 1},
        "response": {"choices": [{"text": "4!", **CHOICE}]},
    }
    assert sample_of("vllm", row).metadata["log_mu_note"] == (
        f"{PROMPT_IS_ANOTHER}a prompt given as text, without a chat template"
    )
    row["response"]["prompt_token_ids"] = [1, 9]
    assert sample_of("vllm", row).log_mu_provenance == "sampler"


def test_thinking_that_is_not_mentioned_is_no_argument():
    assert prompt_settings({"reasoning_effort": None, "documents": [], "chat_template_kwargs": {}, "raw": False}) == ()


def observation(parameters: Any) -> dict[str, Any]:
    return {
        "id": "obs-1",
        "traceId": "trace-1",
        "type": "GENERATION",
        "input": QUESTION,
        "output": {"role": "assistant", "content": "4"},
        "modelParameters": parameters,
    }


@pytest.mark.parametrize(
    "limit", ["Infinity", "inf", math.inf, -1, 0, "-1", None, "None", 1e30, math.nan, 10**400, "not_given"]
)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "maxTokens"])
def test_a_limit_that_is_none_costs_nothing(limit: object, name: str):
    sample = sample_of("langfuse", observation({"temperature": 1, name: limit}))
    assert sample.sampling is not None and sample.sampling.max_new_tokens == NO_LIMIT
    assert "sampling_note" not in sample.metadata


def test_a_limit_that_cannot_be_read_costs_a_note():
    sample = sample_of("langfuse", observation({"temperature": 1, "max_tokens": "many"}))
    assert sample.sampling is not None and sample.sampling.max_new_tokens == NO_LIMIT
    assert sample.metadata["sampling_note"] == "max_new_tokens cannot be read: 'many' is no number"


def test_settings_written_as_text_are_numbers():
    sample = sample_of("langfuse", observation({"temperature": "0.7", "top_p": "0.9", "max_tokens": "2000"}))
    settings = sample.sampling
    assert settings is not None
    assert (settings.temperature, settings.top_p, settings.max_new_tokens) == (0.7, 0.9, 2000)


@pytest.mark.parametrize("parameters", [{"temperature": "warm"}, {"temperature": -1}, {"temperature": 1, "top_p": 0}])
def test_settings_that_cannot_be_cost_a_row_without_values_only_the_settings(parameters: dict[str, Any]):
    sample = sample_of("langfuse", observation(parameters))
    assert (sample.response, sample.sampling) == ("4", None)
    assert sample.metadata["sampling_note"]


@pytest.mark.parametrize(
    "parameters", [{"top_p": "wide"}, {"repetition_penalty": "some"}, {"min_tokens": [1]}, {"temperature": "warm"}]
)
def test_a_setting_that_cannot_be_read_may_change_the_draw(parameters: dict[str, Any]):
    assert drawn_with(parameters).log_mu_provenance == "estimated"


TABLE = {
    "prompt": "a",
    "response": "b",
    "prompt_token_ids": [1],
    "token_ids": [5],
    "log_probs": [-0.5],
    "temperature": 1,
}


@pytest.mark.parametrize("column", ["params", "settings", "model_parameters", "request", "options"])
def test_settings_in_a_column_of_a_table_count_if_they_are_known(column: str):
    for stated in ({"min_tokens": 5}, json.dumps({"repetitionPenalty": 1.2}), {"guided_regex": "a"}):
        assert sample_of("table", {**TABLE, column: stated}).log_mu_provenance == "estimated"
    for other in ({"colour": 3}, "min_tokens", json.dumps({"min_tokens": 0})):
        assert sample_of("table", {**TABLE, column: other}).log_mu_provenance == "sampler"


@pytest.mark.parametrize("name", ["minTokens", "repetitionPenalty", "noRepeatNgramSize"])
def test_names_in_camel_case_are_the_same_settings(name: str):
    assert sample_of("table", {**TABLE, name: 3}).log_mu_provenance == "estimated"


def test_a_message_of_several_parts_is_no_known_prompt_without_its_ids():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = {"messages": [{"role": "user", "content": parts}], "top_p": 1, "top_k": -1, "min_p": 0}
    assert drawn_with(asked).log_mu_provenance == "sampler"
    sample = drawn_with(asked, prompt_ids=())
    assert sample.log_mu_provenance == "estimated" and "several parts" in sample.metadata["log_mu_note"]
    assert drawn_with({**asked, "messages": QUESTION}, prompt_ids=()).log_mu_provenance == "sampler"
