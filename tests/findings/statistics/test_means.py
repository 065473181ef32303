import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from klimb.findings.statistics import difference_of_groups, mean_interval, paired_interval, proportions, share_ends

PART_OF_SEEN = 0.6


def interval(values, clusters=None, **more):
    values = np.array(values, dtype=np.float64)
    return mean_interval(values, np.arange(len(values)) if clusters is None else np.array(clusters), unit="x", **more)


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_ends_of_a_share_are_where_its_binomial_tails_are_a_fortieth(seen: int, more: int):
    number = seen + more
    low, high = share_ends(seen / number, number)
    assert 0 <= low <= seen / number <= high <= 1
    if seen:
        assert stats.binom.sf(seen, number, low) + PART_OF_SEEN * stats.binom.pmf(seen, number, low) == pytest.approx(
            0.025, abs=1e-6
        )
    below = stats.binom.cdf(seen - 1, number, high) if seen else 0.0
    assert below + PART_OF_SEEN * stats.binom.pmf(seen, number, high) == pytest.approx(0.025, abs=1e-6)


def held(rate: float, number: int, ends) -> float:
    """Chance that the interval of a share holds the rate: a sum over all that could be seen."""
    seen = np.arange(number + 1)
    made = [ends(int(count), number) for count in seen]
    return float(sum(stats.binom.pmf(seen, number, rate)[[low <= rate <= high for low, high in made]]))


def test_the_share_holds_93_percent_where_the_mid_p_interval_does_not():
    """Exactly, over numbers and rates; of single answers, so that nothing is estimated but the rate."""
    cases = [(rate, number) for rate in (0.01, 0.02, 0.05, 0.2, 0.5) for number in (5, 10, 21, 50, 150, 300)]
    ours = {case: held(*case, lambda count, number: share_ends(count / number, number)) for case in cases}
    assert min(ours.values()) > 0.9295
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proportions, "PART_OF_SEEN", 0.5)
        assert held(0.01, 300, lambda count, number: share_ends(count / number, number)) < 0.92


@given(st.floats(0.01, 0.99), st.floats(2.0, 500.0))
def test_the_ends_of_a_share_mirror_those_of_its_opposite(share: float, number: float):
    low, high = share_ends(share, number)
    assert share_ends(1 - share, number) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_a_share_of_single_answers_is_binomial():
    found = interval([1.0] * 7 + [0.0] * 13)
    assert (found.low, found.high) == pytest.approx(share_ends(7 / 20, 20), abs=1e-9)
    assert (found.unit, found.num_units) == ("x", 20)


def test_answers_that_are_all_alike_within_a_prompt_count_as_one():
    once, repeated = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], np.repeat(np.arange(8), 9)
    alone, together = interval(once), interval(np.repeat(once, 9), repeated)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    assert together.num_units == 8


def test_independent_answers_of_many_prompts_count_nearly_each():
    draws = (np.random.default_rng(0).random((400, 10)) < 0.4).astype(np.float64)
    found = interval(draws.ravel(), np.repeat(np.arange(400), 10))
    assert found.half_width == pytest.approx(1.96 * math.sqrt(0.24 / 4000), rel=0.08)


def test_perfect_answers_are_not_certain_and_their_number_is_that_of_the_prompts():
    found = interval(np.ones(60), np.repeat(np.arange(20), 3))
    assert found.low == pytest.approx((0.025 / PART_OF_SEEN) ** (1 / 20))
    assert found.high == 1.0


def test_a_reward_of_two_values_is_a_share_of_their_range():
    right = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    share, reward = interval(right), interval([5.0 if value else -3.0 for value in right])
    assert (reward.low, reward.high) == pytest.approx((8 * share.low - 3, 8 * share.high - 3))


def test_a_symmetric_reward_has_students_interval():
    values = np.concatenate([np.arange(1, 13), -np.arange(1, 13)]) / 7
    found = interval(values)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 23, loc=values.mean(), scale=stats.sem(values)), abs=1e-9
    )


def test_a_skewed_reward_reaches_further_on_its_long_side_and_never_less_than_student():
    values = np.random.default_rng(1).exponential(size=40)
    low, high = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    found = interval(values)
    assert found.high - high > 0.05 * (high - low)
    assert found.low == pytest.approx(low)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 0.0, 1.0, 1.0], "4 xs, and 5 are the least for an interval"),
        ([0.1, 0.4, 0.7, 0.3, 0.2, 0.9, 0.8], "7 xs, and 10 are the least for an interval"),
        ([0.25] * 12, "all 12 xs have the same mean, so their spread is not known"),
        ([0.1 + 0.2] * 6 + [0.3] * 6, "all 12 xs have the same mean"),
        ([1e200, 2e200, 3e200] * 4, "values up to 3e+200 are too large to be squared"),
        ([1e-200, 2e-200, 3e-200] * 4, "values of at most 3e-200 are too small to be squared"),
    ],
)
def test_where_there_is_no_interval_the_reason_is_said(values, reason: str):
    found = interval(values, bounds=None)
    assert not found.is_known and found.reason.startswith(reason)
    assert found.value == pytest.approx(np.mean(values))


def test_each_prompt_counts_alike_where_answers_weigh_one_over_their_number():
    values, clusters = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0], [0, 1, 1, 1, 2, 3, 4, 5]
    weights = np.array([1, 1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1])
    assert interval(values, clusters, weights=weights).value == pytest.approx((1 + 0 + 1 + 1 + 0 + 1) / 6)


def test_prompts_chosen_for_equal_pass_rates_are_not_certain():
    clusters = np.repeat(np.arange(10), 4)
    rewards = np.tile([0.0, 0.2, 0.5, 1.0], 10)  # every prompt has the same mean, no answer the same reward
    expected = stats.t.ppf(0.975, 9) * rewards.std() / math.sqrt(39)
    assert interval(rewards, clusters).half_width == pytest.approx(expected)


def test_a_change_of_many_problems_is_near_students():
    generator = np.random.default_rng(2)
    differences = (generator.binomial(4, 0.6, 300) - generator.binomial(4, 0.4, 300)) / 4
    low, high = stats.t.interval(0.95, 299, loc=differences.mean(), scale=stats.sem(differences))
    found = paired_interval(differences, unit="problem", largest=1.0, num_values=4)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_no_change_at_all_is_not_known_to_be_none():
    """What might have gone up, and down, is at most 1 − (0.025/0.6)^(1/n)."""
    found = paired_interval(np.zeros(20), unit="problem", largest=1.0)
    most = 1 - (0.025 / PART_OF_SEEN) ** (1 / 20)
    assert (found.low, found.high) == pytest.approx((-most, most))


def test_one_problem_is_no_evidence_of_a_change():
    found = paired_interval(np.array([1.0]), unit="problem", largest=1.0)
    assert not found.is_known and found.reason == "1 problem, and 5 are the least for an interval"


def test_the_difference_of_independent_groups_of_like_sizes_is_welchs():
    generator = np.random.default_rng(3)
    first, second = generator.normal(0, 1, 16), generator.normal(1, 3, 30)
    found = difference_of_groups(first, np.arange(16), second, np.arange(16, 46), unit="prompt")
    expected = stats.ttest_ind(second, first, equal_var=False)
    interval = expected.confidence_interval(0.95)
    # Degrees of freedom are Welch's; the variance is no lower than that of independent values, which here is its own.
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_units_on_both_sides_are_paired():
    generator = np.random.default_rng(4)
    level = generator.normal(0, 5, 50)
    first, second = level + generator.normal(0, 0.1, 50), level + 0.2 + generator.normal(0, 0.1, 50)
    units = np.arange(50)
    assert difference_of_groups(first, units, second, units, unit="prompt").interval.low > 0
    assert difference_of_groups(first, units, second, units + 50, unit="prompt").interval.low < 0


@pytest.mark.parametrize("values", [[math.nan] + [0.5] * 11, [1e200 * n for n in range(12)]])
def test_what_cannot_be_squared_has_no_interval_of_a_mean_or_a_difference_but_the_reason_and_the_units(values):
    some, units = np.array(values), np.arange(12)
    made = [
        mean_interval(some, units, unit="x"),
        paired_interval(some, unit="x"),
        difference_of_groups(some, units, some, units, unit="x").interval,
    ]
    assert all(not each.is_known and each.reason and each.num_units == 12 for each in made)


def test_a_difference_of_groups_that_is_rounding_is_none():
    units = np.arange(10)
    found = difference_of_groups(np.full(10, 0.3), units, np.full(10, 0.1 + 0.2), units + 10, unit="x")
    assert found.p_value == 1.0 and not found.interval.is_known and found.interval.reason == "nothing varies"


def test_a_difference_of_shares_stays_within_its_range_and_keeps_the_level_that_is_asked():
    right, wrong, units = np.ones(10), np.zeros(10), np.arange(10)
    usual, strict = (
        difference_of_groups(wrong, units, right, units + 10, unit="x", bounds=(0.0, 1.0), alpha=alpha).interval
        for alpha in (0.05, 0.001)
    )
    assert usual.high == 1.0 and strict.low < usual.low < 1.0


def test_five_skewed_rewards_that_are_alike_are_no_difference_from_a_hundred():
    generator, alarms = np.random.default_rng(7), []
    for _ in range(400):
        rewards = generator.choice([0.0, 0.5, 1.0], p=[0.8, 0.1, 0.1], size=105)
        found = difference_of_groups(rewards[:5], np.arange(5), rewards[5:], np.arange(5, 105), unit="x")
        alarms.append(found.p_value < 0.05)
    assert np.mean(alarms) <= 0.05  # Welch's own variances: 0.34


def test_pass_at_4_of_problems_that_are_nearly_all_solved_holds_its_truth():
    generator, held = np.random.default_rng(8), []
    chances = np.array([1 - math.comb(8 - right, 4) / math.comb(8, 4) for right in range(9)])
    many = generator.beta(0.95, 0.05, 400_000)
    truth = float((1 - (1 - many) ** 4).mean())
    for _ in range(300):
        values = chances[generator.binomial(8, generator.beta(0.95, 0.05, 50))]
        found = interval(values, bounds=(0.0, 1.0))
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93
