"""Intervals by prompt: their resamples, their skewness correction, and what they do at the edges."""

import numpy as np
import pytest

from klimb.findings.off_policy_evaluation import LoggedData, clip_sweep, estimate_values, ips, with_intervals
from klimb.findings.off_policy_evaluation.estimate import interval, resampled_sums


def mean(sums):
    return sums[:, 0] / sums[:, 1]


def with_counts(values):
    values = np.asarray(values, dtype=np.float64)
    return np.stack([values, np.ones(len(values))], axis=1)


def data_of(rewards, prompt_index, log_w=None):
    rewards = np.asarray(rewards, dtype=np.float64)
    log_w = np.zeros(len(rewards)) if log_w is None else np.asarray(log_w, dtype=np.float64)
    return LoggedData(
        rewards=rewards,
        token_log_w=log_w[:, None],
        mask=np.ones((len(rewards), 1), dtype=bool),
        prompt_index=np.asarray(prompt_index),
        is_cut=np.zeros(len(rewards), dtype=bool),
    )


def test_every_resample_draws_as_many_prompts_as_there_are():
    sums = resampled_sums(with_counts(np.arange(7.0)), num_resamples=300)
    assert (sums[:, 1] == 7).all()
    assert len(np.unique(sums[:, 0])) > 10


def test_blocks_draw_the_same_as_one_piece(monkeypatch):
    sums = with_counts(np.arange(7.0))
    whole = resampled_sums(sums, num_resamples=500, seed=3)
    monkeypatch.setattr("klimb.findings.off_policy_evaluation.estimate.LARGEST_BLOCK", 7 * 100)
    assert (resampled_sums(sums, num_resamples=500, seed=3) == whole).all()


def test_the_interval_of_a_symmetric_mean_is_the_normal_one():
    # Two values, half and half: sd 1, so the mean of 400 has standard error 1/20, and the interval is ± 1.96 of it.
    sums = with_counts([-1.0, 1.0] * 200)
    found = interval(sums, resampled_sums(sums, num_resamples=20_000), mean)
    assert found.standard_error == pytest.approx(0.05, rel=0.03)
    assert (found.low, found.high) == (pytest.approx(-0.098, abs=0.006), pytest.approx(0.098, abs=0.006))


def test_the_interval_of_a_skewed_mean_reaches_further_to_the_long_side_than_the_percentiles_do():
    sums = with_counts([0.0] * 95 + [20.0] * 5)
    resampled = resampled_sums(sums, num_resamples=20_000)
    found = interval(sums, resampled, mean)
    percentiles = np.quantile(mean(resampled), [0.025, 0.975])
    assert found.low > percentiles[0]
    assert found.high > percentiles[1]


def test_equal_prompts_have_an_interval_of_no_width():
    sums = with_counts([2.0] * 5)
    found = interval(sums, resampled_sums(sums), mean)
    assert (found.low, found.high, found.standard_error) == (2.0, 2.0, 0.0)


def test_responses_to_one_prompt_are_no_independent_evidence():
    rewards = np.random.default_rng(0).integers(0, 2, size=50).repeat(8)
    by_prompt = with_intervals(
        data_of(rewards, np.arange(50).repeat(8)), [ips(data_of(rewards, np.arange(50).repeat(8)))]
    )
    by_response = with_intervals(data_of(rewards, np.arange(400)), [ips(data_of(rewards, np.arange(400)))])
    # Eight equal answers to a prompt are one answer: the error is √8 times larger.
    assert by_prompt[0].standard_error / by_response[0].standard_error == pytest.approx(8**0.5, rel=0.1)
    assert by_prompt[0].ess == pytest.approx(400)
    assert by_prompt[0].ess_prompts == pytest.approx(50)


def test_one_prompt_has_no_interval():
    for estimate in estimate_values(data_of([0.0, 1.0, 1.0], [0, 0, 0])):
        assert np.isnan([estimate.low, estimate.high, estimate.standard_error]).all()
        assert np.isfinite(estimate.value)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    data = data_of(np.arange(20.0), np.arange(20), np.linspace(-1, 1, 20))
    assert estimate_values(data, seed=1) == estimate_values(data, seed=1)
    assert estimate_values(data, seed=1) != estimate_values(data, seed=2)


def test_an_interval_does_not_depend_on_which_estimators_are_beside_it():
    data = data_of(np.arange(20.0), np.arange(20), np.linspace(-1, 1, 20))
    alone = with_intervals(data, [ips(data)])[0]
    beside = next(estimate for estimate in estimate_values(data) if estimate.name == "ips")
    assert (alone.low, alone.high) == pytest.approx((beside.low, beside.high), rel=1e-12)


def test_one_giant_weight_leaves_every_number_finite():
    data = data_of([1.0, 0.0, 1.0, 0.0], [0, 1, 2, 3], [900.0, 0.0, 1.0, -900.0])
    for estimate in (*estimate_values(data), *clip_sweep(data)):
        assert np.isfinite([estimate.value, estimate.low, estimate.high, estimate.ess, estimate.max_weight_share]).all()


def test_a_sweep_rises_to_ips_for_rewards_that_are_not_negative():
    data = data_of(np.ones(50), np.arange(50), np.linspace(-3, 3, 50))
    values = [estimate.value for estimate in clip_sweep(data, clips=(1.0, 2.0, 5.0, 100.0))]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(ips(data).value)


def test_settings_that_make_no_interval_are_refused():
    data = data_of([0.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match="num_resamples must be >= 100"):
        estimate_values(data, num_resamples=10)
    with pytest.raises(ValueError, match=r"confidence in \(0, 1\)"):
        estimate_values(data, confidence=95)
