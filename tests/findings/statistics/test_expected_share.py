"""What weights are worth when their largest may be missing, against closed forms."""

import math

import numpy as np
import pytest
from scipy import special

from klimb.findings.statistics import expected_share, pareto_k
from klimb.findings.statistics.weights import NUM_ERRORS_OF_SPREAD


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_expected_share_of_log_normal_weights_is_their_true_one_but_for_the_margin(share):
    """E[w]²/E[w²] = exp(−σ²) for a log-normal w; the logarithms are the quantiles of a normal distribution."""
    variance, number = -math.log(share), 200_000
    levels = (np.arange(number) + 0.5) / number
    log_w = -variance / 2 + math.sqrt(variance) * special.ndtri(levels)
    expected = math.exp(-variance * (1 + NUM_ERRORS_OF_SPREAD * math.sqrt(2 / number)))
    assert expected_share(log_w) == pytest.approx(expected, rel=0.01)


def test_the_expected_share_sees_rare_tokens_that_come_together_too_seldom_to_be_seen():
    """log w is Poisson: κ₂ = κ₃ = κ₄ = λ·(log a)^r; the largest of few counts are missing, the cumulants are not."""
    rate, ratio = 0.3, 4.0
    counts = np.repeat([0, 1, 2, 3], [741, 222, 33, 4])  # of 1000, as Poisson of mean 0.3 gives
    log_w = counts * math.log(ratio) - rate * (ratio - 1)
    true = math.exp(-rate * (ratio - 1) ** 2)
    w = np.exp(log_w)
    seen = float(w.sum() ** 2 / (w**2).sum()) / 1000
    assert true < expected_share(log_w) < seen


def test_small_weights_lower_the_expected_share_no_more_than_they_would_below_the_median_as_far_as_above_it():
    log_w = np.array([0.0] * 60 + [0.1] * 30 + [-50.0] * 10)
    assert expected_share(log_w) > 0.95
    assert expected_share(np.array([0.4] * 70 + [-50.0] * 30)) == 1.0


def test_the_shape_of_log_normal_weights_rises_with_their_spread():
    levels = (np.arange(5000) + 0.5) / 5000
    shapes = [pareto_k(spread * special.ndtri(levels)) for spread in (0.3, 1.0, 2.0)]
    assert shapes[0] < shapes[1] < shapes[2]


@pytest.mark.parametrize("exponent", [1.25, 2.0, 4.0])
def test_the_shape_of_power_law_weights_is_one_over_their_exponent(exponent):
    """P(w > x) = x^(−a) is a generalised Pareto tail of k = 1/a above any cut."""
    levels = (np.arange(100_000) + 0.5) / 100_000
    assert pareto_k(-np.log(levels) / exponent) == pytest.approx(1 / exponent, abs=0.05)
