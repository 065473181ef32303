"""When an estimate, or its interval, cannot be trusted, in plain words.

The limits of an interval are measured: within them it holds the truth in 93 to 98 % (docs/estimates.md). They look at
the weights of whole responses, not clipped, whatever the estimator does with them.
"""

import numpy as np

from klimb.findings.off_policy_evaluation.data import MAX_LOG_W, Array, LoggedData
from klimb.findings.statistics import Ratios, expected_share, pareto_k
from klimb.findings.statistics.means import LARGEST

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


INTERVAL_PROMPTS = 10.0
"""Effective prompts below which there is no interval: its width is then mostly a guess."""


INTERVAL_ESS_SHARE = 0.2
"""Kish's share below which there is no interval; a sample shows more than the true one where large weights are rare."""


INTERVAL_EXPECTED_SHARE = 0.15
"""The same for `expected_share`, which sees large weights that are not in the sample."""


INTERVAL_PROMPT_SHARE = 0.3
"""Share of one prompt in the sum of the weights above which there is no interval."""


LARGEST_PARETO_K = 0.7
"""Tail shape above which means converge too slowly to see (arXiv 1507.02646)."""


LEAST_FOR_PARETO_K = 100
"""Weights below which k̂ is not asked: its tail is then under 20 weights, and half of it prior."""


LEAST_OTHER_PROMPTS = 3
"""Of rewards with two values: prompts that must have each of them."""


INFLUENCE_SHARE = 0.08
"""Of graded rewards: `expected_share` of the prompts' influences below which there is no interval."""


GRADED_EXPECTED_SHARE = 0.5
"""`expected_share` of the weights below which graded rewards have no interval: large weights multiply their skew."""


GRADED_PROMPTS = 100
"""Of graded rewards: prompts below which there is no interval, because their skew is not seen."""


def effective_number(weights: Array) -> float:
    """Kish's (Σw)²/Σw²: that many equal weights have the same variance. Weights over their largest, to stay finite."""
    relative = weights / weights.max()
    return float(relative.sum() ** 2 / (relative**2).sum())


def weight_warnings(data: LoggedData, weights: Array) -> tuple[str, ...]:
    """Return what the weights that an estimator uses say against it."""
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
            f"the evidence is {ess_prompts:.1f} prompts' worth (fewer than {LEAST_ESS_PROMPTS:.0f}): a pass rate "
            "is known to no better than ± 10 points."
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
    low, high = data.bounds or data.seen_range
    excess = max(low - value, value - high)
    if excess <= LARGEST_EXCESS * max(abs(low), abs(high)):
        return ""
    return (
        f"{value:.3g} is outside of the rewards, {low:.3g} to {high:.3g}, and no mean of them is; snips stays inside."
    )


def range_warnings(data: LoggedData, value: float) -> tuple[str, ...]:
    """Return that the value left the rewards' known range, if it did."""
    if data.bounds is None or data.bounds[0] <= value <= data.bounds[1]:
        return ()
    low, high = data.bounds
    return (
        f"{value:.4g} is outside of what rewards can be, {low:g} to {high:g}, because the weights' mean is "
        f"{float(data.weights.mean()):.3g}; its interval ends there. snips stays inside.",
    )


def data_warnings(data: LoggedData) -> tuple[str, ...]:
    """Return what the data say against every estimate from them, those noticed while they were made included."""
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
    sums = np.stack([data.by_prompt(data.weights), data.by_prompt(np.ones(data.num_samples))], axis=1)
    mean = Ratios(sums=sums, num_effective=data.num_prompts)
    return mean.value, mean.standard_error


def _mean_weight_warning(data: LoggedData) -> list[str]:
    mean, error = mean_weight(data)
    if not _is_off(mean, error):
        return []
    return [
        f"the weights' mean is {mean:.3g} ± {error:.2g} and should be 1: log μ is not that of what drew the responses, "
        "μ cannot draw what π can, or so few large weights carry the mean that they are missing here."
    ]


def _is_off(mean: float, error: float) -> bool:
    """Whether a mean weight is not 1; a standard error of nan (one prompt) compares as False."""
    low, high = MEAN_WEIGHT_RANGE
    gap = abs(mean - 1)
    return not low <= mean <= high or (gap > MEAN_WEIGHT_GAP and gap > MEAN_WEIGHT_ERRORS * error)


def reason_against_intervals(data: LoggedData) -> str:
    """Why the weights allow no interval of any estimator that uses them; empty if they do.

    What is seen may look fine where the largest weights are so rare that the sample holds none. Then the spread of the
    log-weights is still seen (`expected_share`), and the weights' mean is below 1.
    """
    by_prompt = data.by_prompt(data.relative_weights)
    prompts, largest = effective_number(by_prompt), float(by_prompt.max() / by_prompt.sum())
    if prompts < INTERVAL_PROMPTS:
        return f"the evidence is {prompts:.1f} prompts' worth, and {INTERVAL_PROMPTS:.0f} are the least for an interval"
    share = effective_number(data.relative_weights) / data.num_samples
    if share < INTERVAL_ESS_SHARE:
        return f"the ESS is {share:.1%} of the responses, and no interval holds below {INTERVAL_ESS_SHARE:.0%}"
    expected = expected_share(data.log_w)
    if expected < INTERVAL_EXPECTED_SHARE:
        return (
            f"the log-weights spread so far that the true ESS may be {expected:.1%} of the responses: the largest "
            f"weights can be missing here (the ESS seen is {share:.1%})"
        )
    if largest > INTERVAL_PROMPT_SHARE:
        return f"one prompt holds {largest:.0%} of all weight"
    return _reason_of_the_tail(data)


def _reason_of_the_tail(data: LoggedData) -> str:
    shape = pareto_k(data.log_w) if data.num_samples >= LEAST_FOR_PARETO_K else None
    if shape is not None and shape > LARGEST_PARETO_K:
        return (
            f"the largest weights have a tail of Pareto k̂ {shape:.2f}, above {LARGEST_PARETO_K}: more of it is missing"
        )
    mean, error = mean_weight(data)
    return f"the weights' mean is {mean:.3g} ± {error:.2g} and should be 1" if _is_off(mean, error) else ""


def reason_of_the_rewards(data: LoggedData, statistic: Ratios) -> str:
    """Why the rewards allow no interval of a statistic; empty if they do."""
    values = np.unique(data.rewards)
    if (largest := float(np.abs(values).max())) > LARGEST:
        return f"rewards up to {largest:.3g} are too large to be squared"
    if len(values) == 1:
        return f"every reward is {values[0]:g}"
    if len(values) == 2:
        having = [len(np.unique(data.prompt_index[data.rewards == value])) for value in values]
        if min(having) < LEAST_OTHER_PROMPTS:
            rare = values[int(np.argmin(having))]
            prompts = f"{min(having)} prompt{'' if min(having) == 1 else 's'}"
            return f"a reward of {rare:g} came in {prompts}, and {LEAST_OTHER_PROMPTS} are the least for an interval"
        return ""
    if data.num_prompts < GRADED_PROMPTS:
        return f"rewards are graded, and {GRADED_PROMPTS} prompts are the least that show their skew"
    expected = expected_share(data.log_w)
    if expected < GRADED_EXPECTED_SHARE:
        return (
            f"rewards are graded, and the true ESS may be {expected:.1%} of the responses: below "
            f"{GRADED_EXPECTED_SHARE:.0%} skewed rewards and large weights together are not seen"
        )
    influences = np.abs(statistic.influences)
    share = expected_share(np.log(influences[influences > 0])) if influences.any() else 1.0
    if share >= INFLUENCE_SHARE:
        return ""
    return (
        f"rewards and weights together are so skewed that {data.num_prompts} prompts may be worth "
        f"{share * data.num_prompts:.1f} even ones ({share:.0%})"
    )
