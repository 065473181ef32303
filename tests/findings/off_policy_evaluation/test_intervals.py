"""Intervals by prompt: their unit, their ends, the reasons why there is none, and what they do at the edges."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from klimb.findings.off_policy_evaluation import (
    LoggedData,
    clip_sweep,
    estimate_values,
    ips,
    logged_mean,
    reason_against_intervals,
    with_intervals,
)
from klimb.findings.statistics import Ratios, bootstrap_t_intervals, mean_interval
from klimb.findings.statistics.resampling import resampled_sums


def with_counts(values):
    values = np.asarray(values, dtype=np.float64)
    return np.stack([values, np.ones(len(values))], axis=1)


def mean_of(values):
    return Ratios(sums=with_counts(values), num_effective=float(len(values)))


def data_of(rewards, prompt_index, log_w=None, **more):
    rewards = np.asarray(rewards, dtype=np.float64)
    log_w = np.zeros(len(rewards)) if log_w is None else np.asarray(log_w, dtype=np.float64)
    return LoggedData(
        rewards=rewards,
        token_log_w=log_w[:, None],
        mask=np.ones((len(rewards), 1), dtype=bool),
        prompt_index=np.asarray(prompt_index),
        is_cut=np.zeros(len(rewards), dtype=bool),
        **more,
    )


def log_normal(spread, *, num_prompts=200, seed=0, **more):
    """Weights of mean 1 and true ESS exp(-spread²), rewards of both kinds."""
    generator = np.random.default_rng(seed)
    log_w = generator.normal(-(spread**2) / 2, spread, size=num_prompts)
    return data_of(generator.integers(0, 2, size=num_prompts), np.arange(num_prompts), log_w, **more)


def named(estimates):
    return {each.name: each for each in estimates}


def test_every_resample_draws_as_many_prompts_as_there_are():
    sums = resampled_sums(with_counts(np.arange(7.0)), num_resamples=300)
    assert (sums[:, 1] == 7).all()
    assert len(np.unique(sums[:, 0])) > 10


def test_blocks_draw_the_same_as_one_piece(monkeypatch):
    sums = with_counts(np.arange(7.0))
    whole = resampled_sums(sums, num_resamples=500, seed=3)
    monkeypatch.setattr("klimb.findings.statistics.resampling.LARGEST_BLOCK", 7 * 100)
    assert (resampled_sums(sums, num_resamples=500, seed=3) == whole).all()


def test_the_interval_of_a_symmetric_mean_is_the_normal_one():
    # Two values, half and half: sd 1, so the mean of 400 has standard error 1/20, and the interval is ± 1.96 of it.
    statistic = mean_of([-1.0, 1.0] * 200)
    (found,) = bootstrap_t_intervals([statistic], unit="prompt", num_resamples=20_000)
    assert statistic.standard_error == pytest.approx(math.sqrt(400 / 399) / 20)
    assert (found.low, found.high) == (pytest.approx(-0.098, abs=0.004), pytest.approx(0.098, abs=0.004))


def test_the_interval_of_few_normal_values_is_as_wide_as_students_t():
    values = np.random.default_rng(0).normal(size=(60, 12))
    widths = [
        found.high - found.low
        for found in bootstrap_t_intervals([mean_of(row) for row in values], unit="prompt", num_resamples=4000)
    ]
    expected = 2 * stats.t.ppf(0.975, 11) * values.std(axis=1, ddof=1) / math.sqrt(12)
    assert np.median(widths / expected) == pytest.approx(1.0, abs=0.12)


def test_the_interval_of_a_skewed_mean_reaches_further_to_the_long_side():
    (found,) = bootstrap_t_intervals([mean_of([0.0] * 85 + [20.0] * 15)], unit="prompt")
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_equal_prompts_have_no_interval_and_the_reason():
    (found,) = bootstrap_t_intervals([mean_of([2.0] * 5)], unit="prompt")
    assert found.value == 2.0
    assert found.reason == "all prompts are equal"


def test_the_standard_error_of_a_ratio_is_the_delta_methods():
    a, b = np.random.default_rng(1).uniform(1, 2, size=(2, 30))
    statistic = Ratios(sums=np.stack([a, b], axis=1), num_effective=30.0)
    ratio = a.sum() / b.sum()
    assert statistic.value == pytest.approx(ratio)
    expected = math.sqrt(30 / 29 * ((a - ratio * b) ** 2).sum()) / b.sum()
    assert statistic.standard_error == pytest.approx(expected)


def test_responses_to_one_prompt_are_no_independent_evidence():
    rewards = np.random.default_rng(0).integers(0, 2, size=50).repeat(8)
    data = data_of(rewards, np.arange(50).repeat(8))
    by_prompt = with_intervals(data, [ips(data)])
    by_response = with_intervals(data_of(rewards, np.arange(400)), [ips(data_of(rewards, np.arange(400)))])
    # Eight equal answers to a prompt are one answer: the error is √8 times larger.
    assert by_prompt[0].standard_error / by_response[0].standard_error == pytest.approx(8**0.5, rel=0.02)
    assert by_prompt[0].ess == pytest.approx(400)
    assert by_prompt[0].ess_prompts == pytest.approx(50)
    assert (by_prompt[0].interval.unit, by_prompt[0].interval.num_units) == ("prompt", 50)


def test_an_interval_says_its_method_its_unit_and_what_it_assumes():
    found = named(estimate_values(log_normal(0.3)))["snips"].interval
    assert (found.method, found.counted_units, found.reason) == ("bootstrap t", "200 prompts", "")
    assert "log μ is right" in found.assumes


def test_the_logged_mean_is_an_ordinary_mean_over_prompts():
    data = log_normal(0.3)
    expected = mean_interval(data.rewards, data.prompt_index, unit="prompt", bounds=(0.0, 1.0))
    assert logged_mean(data).interval == expected
    assert logged_mean(data).gain is None


def test_one_prompt_has_no_interval():
    for estimate in estimate_values(data_of([0.0, 1.0, 1.0], [0, 0, 0])):
        assert np.isnan([estimate.low, estimate.high, estimate.standard_error]).all()
        assert np.isfinite(estimate.value)
        assert estimate.interval.reason


def test_fewer_than_ten_prompts_worth_have_no_interval():
    found = estimate_values(data_of([0.0, 1.0] * 4, np.arange(8)))
    assert all("8.0 prompts' worth, and 10 are the least" in each.interval.reason for each in found[1:2])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_prompts", [50, 200, 1000])
def test_where_the_true_ess_is_three_per_cent_there_is_no_interval_though_the_weights_seen_look_fine(num_prompts, seed):
    spread = math.sqrt(-math.log(0.03))
    assert reason_against_intervals(log_normal(spread, num_prompts=num_prompts, seed=seed))


@pytest.mark.parametrize("seed", range(10))
def test_where_the_true_ess_is_half_there_is_an_interval(seed):
    assert reason_against_intervals(log_normal(math.sqrt(math.log(2)), seed=seed)) == ""


def test_small_weights_cost_no_interval():
    """π never gives a third of the answers: w is 0 there, 1.5 elsewhere, and the ESS two thirds."""
    log_w = np.where(np.arange(300) % 3 == 0, -40.0, math.log(1.5))
    assert reason_against_intervals(data_of(np.arange(300) % 2, np.arange(300), log_w)) == ""


def test_a_missing_rare_weight_shows_in_the_mean_and_takes_the_interval_away():
    """π moves 20 % to an answer that μ gives once in 50: if none is seen every weight is 0.8/0.98."""
    found = reason_against_intervals(data_of(np.arange(40) % 2, np.arange(40), np.full(40, math.log(0.8 / 0.98))))
    assert "the weights' mean is 0.816" in found


def test_a_heavy_tail_takes_the_interval_away():
    """P(w > x) falls as x^(-1.1): no variance. Most of 5000 weights are below 1, and the ESS seen may be above 15 %."""
    levels = (np.arange(5000) + 0.5) / 5000
    log_w = -np.log(levels) / 1.1 + math.log(0.1 / 1.1)
    assert reason_against_intervals(data_of(np.arange(5000) % 2, np.arange(5000), log_w))


def test_biased_estimators_have_a_value_and_no_interval():
    found = named(estimate_values(log_normal(0.8), clip=1.5))
    assert "weights are cut" in found["clipped-ips(1.5)"].interval.reason
    assert "reward model" in found["direct"].interval.reason
    assert found["snips"].interval.is_known


def test_a_clip_above_every_weight_is_ips():
    found = named(estimate_values(log_normal(0.3), clip=1e6))
    assert found["clipped-ips(1e+06)"].interval == found["ips"].interval


def test_a_reward_of_two_prompts_alone_has_no_interval():
    rewards = np.zeros(60)
    rewards[:2] = 1
    (found,) = with_intervals(data_of(rewards, np.arange(60)), [ips(data_of(rewards, np.arange(60)))])
    assert found.interval.reason == "a reward of 1 came in 2 prompts, and 3 are the least for an interval"


def test_intervals_of_rewards_of_0_and_1_end_there():
    rewards = np.ones(60)
    rewards[:3] = 0
    log_w = np.random.default_rng(2).normal(-0.02, 0.2, size=60)
    for each in estimate_values(data_of(rewards, np.arange(60), log_w)):
        if each.interval.is_known:
            assert 0 <= each.low < each.high <= 1
            assert -1 <= each.gain.low < each.gain.high <= 1


def test_a_value_outside_of_the_known_range_says_so_and_is_not_cut():
    data = replace(log_normal(0.3), rewards=np.ones(200))
    shifted = replace(data, token_log_w=data.token_log_w + math.log(1.03 / data.weights.mean()))
    found = named(estimate_values(shifted))["ips"]
    assert found.value == pytest.approx(1.03)
    assert "outside of what rewards can be, 0 to 1, because the weights' mean is 1.03" in " ".join(found.warnings)


def test_a_given_range_is_the_bounds_and_rewards_outside_of_it_are_refused():
    data = log_normal(0.3, reward_range=(-1.0, 2.0))
    assert data.bounds == (-1.0, 2.0)
    with pytest.raises(ValueError, match=r"rewards are outside of reward_range, 0 to 0.5; the first is 1"):
        log_normal(0.3, reward_range=(0.0, 0.5))
    with pytest.raises(ValueError, match="lower one first"):
        log_normal(0.3, reward_range=(1.0, 0.0))


def test_rewards_that_are_not_0_or_1_have_no_known_range():
    assert data_of([0.0, 0.5, 1.0], [0, 1, 2]).bounds is None


def test_the_gain_is_the_difference_to_the_logged_mean_on_the_same_prompts():
    data = log_normal(0.5)
    for each in estimate_values(data):
        assert each.gain.value == pytest.approx(each.value - data.rewards.mean())
    snips = named(estimate_values(data))["snips"]
    # Estimate and logged mean rest on the same rewards, so the difference varies less than they do apart.
    apart = math.hypot(snips.interval.half_width, logged_mean(data).interval.half_width)
    assert snips.gain.half_width < 0.8 * apart


def test_a_model_that_is_the_log_gains_nothing_for_sure():
    data = replace(log_normal(0.5), token_log_w=np.zeros((200, 1)))
    gain = named(estimate_values(data))["snips"].gain
    assert gain.value == pytest.approx(0.0, abs=1e-12)
    assert not gain.is_positive and not gain.is_negative


def test_a_gain_that_is_rounding_has_no_interval_of_any_estimator():
    rewards = (np.random.default_rng(3).random(400) < 0.5).astype(np.float64)
    for estimate in estimate_values(data_of(rewards, np.arange(400) // 4)):
        assert estimate.gain is not None and not estimate.gain.is_known and estimate.gain.reason


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_rewards_that_cannot_be_squared_have_the_reason_in_the_place_of_an_interval():
    rewards = 1e200 * (np.random.default_rng(4).random(400) < 0.5)
    log_w = 0.3 * np.random.default_rng(5).standard_normal(400) - 0.045
    for estimate in estimate_values(data_of(rewards, np.arange(400) // 4, log_w)):
        assert not estimate.interval.is_known and estimate.interval.reason
        assert estimate.name == "direct" or "rewards up to 1e+200 are too large" in estimate.interval.reason


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    data = log_normal(0.3)
    assert repr(estimate_values(data, seed=1)) == repr(estimate_values(data, seed=1))
    assert repr(estimate_values(data, seed=1)) != repr(estimate_values(data, seed=2))


def test_an_interval_does_not_depend_on_which_estimators_are_beside_it():
    data = log_normal(0.3)
    alone = with_intervals(data, [ips(data)])[0]
    beside = named(estimate_values(data))["ips"]
    assert alone.interval.is_known
    assert (alone.low, alone.high) == pytest.approx((beside.low, beside.high), rel=1e-12)


def test_one_giant_weight_leaves_every_number_finite_and_no_interval():
    data = data_of([1.0, 0.0, 1.0, 0.0], [0, 1, 2, 3], [900.0, 0.0, 1.0, -900.0])
    for estimate in (*estimate_values(data), *clip_sweep(data)):
        assert np.isfinite([estimate.value, estimate.ess, estimate.max_weight_share]).all()
        assert not estimate.interval.is_known


def test_a_sweep_rises_to_ips_for_rewards_that_are_not_negative():
    data = data_of(np.ones(50), np.arange(50), np.linspace(-3, 3, 50))
    values = [estimate.value for estimate in clip_sweep(data, clips=(1.0, 2.0, 5.0, 100.0))]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(ips(data).value)


def test_settings_that_make_no_interval_are_refused():
    with pytest.raises(ValueError, match="num_resamples must be >= 100"):
        estimate_values(data_of([0.0, 1.0], [0, 1]), num_resamples=10)
