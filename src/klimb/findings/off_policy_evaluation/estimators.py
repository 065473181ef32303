"""The estimators: each is a sum of ratios of sums over responses, so that prompts can be drawn again at no cost.

In every formula n responses y_i with reward r_i answer prompts x_i, w_i = π(y_i|x_i)/μ(y_i|x_i), and a mean or a sum is
over responses. So a prompt counts as often as it has responses. Where each prompt was drawn once and answered equally
often, that is the value of π on the prompts' distribution.

What a response is worth, predicted without its own reward: the baselines and the model of the estimates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from klimb.findings.off_policy_evaluation.data import Array, LoggedData
from klimb.findings.statistics import ratio_sum

NUM_FOLDS = 5


RIDGE = 1.0
"""Penalty on the coefficients of standardised features, in responses' worth of evidence."""


def prompt_baseline(data: LoggedData) -> Array:
    """V̂ of each response's prompt, from the *other* responses alone.

        V̂_i = (Σ of the rewards of the others to the same prompt + m) / (number of those others + 1)

    m is the mean reward of all other prompts. With one prompt there is no m: V̂_i is the mean of the others, 0 if
    there are none. V̂_i does not depend on response i, so E[w_i·V̂_i] = E[V̂_i] where E[w_i] = 1.
    """
    sums = data.by_prompt(data.rewards)
    counts = data.by_prompt(np.ones(data.num_samples))
    num_others = (counts - 1)[data.prompt_index]
    others = sums[data.prompt_index] - data.rewards
    if data.num_prompts == 1:
        return others / np.maximum(num_others, 1)
    elsewhere = (data.rewards.sum() - sums) / (data.num_samples - counts)
    return (others + elsewhere[data.prompt_index]) / (num_others + 1)


def predicted_rewards(data: LoggedData) -> Array:
    """q̂(prompt, response): ridge regression of the reward, fitted on other prompts (5 folds by prompt).

    Features: the prompt's baseline V̂ (`prompt_baseline`), the logarithm of 1 + number of tokens, and whether the
    response was cut off. Standardised by the fold's training responses; the intercept is not penalised. With fewer
    than two prompts the prediction is V̂.
    """
    baseline = prompt_baseline(data)
    if data.num_prompts < 2:
        return baseline
    features = np.stack([baseline, np.log1p(data.num_tokens), data.is_cut.astype(np.float64)], axis=1)
    # Prompts are numbered as they came; taking every fifth spreads any drift over the folds.
    fold = data.prompt_index % min(NUM_FOLDS, data.num_prompts)
    predicted = np.empty_like(data.rewards)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        predicted[held] = _ridge(features[~held], data.rewards[~held], features[held])
    return predicted


def _ridge(features: Array, rewards: Array, new: Array) -> Array:
    """Predictions for `new`: mean + standardised features times (XᵀX + λ)⁻¹Xᵀ(r − mean)."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    x = (features - centre) / scale
    mean = rewards.mean()
    gram: Array = x.T @ x + RIDGE * np.eye(x.shape[1])
    right: Array = x.T @ (rewards - mean)
    coefficients = np.asarray(np.linalg.solve(gram, right), dtype=np.float64)
    return np.asarray(mean + ((new - centre) / scale) @ coefficients, dtype=np.float64)


DEFAULT_CLIP = 10.0


CLIPS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Caps of a sweep."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimator:
    """An estimator on its data: Σ over `ratios` of Σ_i numerator_i / Σ_i denominator_i.

    Attributes:
        name: as tables show it.
        ratios: (numerator, denominator), one number a response each.
        weights: what a response counts, up to a common factor; for the effective sample size.
        note: what to know of it, in one sentence.
        biased: why it is not an estimate of π's value even with endless data, so that no interval goes with it; empty
            if it is one.
    """

    name: str
    ratios: tuple[tuple[Array, Array], ...]
    weights: Array
    note: str = ""
    biased: str = ""

    @property
    def columns(self) -> Array:
        """`[samples, 2·ratios]`: numerator, denominator, numerator, ..."""
        return np.stack([column for ratio in self.ratios for column in ratio], axis=1)

    @property
    def value(self) -> float:
        """The estimate."""
        return float(ratio_sum(self.columns.sum(axis=0, keepdims=True))[0])


def ips(data: LoggedData) -> Estimator:
    """mean(w·r): unbiased when log μ is right and μ can draw all that π can; its variance grows fast with length.

    Source: Horvitz and Thompson 1952; Precup et al. 2000, importance sampling.
    """
    w = data.weights
    return Estimator(name="ips", ratios=((w * data.rewards, _ones(data)),), weights=w)


def clipped_ips(data: LoggedData, *, clip: float = DEFAULT_CLIP) -> Estimator:
    """mean(min(w, clip)·r): less variance, with the bias E_μ[(min(w, clip) − w)·r], towards 0 where r ≥ 0.

    Raises:
        ValueError: the clip is not positive.

    Source: Ionides 2008, truncated importance sampling.
    """
    if not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}; weights above it count as it")
    w = np.minimum(data.weights, clip)
    share = float((data.weights > clip).mean())
    note = f"{share:.1%} of the weights are above {clip:g}; what they are cut by is bias." if share else ""
    biased = "weights are cut, and what that takes away is not in the data's spread" if share else ""
    ratios = ((w * data.rewards, _ones(data)),)
    return Estimator(name=f"clipped-ips({clip:g})", ratios=ratios, weights=w, note=note, biased=biased)


def snips(data: LoggedData) -> Estimator:
    """Σ(w·r)/Σw: within the range of the rewards; a bias of order 1/n that vanishes with more data.

    Source: Swaminathan and Joachims 2015.
    """
    w = data.relative_weights
    return Estimator(name="snips", ratios=((w * data.rewards, w),), weights=w)


def per_decision(data: LoggedData) -> Estimator:
    """mean(Σ_t w_{1..t}·r_t): a reward is weighted by the tokens up to it alone; unbiased as IPS is.

    With one reward at the end of a response every w_{1..t} that counts is the whole response's: then it is IPS.

    Source: Precup et al. 2000, per-decision importance sampling.
    """
    if data.token_rewards is None:
        note = "the same as ips: each reward belongs to a whole response; only rewards by token make it differ."
        total = data.weights * data.rewards
    else:
        note = ""
        total = (data.prefix_weights * np.where(data.mask, data.token_rewards, 0.0)).sum(axis=1)
    return Estimator(name="per-decision", ratios=((total, _ones(data)),), weights=data.weights, note=note)


def direct(data: LoggedData) -> Estimator:
    """Σ(w·q̂)/Σw with the reward model's prediction q̂ (`predicted_rewards`) in the place of the reward.

    The direct method wants E_π[q̂ | x]. Without answers drawn from π that expectation is itself taken over the logged
    answers, self-normalised. It is biased by what the model gets wrong; more data does not mend that, so it has no
    interval.
    """
    w = data.relative_weights
    note = "a reward model's opinion, to compare with: it is biased by what the model gets wrong."
    biased = "what the reward model gets wrong is not in the data's spread"
    return Estimator(name="direct", ratios=((w * predicted_rewards(data), w),), weights=w, note=note, biased=biased)


def doubly_robust(data: LoggedData) -> Estimator:
    """mean(V̂ + w·(r − V̂)), with V̂ (`prompt_baseline`) a function of the prompt and the other responses alone.

    A model of (prompt, response) would need its expectation under π, hence answers of π. A baseline of the prompt
    needs none: the estimate is unbiased when w is right, whatever V̂ is, and has less variance than IPS when V̂ is near.
    It is not robust to a wrong w.

    Source: Dudík et al. 2011, equation 3, with a reward model that ignores the action.
    """
    w, baseline = data.weights, prompt_baseline(data)
    terms = baseline + w * (data.rewards - baseline)
    return Estimator(name="doubly-robust", ratios=((terms, _ones(data)),), weights=w)


def self_normalised_doubly_robust(data: LoggedData) -> Estimator:
    """mean(V̂) + Σ(w·(r − V̂))/Σw: the same with the weights' sum as the denominator; biased by order 1/n."""
    w, baseline = data.relative_weights, prompt_baseline(data)
    ratios = ((baseline, _ones(data)), (w * (data.rewards - baseline), w))
    return Estimator(name="sn-doubly-robust", ratios=ratios, weights=w)


def model_rewards(data: LoggedData) -> tuple[Array, Array]:
    """Return q̂ of each response, and its mean over fresh responses of π to the same prompt, by the reward model.

    q̂ = a + b·score, with a and b by least squares on the responses to other prompts (5 folds by prompt). So neither
    hangs on the response's own reward, and the mean of q̂ over fresh responses is a + b·(their mean score).

    Raises:
        ValueError: there are no scores of a reward model.
    """
    if data.model_scores is None:
        raise ValueError("the data has no model_scores; give logged_data those of a reward model")
    fold = data.prompt_index % min(NUM_FOLDS, data.num_prompts)
    logged, fresh = np.empty_like(data.rewards), np.empty_like(data.rewards)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        a, b = _line(data.model_scores[~held, 0], data.rewards[~held])
        logged[held], fresh[held] = (a + b * data.model_scores[held].T).tolist()
    return logged, fresh


def _line(scores: Array, rewards: Array) -> tuple[float, float]:
    """Return intercept and slope; 0 and 0 without responses, no slope where all scores are equal."""
    if not len(scores):
        return 0.0, 0.0
    spread = float(((scores - scores.mean()) ** 2).sum())
    slope = float(((scores - scores.mean()) * rewards).sum()) / spread if spread > 0 else 0.0
    return float(rewards.mean()) - slope * float(scores.mean()), slope


def model_doubly_robust(data: LoggedData) -> Estimator:
    """mean(q̄ + w·(r − q̂)), q̂ a reward model's, and q̄ its mean over fresh responses of π to the prompt.

    Unbiased when w is right, whatever q̂ is; and, up to what q̂ misses, where q̂ is right, whatever w is. Its variance
    is that of the rewards that q̂ does not foresee.

    Source: Dudík et al. 2011, equation 3, with E_π[q̂ | x] by fresh responses.
    """
    w, (logged, fresh) = data.weights, model_rewards(data)
    terms = fresh + w * (data.rewards - logged)
    return Estimator(name="model-doubly-robust", ratios=((terms, _ones(data)),), weights=w)


def model_direct(data: LoggedData) -> Estimator:
    """mean(q̄): what a reward model says of fresh responses of π, in the rewards' units. No weights are in it."""
    _, fresh = model_rewards(data)
    note = "a reward model's opinion of fresh answers: it is biased by what the model gets wrong."
    biased = "what the reward model gets wrong is not in the data's spread"
    return Estimator(name="model-direct", ratios=((fresh, _ones(data)),), weights=_ones(data), note=note, biased=biased)


MODEL_ESTIMATORS: Mapping[str, Callable[[LoggedData], Estimator]] = {
    "model-direct": model_direct,
    "model-doubly-robust": model_doubly_robust,
}
"""Those that need the scores of a reward model."""


ESTIMATORS: Mapping[str, Callable[[LoggedData], Estimator]] = {
    "direct": direct,
    "ips": ips,
    "clipped-ips": clipped_ips,
    "per-decision": per_decision,
    "snips": snips,
    "doubly-robust": doubly_robust,
    "sn-doubly-robust": self_normalised_doubly_robust,
}
"""Name -> what makes it from data; `clipped_ips` with its default clip."""


def _ones(data: LoggedData) -> Array:
    return np.ones(data.num_samples)
