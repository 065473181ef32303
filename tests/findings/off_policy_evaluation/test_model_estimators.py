"""Doubly robust estimates with a reward model, on worlds whose value is known."""

from dataclasses import replace

import numpy as np
import pytest

from klimb.findings.off_policy_evaluation import LoggedData, estimate_values, ips, model_direct, model_doubly_robust

VALUES = np.array([0.1, 0.4, 0.9])
"""Of the three answers of every prompt, the chance of a reward of 1."""

MU, PI = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])


def world(*, opinions: np.ndarray, num_prompts: int = 3000, seed: int = 0) -> LoggedData:
    """One logged answer a prompt by μ, and the reward model's opinion of it and of 4 fresh answers by π."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(3, size=num_prompts, p=MU)
    fresh = rng.choice(3, size=(num_prompts, 4), p=PI)
    return LoggedData(
        rewards=(rng.random(num_prompts) < VALUES[answers]).astype(float),
        token_log_w=np.log(PI / MU)[answers][:, None],
        mask=np.ones((num_prompts, 1), dtype=bool),
        prompt_index=np.arange(num_prompts),
        is_cut=np.zeros(num_prompts, dtype=bool),
        model_scores=np.stack([opinions[answers], opinions[fresh].mean(axis=1)], axis=1),
    )


TRUTH = float(PI @ VALUES)


def spread(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


@pytest.mark.parametrize("opinions", [VALUES, 5 - 3 * VALUES, np.array([0.0, 9.0, -4.0])])
def test_it_is_unbiased_whatever_the_model_says_while_the_models_own_word_is_not(opinions: np.ndarray):
    worlds = [world(opinions=opinions, num_prompts=200, seed=seed) for seed in range(300)]
    mean, deviation = spread([model_doubly_robust(each).value for each in worlds])
    assert abs(mean - TRUTH) < 4 * deviation / np.sqrt(300)
    if opinions[0] == 0:
        direct, error = spread([model_direct(each).value for each in worlds])
        assert abs(direct - TRUTH) > 20 * error / np.sqrt(300)


def test_a_model_that_is_right_takes_most_of_the_variance_in_whatever_units():
    worlds = [world(opinions=100 + 7 * VALUES, num_prompts=200, seed=seed) for seed in range(200)]
    _, with_model = spread([model_doubly_robust(each).value for each in worlds])
    _, without = spread([ips(each).value for each in worlds])
    assert with_model < 0.75 * without


def test_wrong_weights_are_made_good_by_a_model_that_is_right():
    """Rewards without noise, and log μ off by a factor of two: ips doubles, the residuals are zero."""
    made = world(opinions=VALUES)
    answers = np.abs(made.model_scores[:, :1] - VALUES).argmin(axis=1)
    wrong = replace(made, rewards=VALUES[answers], token_log_w=made.token_log_w + np.log(2))
    assert ips(wrong).value == pytest.approx(2 * TRUTH, rel=0.05)
    assert model_doubly_robust(wrong).value == pytest.approx(TRUTH, abs=0.02)


def test_a_model_that_says_one_thing_of_all_changes_nothing_but_a_constant():
    made = world(opinions=np.array([3.0, 3.0, 3.0]), num_prompts=50)
    assert np.isfinite(model_doubly_robust(made).value)


def test_they_are_among_the_estimates_where_there_are_scores_and_not_else():
    made = world(opinions=VALUES, num_prompts=200)
    names = [each.name for each in estimate_values(made, num_resamples=100)]
    assert names[-2:] == ["model-direct", "model-doubly-robust"]
    bare = replace(made, model_scores=None)
    assert not any(each.name.startswith("model-") for each in estimate_values(bare, num_resamples=100))
    with pytest.raises(ValueError, match="has no model_scores"):
        model_doubly_robust(bare)
