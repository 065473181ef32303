"""Every statistic against a closed form or a value worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from klimb.findings.statistics import (
    chi_square,
    correlation,
    effective_share,
    k1,
    k3,
    mean_reward,
    pareto_k,
    pearson,
    perplexity,
    ranks,
    share_ends,
    spearman,
    units_for_any_share,
)
from klimb.findings.statistics.weights import pareto_shape


def numbers(*values: float):
    return np.array(values, dtype=np.float64)


def test_equal_weights_are_all_effective():
    assert effective_share(numbers(-3.0, -3.0, -3.0)) == 1.0


def test_effective_share_by_hand():
    # (1 + 3)² / (2·(1 + 9)) = 0.8
    assert effective_share(np.log(numbers(1.0, 3.0))) == pytest.approx(0.8)


def test_effective_share_of_weights_that_no_float_holds():
    assert effective_share(numbers(2000.0, 2000.0 + math.log(3.0))) == pytest.approx(0.8)


def test_effective_share_of_log_normal_weights_is_exp_of_minus_the_variance():
    log_w = np.random.default_rng(0).normal(0.0, 0.5, 400_000)
    assert effective_share(log_w) == pytest.approx(math.exp(-0.25), rel=0.01)


def test_divergences_by_hand():
    log_w = np.log(numbers(0.5, 2.0))
    assert k1(log_w) == pytest.approx(0.0)
    assert k3(log_w) == pytest.approx(0.25)  # ((0.5 − 1) + (2 − 1)) / 2 − 0
    assert chi_square(log_w) == pytest.approx(1.125)  # (0.25 + 4) / 2 − 1


def test_divergences_equal_the_sums_over_two_small_distributions():
    mu, pi = numbers(0.5, 0.25, 0.25), numbers(0.25, 0.25, 0.5)
    log_w = np.log((pi / mu)[[0, 0, 1, 2]])  # each outcome as often as under mu
    kl = float((mu * np.log(mu / pi)).sum())
    assert k1(log_w) == pytest.approx(kl)
    assert k3(log_w) == pytest.approx(kl)
    assert chi_square(log_w) == pytest.approx(float((pi**2 / mu).sum() - 1))


def test_huge_log_ratios_stay_finite():
    assert math.isfinite(k3(numbers(900.0, -900.0)))
    assert math.isfinite(chi_square(numbers(900.0)))


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8, 1.2])
def test_the_fit_finds_the_shape_of_exact_pareto_quantiles(shape: float):
    levels = (np.arange(4000) + 0.5) / 4000
    exceedances = 3.0 * ((1 - levels) ** -shape - 1) / shape
    assert pareto_shape(exceedances) == pytest.approx(shape, abs=0.03)


def test_the_fit_of_an_exponential_has_shape_zero():
    levels = (np.arange(4000) + 0.5) / 4000
    assert pareto_shape(-np.log1p(-levels)) == pytest.approx(0.0, abs=0.03)


def test_the_fit_does_not_depend_on_the_unit():
    exceedances = np.sort(np.random.default_rng(1).pareto(2.0, 300))
    assert pareto_shape(1000 * exceedances) == pytest.approx(pareto_shape(exceedances))


def test_few_observations_draw_the_shape_towards_one_half():
    levels = (np.arange(10) + 0.5) / 10
    exponential = -np.log1p(-levels)
    assert 0.1 < pareto_shape(exponential) < 0.4  # 10 observations of shape 0 against 10 of 0.5


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.0])
def test_k_of_weights_is_the_shape_of_their_tail(shape: float):
    weights = np.random.default_rng(2).uniform(size=200_000) ** -shape  # P(w > x) = x^(−1/shape)
    assert pareto_k(np.log(weights)) == pytest.approx(shape, abs=0.07)


def test_k_does_not_change_with_the_scale_of_the_weights():
    log_w = np.random.default_rng(3).normal(0.0, 1.0, 5000)
    assert pareto_k(log_w + 700.0) == pytest.approx(pareto_k(log_w))


@pytest.mark.parametrize("log_w", [np.zeros(1000), np.zeros(3), numbers(0.0), np.log(numbers(1.0, 2.0, 3.0))])
def test_weights_without_a_tail_have_no_k(log_w: np.ndarray):
    assert pareto_k(log_w) is None


def test_correlations_by_hand():
    x, y = numbers(1.0, 2.0, 3.0, 4.0), numbers(1.0, 4.0, 9.0, 16.0)
    assert spearman(x, y) == pytest.approx(1.0)
    # Σ(x − 2.5)(y − 7.5) = 25, Σ(x − 2.5)² = 5, Σ(y − 7.5)² = 129
    assert pearson(x, y) == pytest.approx(25 / math.sqrt(5 * 129))
    assert spearman(x, -y) == pytest.approx(-1.0)


def test_a_constant_has_no_correlation():
    assert pearson(numbers(1.0, 2.0, 3.0), numbers(5.0, 5.0, 5.0)) is None


def test_equal_values_share_their_mean_rank():
    assert ranks(numbers(30.0, 10.0, 30.0, 20.0)).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_effective_number_of_equal_counts_is_their_number():
    assert perplexity(numbers(7.0, 7.0, 7.0)) == pytest.approx(3.0)


def test_effective_number_of_uneven_counts_by_hand():
    # exp(−0.75·log 0.75 − 0.25·log 0.25)
    assert perplexity(numbers(3.0, 1.0)) == pytest.approx(4 / 3**0.75)


def test_the_interval_of_one_value_a_prompt_is_students():
    values = np.linspace(-1.0, 2.0, 50)  # symmetric: nothing is added for skewness
    expected = stats.t.ppf(0.975, 49) * stats.sem(values)
    assert mean_reward(values, np.arange(50), unit="prompt").interval.half_width == pytest.approx(expected)


def test_repeating_every_answer_adds_no_information():
    values = np.random.default_rng(5).normal(size=50)
    alone = mean_reward(values, np.arange(50), unit="prompt").interval
    again = mean_reward(np.repeat(values, 8), np.repeat(np.arange(50), 8), unit="prompt").interval
    assert (again.low, again.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize("right", [1.0, 2.5])
def test_balanced_groups_do_not_look_certain(right: float):
    # Every prompt has one right and one wrong answer: by prompts alone the width would be 0.
    values, prompts = np.tile([0.0, right], 50), np.repeat(np.arange(50), 2)
    expected = right * stats.norm.ppf(0.975) * 0.5 / math.sqrt(100)
    assert mean_reward(values, prompts, unit="prompt").interval.half_width == pytest.approx(expected, rel=0.03)


def test_balanced_graded_rewards_are_no_surer_than_independent_ones():
    values, prompts = np.tile([0.0, 0.5, 1.0], 50), np.repeat(np.arange(50), 3)
    expected = stats.t.ppf(0.975, 49) * stats.sem(values)  # the spread of 150 answers, the freedom of 50 prompts
    assert mean_reward(values, prompts, unit="prompt").interval.half_width == pytest.approx(expected)


def test_any_two_values_are_a_share_moved_and_stretched():
    right = np.random.default_rng(8).uniform(size=60) < 0.9
    prompts = np.repeat(np.arange(20), 3)
    share = mean_reward(right.astype(np.float64), prompts, unit="prompt").interval
    signs = mean_reward(np.where(right, 1.0, -1.0), prompts, unit="prompt").interval
    assert (signs.value, signs.low, signs.high) == pytest.approx(
        [2 * end - 1 for end in (share.value, share.low, share.high)]
    )


@pytest.mark.parametrize(
    ("values", "prompts"), [(numbers(0.0, 1.0, 1.0, 0.0), np.arange(4)), (np.full(9, 0.3), np.arange(9))]
)
def test_without_enough_to_go_by_there_is_no_interval_and_no_forecast(values: np.ndarray, prompts: np.ndarray):
    found = mean_reward(values, prompts, unit="prompt")
    assert not found.interval.is_known
    assert found.interval.reason
    assert found.units_for(0.1) is None


def test_a_forecast_of_graded_rewards_is_the_quantile_of_f():
    values = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    needed = mean_reward(values, np.arange(12), unit="prompt").units_for(0.3)

    def half(number: int) -> float:
        less = 1 + max(stats.kurtosis(values), 0.0) / 2
        more = stats.f.ppf(0.9, (number - 1) / less, 11 / less)
        return float(stats.t.ppf(0.975, number - 1) * values.std(ddof=1) * math.sqrt(more / number))

    assert half(needed) <= 0.3 < half(needed - 1)


def test_any_share_is_known_after_as_many_as_one_half_is():
    needed = units_for_any_share(0.1)
    assert half_width(0.5, needed) <= 0.1 < half_width(0.5, needed - 1)


def half_width(share: float, number: float) -> float:
    low, high = share_ends(share, number)
    return (high - low) / 2


def test_a_forecast_from_no_failure_at_all_does_not_trust_it():
    found = mean_reward(np.ones(10), np.arange(10), unit="prompt")
    needed = found.units_for(0.05)
    assert needed is not None
    assert half_width(1.0, needed) < 0.05  # more than if the share stayed 1


def test_more_answers_of_the_same_kind_ask_for_fewer_prompts():
    generator = np.random.default_rng(11)
    one = (generator.uniform(size=30) < 0.5).astype(np.float64)
    many = (generator.uniform(size=240) < 0.5).astype(np.float64)
    few = mean_reward(many, np.repeat(np.arange(30), 8), unit="prompt").units_for(0.05)
    assert few < mean_reward(one, np.arange(30), unit="prompt").units_for(0.05) / 2


def test_the_interval_of_a_correlation_is_that_of_the_jackknife():
    generator = np.random.default_rng(12)
    x = generator.normal(size=15)
    y = x + generator.normal(size=15)
    found = correlation(x, y, np.arange(15), unit="prompt").interval
    z = np.arctanh([np.corrcoef(np.delete(x, row), np.delete(y, row))[0, 1] for row in range(15)])
    reach = stats.t.ppf(0.975, 14) * math.sqrt(14 / 15 * ((z - z.mean()) ** 2).sum())
    middle = np.arctanh(np.corrcoef(x, y)[0, 1])
    assert (found.low, found.high) == pytest.approx((math.tanh(middle - reach), math.tanh(middle + reach)))


def test_repeated_pairs_make_no_correlation_surer():
    x, y = np.random.default_rng(13).normal(size=(2, 12))
    alone = correlation(x, y, np.arange(12), unit="prompt", of_ranks=True)
    again = correlation(np.repeat(x, 5), np.repeat(y, 5), np.repeat(np.arange(12), 5), unit="prompt", of_ranks=True)
    assert (again.p_value, again.interval.low) == pytest.approx((alone.p_value, alone.interval.low))


def test_a_line_has_a_p_but_no_interval():
    x = np.arange(10.0)
    found = correlation(x, 2 * x, np.arange(10), unit="prompt")
    assert not found.interval.is_known
    # s = (x − x̄)²: (Σ s)²/(C·Σ s²), and Student's t of it.
    sums = (x - 4.5) ** 2
    share = sums.sum() ** 2 / (10 * (sums**2).sum())
    assert found.p_value == pytest.approx(2 * stats.t.sf(math.sqrt(9 * share / (1 - share)), 9))


def test_a_correlation_that_hangs_on_one_prompt_has_no_interval():
    found = correlation(np.arange(9.0), numbers(1.0, *[0.0] * 8), np.arange(9), unit="prompt")
    assert math.isnan(found.p_value)
    assert "without one prompt" in found.interval.reason


def test_one_prompt_with_most_of_the_answers_is_not_many():
    prompts = np.concatenate([np.zeros(300, dtype=np.int64), np.arange(1, 20)])
    found = mean_reward((np.arange(319) % 2).astype(np.float64), prompts, unit="prompt").interval
    assert not found.is_known
    assert f"20 prompts so unevenly spread that they are worth {319**2 / (300**2 + 19):.1f}" in found.reason
