import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from klimb.findings.statistics import interquartile_mean, iqm, performance_profile, probability_of_improvement

scores = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12).map(np.array)


def test_interquartile_mean_of_five_is_that_of_the_middle_three():
    assert interquartile_mean(np.array([0.9, 0.1, 0.4, 0.5, 0.6])) == pytest.approx(0.5)


def test_interquartile_mean_of_eight_cuts_two_at_either_end():
    assert interquartile_mean(np.array([0, 0, 1, 2, 3, 4, 100, 100.0])) == pytest.approx(2.5)


@given(scores)
def test_interquartile_mean_is_the_quarter_trimmed_mean(values):
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


@given(scores, st.floats(-2, 2))
def test_interquartile_mean_moves_with_its_scores(values, shift):
    assert interquartile_mean(values + shift) == pytest.approx(interquartile_mean(values) + shift, abs=1e-9)


def test_iqm_pools_the_runs_of_all_tasks():
    assert iqm([np.array([0.0, 0.2]), np.array([0.6, 1.0])]).value == pytest.approx(0.4)


def test_iqm_interval_is_that_of_the_resampled_means_where_the_answer_is_known():
    # Two runs, 0 and 1: the mean of two draws is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    interval = iqm([np.array([0.0, 1.0])])
    assert (interval.low, interval.value, interval.high) == (0.0, 0.5, 1.0)


def test_tasks_are_not_mixed_when_runs_are_drawn_again():
    # Each task's runs are equal: drawing within tasks cannot change anything, drawing over tasks would.
    interval = iqm([np.array([0.2, 0.2]), np.array([0.8, 0.8])])
    assert interval.low == interval.high == pytest.approx(0.5)


def test_a_single_run_has_no_interval():
    assert not iqm([np.array([0.5])]).is_known


def test_probability_of_improvement_counts_pairs_and_half_of_the_ties():
    # 0.5 against (0.4, 0.5): one win, one tie; 0.3 against them: two losses.
    improvement = probability_of_improvement([np.array([0.5, 0.3])], [np.array([0.4, 0.5])])
    assert improvement.value == pytest.approx((1 + 0.5) / 4)


def test_probability_of_improvement_is_the_mean_over_tasks():
    always, never = ([np.array([1.0, 1.0])], [np.array([0.0, 0.0])])
    assert probability_of_improvement([*always, *never], [*never, *always]).value == pytest.approx(0.5)


@settings(max_examples=30)
@given(scores, scores)
def test_probabilities_of_improvement_of_the_two_add_up_to_one(one, other):
    there = probability_of_improvement([one], [other], num_resamples=10).value
    back = probability_of_improvement([other], [one], num_resamples=10).value
    assert there + back == pytest.approx(1)


@settings(max_examples=30)
@given(scores, scores)
def test_probability_of_improvement_is_mann_whitneys_u_over_its_most(one, other):
    u = stats.mannwhitneyu(one, other, method="asymptotic").statistic if np.ptp(np.r_[one, other]) else None
    expected = 0.5 if u is None else u / (one.size * other.size)
    assert probability_of_improvement([one], [other], num_resamples=10).value == pytest.approx(expected)


def test_improvement_over_another_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match="2 tasks against 1"):
        probability_of_improvement([np.ones(2), np.ones(2)], [np.ones(2)])


def test_profile_is_the_share_of_runs_above_each_threshold():
    profile = performance_profile(
        [np.array([0.2, 0.4]), np.array([0.6, 0.8])], thresholds=np.array([0.0, 0.4, 0.7, 0.8])
    )
    assert profile.share.tolist() == [1.0, 0.5, 0.25, 0.0]


@settings(max_examples=30)
@given(st.lists(scores, min_size=1, max_size=3))
def test_profile_falls_and_lies_within_its_band(strata):
    profile = performance_profile(strata, thresholds=np.linspace(-0.1, 1.1, 9), num_resamples=200)
    assert (np.diff(profile.share) <= 1e-12).all()
    assert profile.share[0] == 1 and profile.share[-1] == 0
    if math.isfinite(profile.low[0]):
        assert (profile.low <= profile.high).all()
