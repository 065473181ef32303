"""What a response is worth, predicted without its own reward: the baselines and the model of the estimates."""

import numpy as np

from klimb.experience.estimates.data import Array, LoggedData

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
