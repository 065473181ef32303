import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from klimb.findings.statistics import iqm, performance_profile, probability_of_improvement
from klimb.findings.statistics.runs import interquartile_mean

scores = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12).map(np.array)


def test_interquartile_mean_of_five_holds_three_quarters_of_the_second_and_the_fourth():
    # A quarter of five is one and a quarter: the second keeps 3/4, the third 1, the fourth 3/4 of its fifth.
    assert interquartile_mean([np.array([0.9, 0.1, 0.4, 0.5, 0.6])]) == pytest.approx((0.3 + 0.5 + 0.45) / 2.5)


def test_interquartile_mean_of_eight_cuts_two_at_either_end():
    assert interquartile_mean([np.array([0, 0, 1, 2, 3, 4, 100, 100.0])]) == pytest.approx(2.5)


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=5), st.integers(0, 99))
def test_interquartile_mean_of_a_multiple_of_four_is_the_quarter_trimmed_mean(values, seed):
    four = np.random.default_rng(seed).permutation(np.repeat(values, 4) + np.tile([0, 0.1, 0.3, 0.4], len(values)))
    assert interquartile_mean([four]) == pytest.approx(stats.trim_mean(four, 0.25))


@given(scores, st.floats(-2, 2))
def test_interquartile_mean_moves_with_its_scores(values, shift):
    assert interquartile_mean([values + shift]) == pytest.approx(interquartile_mean([values]) + shift, abs=1e-9)


def test_iqm_pools_the_runs_of_all_tasks():
    assert iqm([np.array([0.0, 0.2]), np.array([0.6, 1.0])]).value == pytest.approx(0.4)


@given(scores, scores, st.integers(2, 4))
@example(np.array([0.0]), np.array([0.0, 1.7e-142]), 2)
def test_a_task_does_not_count_by_its_number_of_runs(one, other, times):
    assert iqm([np.tile(one, times), other]).value == pytest.approx(iqm([one, other]).value)


def test_iqm_of_few_runs_of_a_task_has_the_t_interval_of_their_spread():
    runs = np.array([0.3, 0.35, 0.5, 0.6])
    interval = iqm([runs])
    reach = stats.t.ppf(0.975, 3) * runs.std(ddof=1) / 2
    assert (interval.low, interval.high) == pytest.approx((interval.value - reach, interval.value + reach))


def test_iqm_of_many_runs_has_the_interval_of_a_trimmed_mean():
    # 12 runs, 3 cut at either end: Tukey and McLaughlin's error is s_w / ((1 - 2·0.25)·√n).
    runs = np.random.default_rng(1).normal(size=12)
    ordered = np.sort(runs)
    ends = (ordered[2] + ordered[3]) / 2, (ordered[8] + ordered[9]) / 2
    error = np.clip(runs, *ends).std(ddof=1) / (0.5 * math.sqrt(12))
    assert iqm([runs]).half_width == pytest.approx(stats.t.ppf(0.975, 11) * error)


def test_iqm_interval_of_accuracies_ends_at_their_bounds():
    interval = iqm([np.array([0.9, 1.0, 1.0])], bounds=(0.0, 1.0))
    assert interval.low > 0 and interval.high == 1.0


@pytest.mark.parametrize(
    ("strata", "reason"),
    [
        ([[0.5]], "1 run of one task, and 3 are the least for an interval"),
        ([[0.5, 0.6]], "2 runs of one task, and 3 are the least for an interval"),
        ([[0.5, 0.6, 0.7], [0.5]], "1 run of a task, and 2 are the least for an interval"),
        ([[0.2, 0.2, 0.2], [0.8, 0.8]], "all runs of a task have the same score"),
        ([[0.1 + 0.2, 0.3, 0.3]], "all runs of a task have the same score"),
        ([[1e200, 2e200, 3e200]], "scores up to 3e\\+200 are too large to square"),
    ],
)
def test_iqm_says_why_it_has_no_interval(strata, reason):
    interval = iqm([np.array(row) for row in strata])
    assert not interval.is_known and math.isfinite(interval.value)
    assert reason.replace("\\", "") in interval.reason


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
    there = probability_of_improvement([one], [other]).value
    back = probability_of_improvement([other], [one]).value
    assert there + back == pytest.approx(1)


@settings(max_examples=30)
@given(scores, scores)
def test_probability_of_improvement_is_mann_whitneys_u_over_its_most(one, other):
    u = stats.mannwhitneyu(one, other, method="asymptotic").statistic if np.ptp(np.r_[one, other]) else None
    expected = 0.5 if u is None else u / (one.size * other.size)
    assert probability_of_improvement([one], [other]).value == pytest.approx(expected)


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
    profile = performance_profile(strata, thresholds=np.linspace(-0.1, 1.1, 9))
    assert (np.diff(profile.share) <= 1e-12).all()
    assert profile.share[0] == 1 and profile.share[-1] == 0
    if math.isfinite(profile.low[0]):
        assert (profile.low <= profile.share + 1e-12).all() and (profile.share <= profile.high + 1e-12).all()
        assert profile.low[0] < 1 and profile.high[-1] > 0


def test_profile_of_a_single_run_has_no_band():
    profile = performance_profile([np.array([0.5])], thresholds=np.array([0.0, 1.0]))
    assert np.isnan(profile.low).all() and profile.reason == "one run of a task"


def test_newcombes_interval_is_where_its_own_error_ends():
    # U/mn = 0.9 of 5 and 6 runs: at either end θ the distance is t₉ times the error that θ itself would have.
    one, other = np.array([1.0, 2, 3, 4, 5]), np.array([-6.0, -5, -4, -3, -2, 3.5])
    interval = probability_of_improvement([one], [other])
    assert interval.value == pytest.approx((25 + 2) / 30)
    for end in (interval.low, interval.high):
        more = 4.5 * ((1 - end) / (2 - end) + end / (1 + end))
        error = math.sqrt(end * (1 - end) * (1 + more) / 30)
        assert abs(interval.value - end) == pytest.approx(stats.t.ppf(0.975, 9) * error)


def test_probability_of_improvement_is_never_certain_and_says_why_it_has_no_interval():
    high, low = np.array([0.8, 0.9, 1.0]), np.array([0.1, 0.2, 0.3])
    assert probability_of_improvement([high], [low]).low < 0.6
    few = probability_of_improvement([high[:2]], [low])
    assert few.value == 1 and few.reason == "2 runs of a task, and 3 are the least for an interval"
