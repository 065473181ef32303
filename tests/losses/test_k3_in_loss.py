"""The field's open wound: k2 and k3 added to the loss have the value or the gradient of a divergence, never both."""

import numpy as np
import pytest
import torch

from klimb.losses import K2InLoss, K3InLoss, Objective
from tests.losses.enumerated import BEHAVIOUR, POLICY, REFERENCE, log_of, log_probs
from tests.oracle import world
from tests.oracle.formulas import DIVERGENCES


def value_and_gradient(penalty, behaviour: np.ndarray) -> tuple[float, np.ndarray]:
    """E_μ of the penalty summed over a sequence's tokens, and its gradient with respect to the logits."""
    table = torch.from_numpy(POLICY).requires_grad_()
    zero = torch.zeros(len(world.SEQUENCES), dtype=torch.float64)
    objective = Objective(divergence=penalty, beta=1.0, estimator="differentiable", clip="none")
    out = objective(log_probs(table), log_of(behaviour), log_of(REFERENCE), zero, torch.from_numpy(world.MASK))
    mu = torch.from_numpy(world.token_probabilities(behaviour).prod(1))
    loss = (mu * out.terms.sum(1)).sum()
    return float(loss.detach()), torch.autograd.grad(loss, table)[0].numpy()


def token_divergence(theta: np.ndarray, behaviour: np.ndarray, name: str) -> complex:
    """Σ over prefixes visited by μ of the divergence of the next-token distributions."""
    no_reward = np.zeros(len(world.SEQUENCES))
    return -world.token_objective(theta, REFERENCE, behaviour, no_reward, 1.0, DIVERGENCES[name])


def test_on_policy_k3_in_the_loss_has_the_value_of_reverse_kl():
    on_policy = world.conditionals(POLICY)
    value, _ = value_and_gradient(K3InLoss(), on_policy)
    assert value == pytest.approx(token_divergence(POLICY.astype(complex), on_policy, "rkl").real, abs=1e-12)


def test_on_policy_k3_in_the_loss_has_the_gradient_of_forward_kl_and_not_of_reverse_kl():
    on_policy = world.conditionals(POLICY)
    _, actual = value_and_gradient(K3InLoss(), on_policy)
    forward, reverse = (
        world.gradient(lambda theta, name=name: token_divergence(theta, on_policy, name), POLICY)
        for name in ("fkl", "rkl")
    )
    np.testing.assert_allclose(actual, forward, atol=1e-12)
    assert np.abs(actual - reverse).max() > 0.05


def test_off_policy_k3_in_the_loss_is_neither_while_urkl_stays_reverse_kl():
    reverse, forward = (
        world.gradient(lambda theta, name=name: token_divergence(theta, BEHAVIOUR, name), POLICY)
        for name in ("rkl", "fkl")
    )
    _, unweighted = value_and_gradient(K3InLoss(), BEHAVIOUR)
    _, weighted = value_and_gradient("urkl", BEHAVIOUR)
    np.testing.assert_allclose(weighted, reverse, atol=1e-9)
    assert np.abs(unweighted - reverse).max() > 0.05
    assert np.abs(unweighted - forward).max() > 0.05


def test_on_policy_k2_in_the_loss_has_the_gradient_of_reverse_kl_and_not_its_value():
    on_policy = world.conditionals(POLICY)
    value, actual = value_and_gradient(K2InLoss(), on_policy)
    reverse = world.gradient(lambda theta: token_divergence(theta, on_policy, "rkl"), POLICY)
    np.testing.assert_allclose(actual, reverse, atol=1e-12)
    assert abs(value - token_divergence(POLICY.astype(complex), on_policy, "rkl").real) > 0.01


def test_off_policy_k2_in_the_loss_is_not_reverse_kl():
    reverse = world.gradient(lambda theta: token_divergence(theta, BEHAVIOUR, "rkl"), POLICY)
    _, unweighted = value_and_gradient(K2InLoss(), BEHAVIOUR)
    assert np.abs(unweighted - reverse).max() > 0.05


@pytest.mark.parametrize("penalty", [K2InLoss(), K3InLoss()], ids=lambda penalty: penalty.name)
def test_its_slope_is_the_derivative_of_its_value(penalty):
    log_pi = torch.linspace(-3, 2, 9, dtype=torch.float64, requires_grad=True)
    one = torch.ones_like(log_pi)
    derivative = torch.autograd.grad(penalty.perspective(one, one, log_pi).sum(), log_pi)[0]
    torch.testing.assert_close(derivative, penalty.slope(one, one, log_pi.detach()))
