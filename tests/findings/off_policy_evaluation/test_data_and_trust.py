"""Samples become arrays, what cannot be used is left out and counted, and warnings come when they should."""

from dataclasses import replace

import numpy as np
import pytest

from klimb.experience import Sample, SamplingSettings
from klimb.findings.off_policy_evaluation import (
    LoggedData,
    data_warnings,
    effective_number,
    estimate_values,
    logged_data,
)

PLAIN = SamplingSettings()


def sample(number, *, prompt=0, reward=1.0, **fields):
    known = {
        "sample_id": f"s{number}",
        "group_id": f"g{number}",
        "prompt": ({"role": "user", "content": f"question {prompt}"},),
        "prompt_ids": (prompt,),
        "response": "ab",
        "response_ids": (7, 8),
        "finish_reason": "stop",
        "reward": reward,
        "log_mu": (-1.0, -2.0),
        "log_mu_provenance": "sampler",
        "sampling": PLAIN,
    }
    return Sample(**{**known, **fields})


def healthy(num_prompts=300, spread=0.3, seed=0):
    """Weights with mean near 1 and rewards of both kinds."""
    generator = np.random.default_rng(seed)
    log_w = spread * generator.normal(size=num_prompts) - spread**2 / 2
    return LoggedData(
        rewards=generator.integers(0, 2, size=num_prompts).astype(float),
        token_log_w=log_w[:, None],
        mask=np.ones((num_prompts, 1), dtype=bool),
        prompt_index=np.arange(num_prompts),
        is_cut=np.zeros(num_prompts, dtype=bool),
    )


def test_log_weights_are_the_sum_over_the_tokens():
    short = replace(sample(2, prompt=5), response_ids=(9,), log_mu=(-0.5,), finish_reason="length")
    data = logged_data([sample(1), short, sample(3, reward=0.0)], [(-0.5, -1.0), (-1.5,), (-1.0, -2.0)])
    assert data.log_w.tolist() == [1.5, -1.0, 0.0]
    assert data.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert data.prompt_index.tolist() == [0, 1, 0]
    assert data.is_cut.tolist() == [False, True, False]
    assert data.rewards.tolist() == [1.0, 1.0, 0.0]
    assert data.notes == ()


def test_the_same_prompt_in_two_groups_is_one_prompt():
    data = logged_data([sample(1, prompt=4), sample(2, prompt=4), sample(3, prompt=6)], [(-1.0, -2.0)] * 3)
    assert data.num_prompts == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reward": None}, "without a reward"),
        ({"log_mu": None, "log_mu_provenance": "absent"}, "with log_mu absent"),
        ({"log_mu_provenance": "estimated"}, "with log_mu estimated"),
        ({"response_ids": (), "log_mu": ()}, "without token ids"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted_and_alone_refused(changes, reason):
    useless = replace(sample(9), **changes)
    row = (-1.0,) * len(useless.response_ids)
    data = logged_data([sample(1), useless], [(-1.0, -2.0), row])
    assert data.num_samples == 1
    assert any(f"1 of 2 samples are left out: {reason}" in note for note in data.notes)
    with pytest.raises(ValueError, match=f"1 {reason}"):
        logged_data([useless], [row])


@pytest.mark.parametrize(
    ("changes", "row", "reason"),
    [
        ({}, (np.nan, -1.0), "with a log_pi that is not finite"),
        ({}, (-np.inf, -1.0), "with a log_pi that is not finite"),
        ({}, (-1.0,), "with a log_pi of another length than the response"),
        ({"log_mu": (np.nan, -1.0)}, (-1.0, -2.0), "with a log_mu that is not finite"),
        ({"log_mu": (-np.inf, -1.0)}, (-1.0, -2.0), "with a log_mu that is not finite"),
        ({"reward": np.inf}, (-1.0, -2.0), "with a reward that is not finite"),
        ({"reward": np.nan}, (-1.0, -2.0), "with a reward that is not finite"),
    ],
)
def test_one_bad_row_is_named_and_left_out_and_alone_refused(changes, row, reason):
    bad = replace(sample(9), **changes)
    data = logged_data([sample(1), bad, sample(2)], [(-1.0, -2.0), row, (-1.0, -2.0)])
    assert data.num_samples == 2
    (note,) = data.notes
    assert note.startswith(f"1 of 3 samples are left out: {reason} (s9); ")
    with pytest.raises(ValueError, match=rf"no sample can be used .*1 {reason}"):
        logged_data([bad], [row])


def test_of_several_bad_rows_three_are_named_and_all_counted():
    rows = [(-1.0, -2.0), *[(np.nan, 0.0)] * 5]
    (note,) = logged_data([sample(number) for number in range(6)], rows).notes
    assert "5 of 6 samples are left out: with a log_pi that is not finite (s1, s2, s3 and 2 more)" in note
    assert "score the response again" in note


def test_recomputed_log_mu_are_used():
    assert logged_data([sample(1, log_mu_provenance="recomputed")], [(-1.0, -2.0)]).notes == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SamplingSettings(top_p=0.5), "drawn with top-p, top-k, min-p or greedily"),
        (SamplingSettings(top_k=5), "drawn with top-p, top-k, min-p or greedily"),
        (SamplingSettings(min_p=0.1), "drawn with top-p, top-k, min-p or greedily"),
        (SamplingSettings(min_new_tokens=4), "greedily, or kept from ending"),
        (SamplingSettings(temperature=0.0), "drawn with top-p, top-k, min-p or greedily"),
        (None, "do not say how they were drawn"),
    ],
)
def test_missing_support_is_told(settings, words):
    data = logged_data([sample(1, sampling=settings), sample(2)], [(-1.0, -2.0)] * 2)
    assert any(note.startswith("1 of 2") and words in note for note in data.notes)


def test_a_recorded_support_is_told_as_what_the_estimate_is_of():
    recorded = sample(1, sampling=SamplingSettings(top_p=0.5), support=tuple((each,) for each in sample(1).drawn_ids))
    notes = logged_data([recorded, sample(2)], [(-1.0, -2.0)] * 2).notes
    assert len(notes) == 1
    assert notes[0].startswith("1 of 2") and "π renormalised on the tokens that could be drawn" in notes[0]


def test_a_temperature_alone_leaves_the_support_whole():
    assert logged_data([sample(1, sampling=SamplingSettings(temperature=1.3))], [(-1.0, -2.0)]).notes == ()


def test_healthy_data_brings_no_warning():
    data = healthy()
    assert data_warnings(data) == ()
    assert all(estimate.warnings == () for estimate in estimate_values(data))


def test_few_prompts_are_told_though_the_responses_are_many():
    data = healthy(num_prompts=400)
    few = replace(data, prompt_index=np.arange(400) % 20)
    assert all("fewer than 100" in " ".join(estimate.warnings) for estimate in estimate_values(few))


def test_weights_that_are_far_apart_are_told():
    found = {estimate.name: estimate for estimate in estimate_values(healthy(spread=3.0), clip=1.0)}
    assert "less than 10%" in " ".join(found["ips"].warnings)
    assert "holds" in " ".join(found["snips"].warnings)
    # Clipping evens the weights out; it is warned of by its note, not by its weights.
    assert not any("less than 10%" in warning for warning in found["clipped-ips(1)"].warnings)
    assert "above 1; what they are cut by is bias" in found["clipped-ips(1)"].note


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_wrong_log_mu_shows_in_the_mean_weight(shift):
    data = healthy()
    moved = replace(data, token_log_w=data.token_log_w + shift)
    assert any("should be 1" in warning for warning in data_warnings(moved))


def test_rounding_in_the_mean_weight_is_no_warning():
    data = healthy()
    assert data_warnings(replace(data, token_log_w=np.full((300, 1), 1e-6))) == ()


def test_one_prompt_equal_rewards_and_bounded_weights_are_told():
    data = replace(
        healthy(num_prompts=3),
        rewards=np.ones(3),
        prompt_index=np.zeros(3, dtype=np.int64),
        token_log_w=np.array([[900.0], [0.0], [0.0]]),
    )
    told = " ".join(data_warnings(data))
    assert "there is one prompt" in told
    assert "every reward is 1" in told
    assert "1 log-weights are outside" in told


def test_the_effective_number_by_hand():
    assert effective_number(np.array([1.0, 1.0, 1.0])) == pytest.approx(3.0)
    assert effective_number(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_number(np.array([1e200, 1e200])) == pytest.approx(2.0)


def test_arrays_that_do_not_fit_are_refused():
    data = healthy(num_prompts=3)
    with pytest.raises(ValueError, match="mask has shape"):
        replace(data, mask=np.ones((3, 2), dtype=bool))
    with pytest.raises(ValueError, match="every number from 0"):
        replace(data, prompt_index=np.array([0, 2, 2]))
    with pytest.raises(ValueError, match="rewards has values that are not finite"):
        replace(data, rewards=np.array([np.nan, 0.0, 0.0]))
    with pytest.raises(ValueError, match="token_rewards of sample 0 add up to"):
        replace(data, token_rewards=np.full((3, 1), 5.0))
    with pytest.raises(ValueError, match=r"no sample can be used .*1 with a log_pi of another length"):
        logged_data([sample(1)], [(-1.0,)])
    with pytest.raises(ValueError, match="1 samples for 2 rows"):
        logged_data([sample(1)], [(-1.0, -2.0)] * 2)


def test_a_value_outside_of_the_rewards_is_no_estimate_and_snips_stays_one():
    """log μ is too small by 5 nats for every response: each w is e⁵ too large, and the mean weight with it."""
    data = healthy()
    shifted = replace(data, token_log_w=data.token_log_w + 5)
    found = {each.name: each for each in estimate_values(shifted, clip=1e9)}
    for name in ("ips", "clipped-ips(1e+09)", "per-decision"):
        assert found[name].value > 1.05
        assert "is outside of the rewards, 0 to 1" in found[name].unusable
    for name in ("snips", "direct"):
        assert 0 <= found[name].value <= 1
        assert found[name].unusable == ""


def test_where_one_response_has_all_the_weight_no_estimator_is_usable():
    data = healthy()
    token_log_w = data.token_log_w.copy()
    token_log_w[7] = 40.0
    found = estimate_values(replace(data, token_log_w=token_log_w))
    assert all("300 responses count like 1.0" in each.unusable for each in found)


@pytest.mark.parametrize(("mean", "is_usable"), [(1.03, True), (1.06, False)])
def test_a_value_that_chance_moves_a_little_beyond_the_rewards_stays_usable(mean, is_usable):
    """All rewards are 1: what ips gives is the mean of the weights."""
    data = replace(healthy(), rewards=np.ones(300))
    shifted = replace(data, token_log_w=data.token_log_w + np.log(mean / data.weights.mean()))
    ips = next(each for each in estimate_values(shifted) if each.name == "ips")
    assert ips.value == pytest.approx(mean)
    assert (ips.unusable == "") == is_usable
