"""Each objective against the enumerated world: its gradient is that of what it says it maximises."""

import numpy as np
import pytest
import torch
from torch import Tensor

from klimb.divergences import Divergence
from klimb.losses import DualClip, Mask, Objective, Truncate
from tests.losses.enumerated import BEHAVIOUR, POLICY, REFERENCE, log_of, log_probs
from tests.oracle import world
from tests.oracle.formulas import DIVERGENCES, triangular

LEVELS = ("token", "prefix", "sequence", "sequence-mean")
BETA = 0.37
REFERENCES = {"ref is μ": BEHAVIOUR, "ref is not μ": REFERENCE, "ref is unnormalised": 1.7 * REFERENCE}
TRIANGULAR = Divergence("triangular", f=lambda r: (r - 1) ** 2 / (r + 1), df=lambda r: (r - 1) * (r + 3) / (r + 1) ** 2)
CASES = [(name, name, formula) for name, formula in DIVERGENCES.items()] + [("own", TRIANGULAR, triangular)]


def advantages_for(level: str) -> np.ndarray:
    return world.prefix_rewards(21) if level == "prefix" else world.rewards(22)


def expected_terms(objective: Objective, ref: np.ndarray, level: str) -> tuple[Tensor, Tensor]:
    """E_μ of a sequence's loss, by enumeration, and its gradient with respect to the logits."""
    table = torch.from_numpy(POLICY).requires_grad_()
    out = objective(
        log_probs(table),
        log_of(BEHAVIOUR),
        log_of(ref),
        torch.from_numpy(advantages_for(level)),
        torch.from_numpy(world.MASK),
    )
    mu = torch.from_numpy(world.token_probabilities(BEHAVIOUR).prod(1))
    loss = (mu * out.terms.sum(1)).sum()
    return loss.detach(), torch.autograd.grad(loss, table)[0]


def truth(theta: np.ndarray, ref: np.ndarray, level: str, formula) -> complex:
    reward = advantages_for(level)
    if level == "sequence":
        return world.sequence_objective(theta, ref, reward, BETA, formula)
    if level == "prefix":
        return world.prefix_objective(theta, ref, reward, BETA, formula)
    if level == "token":
        return world.token_objective(theta, ref, BEHAVIOUR, reward, BETA, formula)
    return world.sequence_mean_surrogate(theta, ref, BEHAVIOUR, reward, BETA, formula)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize(("name", "divergence", "formula"), CASES, ids=[case[0] for case in CASES])
def test_gradient_is_that_of_the_stated_objective(name, divergence, formula, estimator, level, reference):
    ref = REFERENCES[reference]
    objective = Objective(divergence=divergence, beta=BETA, estimator=estimator, level=level, clip="none")
    _, actual = expected_terms(objective, ref, level)
    expected = world.gradient(lambda theta: truth(theta, ref, level, formula), POLICY)
    np.testing.assert_allclose(actual.numpy(), -expected, atol=1e-9, rtol=0)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("name", "divergence", "formula"), CASES, ids=[case[0] for case in CASES])
def test_differentiable_loss_has_the_value_of_the_objective_too(name, divergence, formula, level):
    ref = REFERENCES["ref is unnormalised"]
    objective = Objective(divergence=divergence, beta=BETA, estimator="differentiable", level=level, clip="none")
    value, _ = expected_terms(objective, ref, level)
    assert float(value) == pytest.approx(-truth(POLICY.astype(complex), ref, level, formula).real, abs=1e-9)


@pytest.mark.parametrize("clip", [DualClip(1.0, 1e30, 1e30), Truncate(1.0, 1e30), Mask(0.0, 1e30)], ids=str)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_clip_wide_open_changes_nothing(clip, estimator, level):
    settings = {"divergence": "rkl", "beta": BETA, "estimator": estimator, "level": level}
    _, without = expected_terms(Objective(clip="none", **settings), REFERENCE, level)
    _, wide = expected_terms(Objective(clip=clip, **settings), REFERENCE, level)
    torch.testing.assert_close(wide, without, atol=1e-14, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("name", "divergence", "formula"), CASES, ids=[case[0] for case in CASES])
def test_reinforce_and_differentiable_agree_sample_by_sample(name, divergence, formula, level):
    del formula
    log_pi = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_mu = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    log_ref = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    advantages = torch.linspace(-2, 2, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, n < 3] for n in range(6)])
    jacobians = []
    for estimator in ("reinforce", "differentiable"):
        objective = Objective(divergence=divergence, beta=BETA, estimator=estimator, level=level, clip="none")
        rows = torch.autograd.functional.jacobian(
            lambda lp, objective=objective: objective(lp, log_mu, log_ref, advantages, mask).terms.sum(1), log_pi
        )
        jacobians.append(rows)
    torch.testing.assert_close(jacobians[0], jacobians[1], atol=1e-12, rtol=1e-10)
