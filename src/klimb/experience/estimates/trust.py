"""When an estimate cannot be trusted, in plain words."""

import numpy as np

from klimb.experience.estimates.data import MAX_LOG_W, Array, LoggedData

LEAST_ESS_SHARE = 0.1
LEAST_ESS_PROMPTS = 100.0
"""Below a hundred prompts' worth a 95 % interval of a pass rate is wider than ± 10 points (1.96·√(0.25/100))."""
LARGEST_SHARE = 0.1
LEAST_ESS = 2.0
"""With fewer responses' worth of weight the number is one response's reward."""
LARGEST_EXCESS = 0.05
"""How far beyond the rewards a value may be, as a share of the largest |reward|: the mean weight varies by chance."""
MEAN_WEIGHT_RANGE = (0.5, 2.0)
MEAN_WEIGHT_ERRORS = 4.0
MEAN_WEIGHT_GAP = 0.05
"""The mean weight is told of outside the range, or if it misses 1 by this much and by four standard errors as well."""


def effective_number(weights: Array) -> float:
    """Kish's (Σw)²/Σw²: that many equal weights have the same variance. Weights over their largest, to stay finite."""
    relative = weights / weights.max()
    return float(relative.sum() ** 2 / (relative**2).sum())


def weight_warnings(data: LoggedData, weights: Array) -> tuple[str, ...]:
    """What the weights that an estimator uses say against it."""
    ess, share = effective_number(weights), float(weights.max() / weights.sum())
    ess_prompts = effective_number(data.by_prompt(weights))
    found: list[str] = []
    if ess < LEAST_ESS_SHARE * len(weights):
        found.append(
            f"{len(weights)} responses count like {ess:.1f} (less than {LEAST_ESS_SHARE:.0%}): π is too far from what "
            "drew them."
        )
    if ess_prompts < LEAST_ESS_PROMPTS:
        found.append(
            f"the evidence is {ess_prompts:.1f} prompts' worth (fewer than {LEAST_ESS_PROMPTS:.0f}): the interval is "
            "wide, and holds the truth less often than it says."
        )
    if share > LARGEST_SHARE:
        found.append(f"one response holds {share:.0%} of all weight: the number is mostly its reward.")
    return tuple(found)


def reason_unusable(data: LoggedData, value: float) -> str:
    """Why the value is no estimate at all; empty if it is one.

    Where one response has all the weight, no estimator knows more than its reward; a clipped one then tells of the log
    and not of π. And a mean reward of π lies among the rewards that π can earn: estimators that do not divide by the
    sum of the weights leave that range if the weights' mean is not 1.
    """
    ess = effective_number(data.relative_weights)
    if ess < LEAST_ESS and data.num_samples > 1:
        return f"{data.num_samples} responses count like {ess:.1f}, and one reward is no mean; π is too far from μ."
    low, high = float(data.rewards.min()), float(data.rewards.max())
    excess = max(low - value, value - high)
    if excess <= LARGEST_EXCESS * max(abs(low), abs(high)):
        return ""
    return (
        f"{value:.3g} is outside of the rewards, {low:.3g} to {high:.3g}, and no mean of them is; snips stays inside."
    )


def data_warnings(data: LoggedData) -> tuple[str, ...]:
    """What the data say against every estimate from them, those noticed while they were made included."""
    found = list(data.notes)
    if data.num_prompts < 2:
        found.append("there is one prompt, and intervals come from drawing prompts again: there is no interval.")
    if np.ptp(data.rewards) == 0:
        found.append(f"every reward is {data.rewards[0]:g}: nothing can be learnt of what π would earn.")
    num_bounded = int((np.abs(data.log_w) > MAX_LOG_W).sum())
    if num_bounded:
        found.append(f"{num_bounded} log-weights are outside ±{MAX_LOG_W:g} nats and were bounded there.")
    return (*found, *_mean_weight_warning(data))


def mean_weight(data: LoggedData) -> tuple[float, float]:
    """Mean of w, 1 in expectation when μ is right and can draw all that π can, and its standard error by prompt."""
    w = data.weights
    mean, num = float(w.mean()), data.num_prompts
    if num < 2:
        return mean, float("nan")
    deviations = data.by_prompt(w - mean)
    return mean, float(np.sqrt(num / (num - 1) * (deviations**2).sum()) / data.num_samples)


def _mean_weight_warning(data: LoggedData) -> list[str]:
    mean, error = mean_weight(data)
    low, high = MEAN_WEIGHT_RANGE
    # A standard error of nan (one prompt) compares as False.
    is_off = abs(mean - 1) > MEAN_WEIGHT_GAP and abs(mean - 1) > MEAN_WEIGHT_ERRORS * error
    if low <= mean <= high and not is_off:
        return []
    return [
        f"the weights' mean is {mean:.3g} ± {error:.2g} and should be 1: log μ is not that of what drew the responses, "
        "μ cannot draw what π can, or so few large weights carry the mean that they are missing here."
    ]
