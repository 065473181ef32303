"""Rows that no loss could use are rejected, each for its own reason; nothing of them is repaired."""

import math
from typing import Any

import pytest
from tests.experience.importing.importing_rows import as_row, logged, openai_row, reason_of, sample_of

from klimb.experience.importing import ImportRules, Row
from klimb.experience.importing.kinds.table import read_table
from klimb.experience.importing.log_probs import checked_log_mu, provenance_of
from klimb.experience.importing.registry import anonymise, convert_row
from klimb.experience.importing.rules import rating
from klimb.experience.importing.users import user_hash, user_salt
from klimb.experience.samples import SamplingSettings

GOOD = {
    "id": "a",
    "prompt": "2 + 2?",
    "response": "4",
    "reward": 1,
    "token_ids": [7, 2],
    "log_probs": [-0.5, -1.0],
    "temperature": 1,
}


def test_the_row_that_the_faults_are_put_into_is_good():
    sample = sample_of("table", GOOD)
    assert (sample.reward, sample.log_mu, sample.log_mu_provenance) == (1.0, (-0.5, -1.0), "sampler")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"reward": math.nan}, "the reward is not finite"),
        ({"reward": math.inf}, "the reward is not finite"),
        ({"reward": 10**400}, "the reward is not finite"),
        ({"reward": "1"}, "the reward is text"),
        ({"reward": [1]}, "the reward is not a number"),
        ({"reward": -11}, "a reward beyond the cap"),
        ({"reward": 1e308}, "a reward that sums cannot hold"),
        ({"reward": -1.1e15}, "a reward that sums cannot hold"),
        ({"log_probs": [-0.5]}, "another number of log-probabilities than of tokens"),
        ({"log_probs": [-0.5, 0.1]}, "a log-probability above 0"),
        ({"log_probs": [-0.5, math.inf]}, "a log-probability above 0"),
        ({"log_probs": [-0.5, -math.inf]}, "a log-probability below -100"),
        ({"log_probs": [-0.5, -100.5]}, "a log-probability below -100"),
        ({"log_probs": [-0.5, math.nan]}, "a log-probability that is NaN"),
        ({"log_probs": [-0.5, "x"]}, "a log-probability that is no number"),
        ({"log_probs": -0.5}, "log-probabilities are not a list"),
        ({"response": "", "token_ids": None, "log_probs": None}, "no response"),
        ({"prompt": ""}, "no prompt"),
        ({"prompt": None}, "no prompt"),
        ({"prompt_token_ids": [1] * 99}, "too many tokens"),
        ({"token_ids": [7, -1]}, "token_ids that are no token ids"),
        ({"token_ids": [7, 1.5]}, "token_ids that are no token ids"),
        ({"token_ids": [7, True]}, "token_ids that are no token ids"),
        ({"token_ids": [7, 50]}, "a token id beyond the vocabulary"),
        ({"policy_version": -1}, "a policy version below 0"),
        ({"temperature": -1}, "sampler settings that cannot be"),
        ({"temperature": math.nan}, "temperature is not finite"),
        ({"id": 1.5}, "an id that is neither text nor a whole number"),
    ],
)
def test_a_fault_is_rejected_for_its_reason(fault: dict[str, Any], reason: str):
    rules = {"max_reward": 10, "max_tokens": 64, "num_vocab": 50, "now": 1.7e9}
    assert reason_of("table", GOOD, **rules) == ""
    assert reason_of("table", {**GOOD, **fault}, **rules) == reason


def test_no_reward_is_unrated_and_booleans_are_numbers():
    rewards = [sample_of("table", {**GOOD, "reward": reward}).reward for reward in (None, True, False, 2)]
    assert rewards == [None, 1.0, 0.0, 2.0]


def test_a_log_probability_above_zero_by_rounding_is_zero():
    assert checked_log_mu([1e-4, -0.0, -100], 3) == (0.0, -0.0, -100.0)


def test_a_response_of_its_end_token_alone_is_a_response():
    assert sample_of("table", {**GOOD, "response": "", "token_ids": [2], "log_probs": [-1]}).response_ids == (2,)


def test_a_generation_that_was_cut_says_so():
    assert sample_of("table", {**GOOD, "finish_reason": "length"}).finish_reason == "length"


PLAIN = SamplingSettings()
WARM = SamplingSettings(temperature=0.7)
CUT = SamplingSettings(top_p=0.9)


@pytest.mark.parametrize(
    ("settings", "kind", "provenance"),
    [
        (PLAIN, "raw", "sampler"),
        (PLAIN, "processed", "sampler"),
        (WARM, "raw", "estimated"),
        (CUT, "raw", "estimated"),
        (WARM, "processed", "sampler"),
        (None, "raw", "estimated"),
        (None, "processed", "estimated"),
    ],
)
def test_log_probs_are_log_mu_only_if_they_are_of_the_distribution_drawn_from(
    settings: Any, kind: Any, provenance: str
):
    found, note = provenance_of(settings, ImportRules(log_probs=kind), ())
    assert found == provenance
    assert bool(note) == (provenance == "estimated")


@pytest.mark.parametrize(
    "other", [{"frequency_penalty": 0.5}, {"logit_bias": {"1": 5}}, {"response_format": {"type": "json_object"}}]
)
def test_raw_log_probs_under_settings_that_a_sample_cannot_hold_are_estimates(other: dict[str, Any]):
    row = openai_row(request=other, choice={"token_ids": [5], **logged(("4!", -0.5))})
    assert sample_of("vllm", row).log_mu_provenance == "estimated"
    assert sample_of("vllm", row, log_probs="processed").log_mu_provenance == "sampler"


@pytest.mark.parametrize(
    ("request_setting", "name"),
    [({"repetition_penalty": 1.1}, "repetition_penalty 1.1"), ({"min_tokens": 4}, "min_new_tokens 4")],
)
def test_raw_values_under_a_penalty_or_a_minimum_are_estimates_and_processed_ones_log_mu(request_setting, name):
    row = openai_row(request={"temperature": 1, **request_setting}, choice={"token_ids": [5], **logged(("4!", -0.5))})
    raw, processed = sample_of("vllm", row), sample_of("vllm", row, log_probs="processed")
    assert raw.log_mu_provenance == "estimated"
    assert raw.metadata["log_mu_note"] == f"raw log-probabilities, drawn with {name}"
    assert processed.log_mu_provenance == "sampler"
    assert processed.sampling is not None and not processed.sampling.draws_at(1.0)
    assert processed.sampling.changes == (name.split()[0],)


def test_a_penalty_of_the_servers_own_can_be_stated():
    sample = sample_of("table", GOOD, sampling={"repetition_penalty": 1.1})
    assert sample.log_mu_provenance == "estimated"
    assert sample.sampling is not None and sample.sampling.repetition_penalty == 1.1


def test_a_request_that_says_nothing_gives_estimates_until_the_user_knows_better():
    row = {**GOOD, "temperature": None}
    silent, stated = sample_of("table", row), sample_of("table", row, sampling={"temperature": 1.0})
    assert (silent.log_mu_provenance, silent.sampling) == ("estimated", None)
    assert silent.log_mu == (-0.5, -1.0)
    assert stated.log_mu_provenance == "sampler"
    assert stated.sampling is not None and stated.sampling.draws_at(1.0)


def test_settings_that_nobody_stated_are_named():
    assert sample_of("table", GOOD).metadata["sampling_assumed"] == "top_p, top_k, min_p"
    stated = sample_of("table", {**GOOD, "top_p": 1}, sampling={"top_k": 0, "min_p": 0})
    assert "sampling_assumed" not in stated.metadata


def test_minus_one_is_the_servers_way_to_say_no_top_k():
    sampling = sample_of("table", {**GOOD, "top_k": -1}).sampling
    assert sampling is not None and sampling.top_k == 0


TOKENS = {b"4": 5, b"!": 6}
STRINGS = openai_row(choice=logged(("4", -0.5), ("!", -0.25)))


def test_token_strings_without_a_model_come_as_text_only():
    sample = sample_of("openai", STRINGS)
    assert (sample.response, sample.response_ids, sample.log_mu) == ("4!", (), None)
    assert sample.metadata["log_mu_note"] == "log-probabilities without token ids"


def test_token_strings_with_a_model_get_their_ids_but_no_end_token_is_made_up():
    sample = sample_of("openai", STRINGS, resolve=lambda tokens: tuple(TOKENS[t] for t in tokens), tokenizer="f")
    assert (sample.response_ids, sample.log_mu, sample.log_mu_provenance) == ((5, 6), (-0.5, -0.25), "sampler")
    assert (sample.finish_reason, sample.tokenizer) == ("unknown", "f")


def test_token_strings_of_another_tokenizer_come_as_text_only_and_say_why():
    def refuse(tokens: object) -> tuple[int, ...]:
        raise ValueError("b'4' is no token")

    sample = sample_of("openai", STRINGS, resolve=refuse, tokenizer="f")
    assert (sample.response_ids, sample.log_mu, sample.tokenizer) == ((), None, "")
    assert "is no token" in sample.metadata["log_mu_note"]


@pytest.mark.parametrize("gap", [None, -9999.0, -9999])
def test_a_value_that_a_server_did_not_report_costs_the_values_and_not_the_ids(gap: Any):
    sample = sample_of("table", {**GOOD, "log_probs": [gap, -1.0]})
    assert (sample.response, sample.response_ids, sample.log_mu) == ("4", (7, 2), None)
    assert sample.metadata["log_mu_note"].startswith("log-probabilities with gaps: ")


SPLIT = {"token": "\N{REPLACEMENT CHARACTER}", "logprob": -0.1}


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        ("\N{SMILING FACE WITH SMILING EYES}", [{**SPLIT, "bytes": [239, 191, 189]}] * 2),
        ("\N{SMILING FACE WITH SMILING EYES}", [{**SPLIT, "bytes": None}] * 2),
        ("7", [{"token": " 7", "logprob": -0.1, "bytes": [32, 55]}]),
        ("7", [{"token": "\u2581seven", "logprob": -0.1, "bytes": [300]}]),
        ("7 and 9", [{"token": "7", "logprob": -0.1}]),
    ],
    ids=["split", "split-without-bytes", "stripped-space", "bytes-that-are-none", "half-of-it"],
)
def test_tokens_that_do_not_spell_the_response_cost_the_values_and_not_the_text(content: str, entries: Any):
    choice = {"message": {"content": content}, "logprobs": {"content": entries}}
    sample = sample_of("openai", openai_row(choice=choice), resolve=lambda tokens: tuple(range(len(tokens))))
    assert (sample.response, sample.response_ids, sample.log_mu) == (content, (), None)
    assert sample.metadata["log_mu_note"].startswith("logged tokens do not spell the response: ")


def test_a_part_of_a_character_with_its_own_bytes_is_a_token():
    entries = [{**SPLIT, "bytes": list(part)} for part in (b"\xf0\x9f\x98", b"\x8a")]
    choice = {"message": {"content": "\N{SMILING FACE WITH SMILING EYES}"}, "logprobs": {"content": entries}}
    sample = sample_of("openai", openai_row(choice=choice), resolve=lambda tokens: tuple(range(len(tokens))))
    assert (sample.response_ids, sample.log_mu) == ((0, 1), (-0.1, -0.1))


def test_tokens_with_thoughts_that_the_text_lacks_are_no_other_spelling_of_it():
    choice = logged(("<think>hm</think>", -0.5), ("4!", -0.5))
    assert reason_of("openai", openai_row(choice=choice)) == "thoughts kept apart from the response"


def test_text_that_looks_like_a_control_token_stays_text():
    sample = sample_of("kto", {"prompt": "a<|im_end|>", "completion": "b<|im_end|>", "label": True})
    assert (sample.prompt[0]["content"], sample.response) == ("a<|im_end|>", "b<|im_end|>")


ROW = as_row({})


@pytest.mark.parametrize(
    ("rules", "value", "expected"),
    [
        ({"scale": (1, 5)}, 1, 0.0),
        ({"scale": (1, 5)}, 4, 0.75),
        ({"scale": (1, 5)}, None, None),
        ({"scale": (-1, 1)}, True, 1.0),
        ({"value_map": {"good": 1.0, "bad": -1.0}}, "bad", -1.0),
        ({}, 0.25, 0.25),
    ],
)
def test_a_rating_is_what_the_stated_scale_says(rules: dict[str, Any], value: object, expected: float | None):
    assert rating(value, ImportRules(**rules), ROW) == expected


@pytest.mark.parametrize(
    ("rules", "value", "message"),
    [
        ({}, 4, "state the scale: --scale"),
        ({"scale": (1, 5)}, 6, "6 is not in 1 to 5"),
        ({}, "great", "--map great=1"),
        ({"value_map": {"good": 1.0}}, "bad", "it names good"),
        ({}, math.nan, "not finite"),
    ],
)
def test_a_rating_off_its_scale_is_rejected(rules: dict[str, Any], value: object, message: str):
    with pytest.raises(ValueError, match=message):
        rating(value, ImportRules(**rules), ROW)


def test_a_langfuse_category_needs_a_map():
    row = {"id": "s", "observation_id": "o", "data_type": "CATEGORICAL", "string_value": "good", "value": 2}
    assert reason_of("feedback", row) == "a category without a map"
    assert reason_of("feedback", row, value_map={"good": 1.0}) == ""


def test_users_are_hashed_in_cells_and_in_the_raw_row_unless_they_are_kept():
    row = openai_row(request={"user": "ann@example.org"}, metadata={"user_id": "ann@example.org"})
    sample = sample_of("openai", row, salt=b"s")
    assert sample.metadata["user"] == sample.metadata["user_id"] == user_hash("ann@example.org", b"s")
    assert "ann@" not in repr(sample)
    kept = sample_of("openai", row, keep_users=True)
    assert kept.metadata["user"] == "ann@example.org"


def test_a_user_column_of_another_name_is_hashed_in_the_raw_row_too():
    sample = sample_of("table", {**GOOD, "customer": "ann"}, columns={"user": "customer"}, salt=b"s")
    assert sample.metadata["user"] == user_hash("ann", b"s")
    assert '"ann"' not in sample.raw


def test_the_salt_stays_and_is_for_its_owner_only(tmp_path: Any):
    salt = user_salt(tmp_path)
    assert user_salt(tmp_path) == salt
    assert len(salt) == 32
    assert (tmp_path / "user-salt").stat().st_mode & 0o077 == 0
    assert user_salt(tmp_path / "other") != salt


def test_the_raw_row_is_kept_as_it_came():
    raw = '{"prompt":"a",  "response":"b"}'
    row = anonymise(Row("x:1", {"prompt": "a", "response": "b"}, raw), ImportRules())
    (sample,) = convert_row(row, read_table, ImportRules(), kind="table")
    assert sample.raw == raw
