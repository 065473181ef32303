"""Every statistic against a closed form or a value worked out by hand."""

import math

import numpy as np
import pytest

from klimb.findings.statistics import (
    chi_square,
    cluster_half_width,
    effective_share,
    k1,
    k3,
    pareto_k,
    pearson,
    perplexity,
    ranks,
    spearman,
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


def test_half_width_of_independent_values_is_the_textbook_one():
    values = np.random.default_rng(4).normal(size=50)
    expected = 1.959964 * values.std(ddof=1) / math.sqrt(50)
    assert cluster_half_width(values, np.arange(50)) == pytest.approx(expected, rel=1e-6)


def test_repeating_every_answer_adds_no_information():
    values = np.random.default_rng(5).normal(size=50)
    alone = cluster_half_width(values, np.arange(50))
    assert cluster_half_width(np.repeat(values, 8), np.repeat(np.arange(50), 8)) == pytest.approx(alone)


def test_half_width_covers_the_mean_of_other_draws_nineteen_times_in_twenty():
    generator = np.random.default_rng(6)
    clusters = np.repeat(np.arange(64), 8)
    inside = 0
    for _ in range(400):
        rates = generator.beta(1.0, 1.0, 64)
        rewards = (generator.uniform(size=(64, 8)) < rates[:, None]).astype(np.float64).reshape(-1)
        half = cluster_half_width(rewards, clusters)
        assert half is not None
        inside += abs(rewards.mean() - 0.5) <= half
    assert 0.92 <= inside / 400 <= 0.975


def test_balanced_groups_do_not_look_certain():
    # Every prompt has one right and one wrong answer: the clusters alone would give a width of 0.
    values, clusters = np.tile([0.0, 1.0], 50), np.repeat(np.arange(50), 2)
    assert cluster_half_width(values, clusters) == pytest.approx(1.959964 * 0.5 / math.sqrt(99), rel=1e-6)


def test_one_prompt_has_no_interval():
    assert cluster_half_width(numbers(0.0, 1.0, 1.0), np.zeros(3, dtype=np.int64)) is None
