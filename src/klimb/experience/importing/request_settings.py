"""What a request asks of a server: which of it changes how tokens are drawn, which the prompt, and which neither.

Servers have many settings and get more, so the harmless ones are listed, and whatever is not among them is taken to
change the draw. A setting that has a value at which it does nothing is harmless there.

Source: the request bodies of OpenAI, vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio, OpenRouter and LiteLLM.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from klimb.experience.importing.cells import listed, mapping, unpacked
from klimb.experience.reading.records import Columns

NESTED = (
    *("parameters", "options", "sampling_params", "samplingParams", "sampling", "generation_config"),
    *("generationConfig", "gen_kwargs", "extra_body", "extraBody"),
)
"""Objects of a request in which settings stand as well; what stands beside them goes first."""


_VAGUE = (
    *("options", "parameters", "params", "settings", "config", "request", "model_parameters", "modelParameters"),
    *("model_params", "generation_params", "sampling_settings", "sampling_config", "decoding", "llm_params"),
)
"""Columns in which settings may stand, or anything else."""


HELD: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "min_p": ("min_p", "minP"),
    "max_new_tokens": (
        *("max_new_tokens", "max_completion_tokens", "max_tokens", "maxTokens", "maxCompletionTokens"),
        *("max_output_tokens", "maxOutputTokens", "num_predict", "n_predict"),
    ),
    "min_new_tokens": ("min_new_tokens", "min_tokens", "minNewTokens", "minTokens"),
    "repetition_penalty": ("repetition_penalty", "repetitionPenalty"),
}
"""Settings of a sample -> their names in requests."""


_NESTED_NAMES = frozenset(NESTED)


HELD_AS: Mapping[str, str] = {name: ours for ours, names in HELD.items() for name in names}
"""The same the other way round."""


def _names(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in text.split())


_HARMLESS = _names(
    # what is asked, and of whom
    "model models model_name engine deployment deployment_id messages prompt text input inputs input_ids "
    "prompt_token_ids tools functions provider route custom_llm_provider organization project url method endpoint "
    "base_url api_base api_key api_version api_type headers extra_headers extra_query adapter_id lora lora_path "
    "lora_request object type",
    # where an answer ends, and how often it is drawn
    "n n_cmpl seed sampling_seed random_seed stop stop_sequences stop_strings stop_token_ids stop_regex max_time "
    "t_max_predict_ms eos_token_id pad_token_id bos_token_id max_length",
    # what comes back
    "stream stream_options stream_interval logprobs top_logprobs prompt_logprobs n_probs return_logprob "
    "top_logprobs_num logprob_start_len token_ids_logprob return_token_ids return_tokens return_tokens_as_token_ids "
    "return_text_in_logprobs flat_logprobs details decoder_input_details top_n_tokens return_full_text echo "
    "include_stop_str_in_output no_stop_trim skip_special_tokens spaces_between_special_tokens detokenize "
    "return_hidden_states usage include include_reasoning separate_reasoning stream_reasoning reasoning_format "
    "parse_tool_calls timings_per_token return_progress response_fields output_kind return_routed_experts "
    "allowed_openai_params",
    # what only the books and the machines know
    "user user_id end_user safety_identifier metadata store service_tier prompt_cache_key prompt_cache_retention tags "
    "session_id request_id rid id custom_id name created created_at timestamp priority timeout request_timeout "
    "max_retries num_retries retries fallbacks caching cache use_cache cache_prompt cache_salt keep_alive ttl id_slot "
    "slot_id background drop_params debug trace trace_id no_log num_ctx n_ctx num_batch n_batch num_gpu main_gpu "
    "num_thread n_threads low_vram use_mmap use_mlock numa f16_kv vocab_only logits_all num_keep n_keep "
    "kv_transfer_params data_parallel_rank bootstrap_host bootstrap_port bootstrap_room trace_name trace_user_id "
    "generation_name parent_observation_id langfuse_prompt langfuse_public_key",
    # drafts are kept or redrawn so that the distribution stays
    "draft_model speculative num_draft_tokens num_speculative_tokens",
)


_NEUTRAL: Mapping[str, Sequence[object]] = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "diversity_penalty", "penalty_alpha"), (0,)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), (0,)),
    **dict.fromkeys(("mirostat", "mirostat_mode", "xtc_probability", "dry_multiplier", "dynatemp_range"), (0,)),
    **dict.fromkeys(("top_a", "epsilon_cutoff", "eta_cutoff", "smoothing_factor"), (0,)),
    **dict.fromkeys(("top_n_sigma", "nsigma", "adaptive_target"), (0, -1)),
    **dict.fromkeys(("typical_p", "typical", "tfs", "tfs_z", "guidance_scale"), (1,)),
    **dict.fromkeys(("repeat_penalty", "encoder_repetition_penalty", "length_penalty"), (1,)),
    **dict.fromkeys(("num_beams", "num_beam_groups", "beam_width"), (1,)),
    "min_keep": (0, 1),
    "reasoning_budget": (-1,),
    "do_sample": (True,),
    "parallel_tool_calls": (True,),
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "modalities": (["text"],),
}
"""Settings that do nothing at these values."""


_NEVER_OFF = ("do_sample", "parallel_tool_calls")
"""Settings that change something where they are false."""


_GOVERNED: Mapping[str, str] = {
    **dict.fromkeys(("mirostat_tau", "mirostat_eta"), "mirostat"),
    "xtc_threshold": "xtc_probability",
    **dict.fromkeys(
        ("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "dry_range"), "dry_multiplier"
    ),
    "dynatemp_exponent": "dynatemp_range",
    **dict.fromkeys(("repeat_last_n", "penalize_nl", "penalize_newline"), "repeat_penalty"),
    "early_stopping": "num_beams",
}
"""Settings that mean nothing where another one is stated to be off."""


_OTHER_CHANGING = _names(
    "logit_bias response_format structured_outputs structural_tag grammar json_schema regex ebnf bad_words "
    "bad_words_ids allowed_token_ids ignore_eos use_beam_search logits_processors custom_logit_processor vllm_xargs "
    "custom_params guided_json guided_regex guided_choice guided_grammar guided_whitespace_pattern "
    "guided_decoding_backend guided_options_request suppress_tokens begin_suppress_tokens sequence_bias samplers "
    "post_sampling_probs watermark xtc dry",
)
"""Further settings that change the draw. Which others there are does not matter but in a row of many columns."""


_PROMPT = _names(
    "chat_template chat_template_kwargs chat_template_args template_kwargs documents reasoning_effort reasoning "
    "reasoning_config reasoning_budget thinking thinking_budget enable_thinking think thinking_forced_open template "
    "system system_prompt system_instruction instructions suffix raw context truncate truncate_prompt_tokens "
    "add_special_tokens transforms plugins web_search_options verbosity mm_processor_kwargs prompt_template "
    "response_prefix prefix continue_final_message",
)
"""Arguments that make another prompt of the same messages."""


_BUDGETS = ("thinking_budget", "reasoning_budget")
"""Arguments of the prompt that also end thoughts where the model would not."""


_PROMPT_COLUMNS = _names(
    "chat_template chat_template_kwargs reasoning_effort enable_thinking truncate_prompt_tokens "
    "continue_final_message add_generation_prompt",
)
"""Those of them that are nothing else where a row has them as columns; `system` or `thinking` may be data."""


def flat_settings(request: Mapping[str, object]) -> dict[str, object]:
    """Return what a request asks for, with what stands in objects of its own (`extra_body`, `options`, …).

    Which of two values the server took is not known where they differ, so `NAME stated twice` is a setting then.
    """
    if _NESTED_NAMES.isdisjoint(request):
        return {name: value for name, value in request.items() if type(name) is str}
    nested: dict[str, object] = {}
    for name in NESTED:
        if inner := mapping(request.get(name)):
            nested = _merged(nested, flat_settings(inner))
    named = ((name, value) for name, value in request.items() if type(name) is str)  # Parquet has maps of any keys
    own = {name: value for name, value in named if name not in NESTED or not mapping(value)}
    return _merged(nested, own)


def _merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    stated = {name: value for name, value in over.items() if value is not None or name not in under}
    twice = [name for name in under.keys() & stated.keys() if _decides(name) and _differ(under[name], stated[name])]
    return {**under, **stated, **{f"{name} stated twice": True for name in sorted(twice)}}


def _decides(name: str) -> bool:
    return _plain(name) not in _HARMLESS and name not in HELD["max_new_tokens"]


def _differ(first: object, second: object) -> bool:
    return first is not None and _as_number(first) != _as_number(second)


def settings_among(columns: Mapping[str, object]) -> dict[str, object]:
    """Return what a row that is request and response in one asks for: of its columns those that are known to be that.

    The others are not looked at. Columns called `options` or `parameters` may hold anything, so that of what is in them
    only settings that are known count.
    """
    found: dict[str, object] = {}
    vague: dict[str, object] = {}
    cells = columns.cells if isinstance(columns, Columns) else columns
    for name in columns:
        if name in _VAGUE:
            known = {
                each: value for each, value in flat_settings(mapping(unpacked(cells[name]))).items() if is_known(each)
            }
            vague = _merged(vague, known)
            if known:
                columns[name]  # noted as read
        elif name in _NESTED_NAMES or is_known(name):
            found[name] = columns[name]
    return _merged(vague, flat_settings(found))


@lru_cache(maxsize=4096)
def is_known(name: str) -> bool:
    """Tell whether a setting of this name is one of a sample's, or known to change the draw or the prompt."""
    plain = _plain(name)
    return (
        name in HELD_AS
        or plain in _NEUTRAL
        or plain in _GOVERNED
        or plain in _OTHER_CHANGING
        or plain in _PROMPT_COLUMNS
        or plain == "best_of"
    )


def changing_settings(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the settings that change how tokens are drawn, or may: all but those known to be harmless."""
    return tuple(name for name, value in settings.items() if name not in HELD_AS and _changes(name, value, settings))


def _changes(name: str, value: object, settings: Mapping[str, object]) -> bool:
    plain = _plain(name)
    if plain == "tools":
        return any(mapping(mapping(each).get("function")).get("strict") is True for each in listed(value) or ())
    if plain in _HARMLESS or plain.startswith("litellm") or plain == "add_generation_prompt":
        return False
    if plain in _PROMPT and plain not in _BUDGETS:
        return False
    if plain == "best_of" and not is_choice(settings):
        return False
    if _is_neutral(plain, value):
        return False
    governor = _GOVERNED.get(plain)
    stated = next((other for each, other in settings.items() if _plain(each) == governor), None) if governor else None
    return stated is None or not _is_neutral(str(governor), stated)


def _is_neutral(name: str, value: object) -> bool:
    value = _as_number(value)
    if value is None or (value is False and name not in _NEVER_OFF) or (not value and _is_container(value)):
        return True
    if name == "response_format":
        return mapping(value).get("type") == "text" or value == "text"
    if name == "tool_choice" and mapping(value).get("type") in ("auto", "none"):
        return True
    return any(value == neutral for neutral in _NEUTRAL.get(name, ()))


def _is_container(value: object) -> bool:
    return isinstance(value, str | Mapping) or listed(value) is not None


_CHOOSING = _names("use_beam_search penalty_alpha num_beams num_beam_groups beam_width n best_of")


def is_choice(settings: Mapping[str, object]) -> bool:
    """Tell whether the answer was chosen among several, as by best-of-n and beam search: then it is no draw."""
    found = {plain: _as_number(value) for name, value in settings.items() if (plain := _plain(name)) in _CHOOSING}
    if not found:
        return False
    if found.get("use_beam_search") or _exceeds(found.get("penalty_alpha"), 0):
        return True
    if any(_exceeds(found.get(name), 1) for name in ("num_beams", "num_beam_groups", "beam_width")):
        return True
    num_returned = found.get("n")
    return _exceeds(found.get("best_of"), num_returned if isinstance(num_returned, int | float) else 1)


def _exceeds(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > most


def prompt_settings(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the arguments that make another prompt of the messages than a chat template by itself."""
    return tuple(name for name, value in settings.items() if _changes_prompt(_plain(name), value))


def _changes_prompt(name: str, value: object) -> bool:
    if name == "add_generation_prompt":
        return value is False or value == "false"
    # Thinking that is turned off is stated by false: that is a prompt of its own.
    is_stated = value is False and name in ("enable_thinking", "think", "thinking")
    return name in _PROMPT and (is_stated or not _is_neutral(name, value))


def continues_message(settings: Mapping[str, object]) -> bool:
    """Tell whether the answer goes on with the last message, so that both are one turn."""
    stated = [value for name, value in settings.items() if _plain(name) == "continue_final_message"]
    return any(value not in (None, False, "false") for value in stated) if stated else False


def _as_number(value: object) -> object:
    """Return a text that is a number, or a truth, as that."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in ("true", "false"):
        return text == "true"
    if text in NOT_GIVEN:
        return None
    try:
        return float(text)
    except ValueError:
        return value


NOT_GIVEN = ("", "none", "null", "not_given", "notgiven", "undefined", "default", "<openai.notgiven>", "omit")
"""Texts in which clients write that a setting was not given."""


def read_setting(value: object) -> float | None:
    """Return a setting's number, also where it is text; None where it was not given.

    Raises:
        ValueError: it is no number.
    """
    value = _as_number(value)
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number"[:80])
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    """`topLogprobs` and `top-logprobs` are `top_logprobs`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
