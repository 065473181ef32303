"""The oracle itself, held against what is known without it."""

import numpy as np
import pytest

from tests.oracle import conversations, world
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


def test_probabilities_of_all_conversations_sum_to_one_and_so_do_those_of_every_point():
    cond, env = world.conditionals(conversations.logits(4)), conversations.environment(5)
    assert conversations.probabilities(cond, env).sum() == pytest.approx(1, abs=1e-12)
    assert len(np.unique(conversations.PREFIXES[conversations.MASK])) == conversations.IS_FIRST.sum()
    # Every row of the table is drawn from, and each of its tokens leads somewhere.
    assert conversations.IS_FIRST.sum() == len(conversations.POINTS) * world.NUM_TOKENS


def test_complex_step_equals_the_policy_gradient_theorem_with_the_environment_as_a_weight():
    table, reward, env = conversations.logits(6), conversations.rewards(7), conversations.environment(8)
    cond = world.conditionals(table)
    by_hand = np.zeros_like(table)
    for i, (first, answer, second) in enumerate(conversations.CONVERSATIONS):
        steps = [(conversations.ROW[first[:t]], token) for t, token in enumerate(first)]
        steps += [(conversations.ROW[first, answer, second[:t]], token) for t, token in enumerate(second)]
        weight = np.prod([cond[step] for step in steps]) * env[i] * reward[i]
        for row, token in steps:
            by_hand[row] += weight * ((np.arange(world.NUM_TOKENS) == token) - cond[row])
    by_steps = world.gradient(
        lambda theta: conversations.objective(theta, cond, env, reward, 0.0, DIVERGENCES["rkl"]), table
    )
    np.testing.assert_allclose(by_steps, by_hand, atol=1e-14)


@pytest.mark.parametrize("name", ["fkl", "rkl", "ufkl", "urkl"])
def test_the_divergence_of_conversations_is_the_mean_over_the_answers_of_that_of_the_drawn_tokens(name):
    """The environment's probabilities cancel: env·ref·f(env·π / env·ref) = env·ref·f(π/ref)."""
    pi, ref = (world.conditionals(conversations.logits(seed)) for seed in (9, 10))
    env = conversations.environment(11)
    nothing = np.zeros(len(env))
    p, q = (conversations.token_probabilities(cond).prod(1) for cond in (pi, ref))
    divergence = -conversations.objective(np.log(pi), ref, env, nothing, 1.0, DIVERGENCES[name])
    assert divergence == pytest.approx((env * DIVERGENCES[name](p, q)).sum(), abs=1e-12)
