"""The oracle itself, held against what is known without it."""

import numpy as np
import pytest

from tests.oracle import world
from tests.oracle.formulas import DIVERGENCES


def test_probabilities_of_all_sequences_sum_to_one():
    pi = world.token_probabilities(world.conditionals(world.logits(1))).prod(1)
    assert pi.sum() == pytest.approx(1, abs=1e-12)


def test_complex_step_equals_the_policy_gradient_theorem():
    table, reward = world.logits(2), world.rewards(3)
    cond = world.conditionals(table)
    pi = world.token_probabilities(cond).prod(1)
    by_hand = np.zeros_like(table)
    for i, y in enumerate(world.SEQUENCES):
        for t, token in enumerate(y):
            row = world.ROW[y[:t]]
            by_hand[row] += pi[i] * reward[i] * ((np.arange(world.NUM_TOKENS) == token) - cond[row])
    by_steps = world.gradient(
        lambda theta: world.sequence_objective(theta, cond, reward, 0.0, DIVERGENCES["rkl"]), table
    )
    np.testing.assert_allclose(by_steps, by_hand, atol=1e-14)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_of_a_distribution_from_itself_is_zero_and_otherwise_positive(name):
    p = np.array([0.2, 0.5, 0.3])
    q = np.array([0.6, 0.1, 0.3])
    assert DIVERGENCES[name](p, p).sum() == pytest.approx(0, abs=1e-15)
    assert DIVERGENCES[name](p, q).sum() > 0.01
