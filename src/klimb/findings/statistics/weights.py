"""How many things weights or counts are worth: effective numbers, divergences, the shape of the tail."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


LOG_BOUND = 20.0
"""Log-ratios are bounded to ±20 before exp, as verl does; e^20 is beyond every threshold."""


MIN_TAIL = 5
"""A tail of fewer weights says nothing about its shape."""


def effective_share(log_weights: Numbers) -> float:
    """Kish's effective sample size over the number of weights: (Σw)² / (n·Σw²), in (0, 1], computed in log space."""
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


NUM_ERRORS = 0.75
"""Standard errors (of normal logarithms) by which a third or fourth cumulant must be above 0 to count."""


NUM_ERRORS_OF_SPREAD = 1.5
"""Standard errors that are added to κ₂."""


def expected_share(log_weights: Numbers) -> float:
    """Return what the ESS over the number of weights may truly be, by the spread of the logarithms.

    With E[w] = 1, log E[w²] = κ₂ + κ₃ + 7/12·κ₄ + …, the κ being the cumulants of log w; for a log-normal w it is κ₂
    alone. The largest weights make Kish's number and may be missing in a sample; the spread of the logarithms is seen
    in all of them. On the safe side: κ₂ counts with 1.5 standard errors more, 1.5·√(2/n)·κ₂; κ₃ and κ₄ count as far as
    they are above what they are by chance. Weights further below the median than the largest is above it count as if
    they were as far: small weights cost nothing.
    """
    number = len(log_weights)
    centred = log_weights - np.median(log_weights)
    centred = np.maximum(centred, -centred.max())
    centred = centred - centred.mean()
    if number < 2 or not centred.any():
        return 1.0
    second, third, fourth = (float((centred**power).mean()) for power in (2, 3, 4))
    third -= NUM_ERRORS * np.sqrt(6 / number) * second**1.5
    fourth -= (3 + NUM_ERRORS * np.sqrt(24 / number)) * second**2
    spread = second * (1 + NUM_ERRORS_OF_SPREAD * np.sqrt(2 / number)) + max(third, 0.0) + 7 / 12 * max(fourth, 0.0)
    return float(np.exp(-spread))


def k1(log_w: Numbers) -> float:
    """mean(−log w): unbiased for KL(μ‖π) when the tokens were drawn from μ; may be negative."""
    return float(-log_w.mean())


def k3(log_w: Numbers) -> float:
    """mean(w − 1 − log w): unbiased for KL(μ‖π) when the tokens were drawn from μ; never negative."""
    bounded = log_w.clip(-LOG_BOUND, LOG_BOUND)
    return float((np.expm1(bounded) - bounded).mean())


def chi_square(log_w: Numbers) -> float:
    """mean(w²) − 1: unbiased for χ²(π‖μ) when the tokens were drawn from μ."""
    return float(np.exp(2 * log_w.clip(-LOG_BOUND, LOG_BOUND)).mean() - 1)


def pareto_k(log_weights: Numbers) -> float | None:
    """Shape k̂ of a generalised Pareto distribution fitted to the largest weights; None if they have no tail to fit.

    The tail is what lies above the M-th largest weight, M = min(0.2·n, 3·√n) (arXiv 1507.02646). k̂ > 0.5 says that
    the weights' variance is infinite. None: fewer than 5 weights lie above the cut, or all of them are equal.
    """
    ordered = np.sort(log_weights)
    num_tail = int(np.ceil(min(0.2 * len(ordered), 3 * np.sqrt(len(ordered)))))
    if num_tail >= len(ordered):
        return None
    weights = np.exp(ordered - ordered[-1])
    cut = weights[len(ordered) - num_tail - 1]
    # Below this, exp has no digits left and the exceedances would be rounding.
    exceedances = weights[weights > cut] - cut
    if len(exceedances) < MIN_TAIL or exceedances[-1] < np.finfo(np.float64).eps:
        return None
    return pareto_shape(exceedances)


def pareto_shape(exceedances: Numbers) -> float:
    """Shape k of the generalised Pareto density (1/σ)(1 + k·x/σ)^(−1/k − 1), fitted to values > 0 in ascending order.

    The posterior mean of b = −k/σ over a grid of 30 + √n points weighted by the profile likelihood
    (Zhang and Stephens 2009), then k = mean log(1 − b·x), drawn towards 0.5 with the weight of 10 observations
    (arXiv 1507.02646, appendix C).
    """
    n = len(exceedances)
    num_points = 30 + int(np.sqrt(n))
    quartile = exceedances[int(n / 4 + 0.5) - 1]
    points = 1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))
    b = points / (3 * quartile) + 1 / exceedances[-1]
    b = b[b != 0]
    shapes = np.log1p(-b[:, None] * exceedances).mean(axis=1)
    log_likelihood = n * (np.log(-b / shapes) - shapes - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    b_mean = float((b * weights).sum() / weights.sum())
    shape = float(np.log1p(-b_mean * exceedances).mean())
    return (n * shape + 10 * 0.5) / (n + 10)


def perplexity(counts: Numbers) -> float:
    """exp(entropy) of counts: how many equally frequent kinds are as diverse as these."""
    shares = counts / counts.sum()
    # Rounding must not turn 8 equal prompts into fewer than 8.
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 9)
