"""The theorems at a policy's temperature τ: π and ref are softmax(logits / τ), the gradient is over the logits."""

from functools import partial

import numpy as np
import pytest
import torch

from klimb.losses import Corrected, DecoupledCorrection, DualClip, Objective
from tests.losses.enumerated import BEHAVIOUR, POLICY, log_of, log_probs
from tests.losses.test_exact_gradients import BETA, CASES, advantages_for, truth
from tests.oracle import world

LEVELS = ("token", "prefix", "sequence")
TEMPERATURES = (0.7, 1.3)


def reference_at(temperature: float) -> np.ndarray:
    return world.conditionals(world.logits(13) / temperature)


def gradient_over_logits(loss, ref: np.ndarray, mu: np.ndarray, level: str, temperature: float) -> np.ndarray:
    """∂/∂logits of E_μ of a sequence's loss, by enumeration, for a policy of that temperature."""
    table = torch.from_numpy(POLICY.copy()).requires_grad_()
    advantages = torch.from_numpy(advantages_for(level))
    out = loss(log_probs(table / temperature), log_of(mu), log_of(ref), advantages, torch.from_numpy(world.MASK))
    weights = torch.from_numpy(world.token_probabilities(mu).prod(1))
    return torch.autograd.grad((weights * out.terms.sum(1)).sum(), table)[0].numpy()


def objective_at(temperature: float, ref: np.ndarray, level: str, formula, table: np.ndarray) -> complex:
    return truth(table / temperature, ref, level, formula)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize(("name", "divergence", "formula"), CASES, ids=[case[0] for case in CASES])
def test_off_policy_gradient_is_that_of_the_objective_at_the_policys_temperature(
    name, divergence, formula, estimator, level, temperature
):
    ref = reference_at(temperature)
    loss = Objective(divergence=divergence, beta=BETA, estimator=estimator, level=level, clip="none")
    actual = gradient_over_logits(loss, ref, BEHAVIOUR, level, temperature)
    expected = world.gradient(partial(objective_at, temperature, ref, level, formula), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-9, rtol=0)
    at_one = world.gradient(partial(objective_at, 1.0, ref, level, formula), POLICY)
    assert np.abs(expected - at_one).max() > 1e-2, "a policy of temperature 1 has another objective"


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("level", LEVELS)
def test_clipped_gradient_before_the_first_step_is_exact_where_the_policy_itself_drew(level, temperature):
    _, divergence, formula = next(case for case in CASES if case[0] == "urkl")
    ref, drawn = reference_at(temperature), world.conditionals(POLICY / temperature)
    loss = Objective(divergence=divergence, beta=BETA, level=level, clip=DualClip())
    actual = gradient_over_logits(loss, ref, drawn, level, temperature)
    if level == "token":
        expected = world.gradient(
            lambda table: world.token_objective(table / temperature, ref, drawn, advantages_for(level), BETA, formula),
            POLICY,
        )
    else:
        expected = world.gradient(partial(objective_at, temperature, ref, level, formula), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-9, rtol=0)


def noise_gradient(loss, mu: np.ndarray, **inputs) -> np.ndarray:
    """The mean gradient over advantages of ±1 that are independent of the response: no signal."""
    total = np.zeros_like(POLICY)
    for sign in (1.0, -1.0):
        table = torch.from_numpy(POLICY.copy()).requires_grad_()
        log_pi = log_probs(table)
        prox = {"log_prox": log_pi.detach()} if inputs.get("centred") else {}
        advantages = torch.full((len(world.SEQUENCES),), sign, dtype=torch.float64)
        out = loss(log_pi, log_of(mu), log_pi.detach(), advantages, torch.from_numpy(world.MASK), **prox)
        weights = torch.from_numpy(world.token_probabilities(mu).prod(1))
        total += torch.autograd.grad((weights * out.terms.sum(1)).sum(), table)[0].numpy() / 2
    return total


@pytest.mark.parametrize("sampled_at", TEMPERATURES)
def test_noise_moves_a_clip_of_pi_over_mu_where_the_policy_did_not_draw_and_a_centred_one_not_at_all(sampled_at):
    mu = world.conditionals(POLICY / sampled_at)
    clipped = Objective(beta=0.0, clip=DualClip(low=0.05, high=0.05))
    drift = noise_gradient(clipped, mu)
    assert np.abs(drift).max() > 1e-2
    centred = Corrected(objective=clipped, correction=DecoupledCorrection())
    np.testing.assert_allclose(noise_gradient(centred, mu, centred=True), 0, atol=1e-12)
    own = noise_gradient(clipped, world.conditionals(POLICY))
    np.testing.assert_allclose(own, 0, atol=1e-12)
    # The step −drift makes what is likely likelier below 1, and less likely above.
    likeliest = POLICY.argmax(axis=1)
    push = -drift[np.arange(len(POLICY)), likeliest].sum()
    assert push > 0 if sampled_at < 1 else push < 0
