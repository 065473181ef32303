"""Samples drawn with top-p in the enumerated world: what ratios on the recorded support estimate, and plain ones not.

μ is the policy of another table, cut off at top-p. Log-probabilities of π and ref come from klimb's own head: the
hidden state of a prefix is its one-hot, so that the weight of the output layer is the table of logits.
"""

from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from klimb.experience.support import Support
from klimb.losses import Objective
from klimb.policies import token_log_probs
from tests.losses.enumerated import BEHAVIOUR, POLICY, REFERENCE
from tests.oracle import truncation, world
from tests.oracle.formulas import DIVERGENCES

TOP_P, BETA = 0.8, 0.37
KEPT = truncation.top_p_sets(BEHAVIOUR, TOP_P)
MU = truncation.renormalised(BEHAVIOUR, KEPT)
DRAWN = [world.SEQUENCES[i] for i in truncation.drawable(KEPT)]
REWARD = world.rewards(22)
MASK = torch.tensor([[t < len(y) for t in range(world.MAX_LENGTH)] for y in DRAWN])
PROBABILITY = torch.tensor([float(truncation.probability(MU, y)) for y in DRAWN], dtype=torch.float64)


def scores(table: Tensor, *, on_support: bool = True) -> Tensor:
    """Log-probability of the tokens of each sequence that μ can draw [sequences, time]; NaN behind its end."""
    rows = torch.tensor([world.ROW[y[:t]] for y in DRAWN for t in range(len(y))])
    sets = [np.flatnonzero(KEPT[row]).tolist() for row in rows.tolist()]
    support = Support(ids=torch.tensor([*chain(*sets)]), sizes=torch.tensor([len(kept) for kept in sets]))
    found = token_log_probs(
        torch.eye(len(world.PREFIXES), dtype=torch.float64)[rows],
        table.t(),
        torch.tensor([*chain(*DRAWN)]),
        support=support if on_support else None,
    )
    return torch.full(MASK.shape, float("nan"), dtype=torch.float64).masked_scatter(MASK, found.log_pi)


LOG_MU = scores(torch.from_numpy(np.log(BEHAVIOUR)))
LOG_REF = scores(torch.from_numpy(np.log(REFERENCE)))


def mean_weights(log_pi: Tensor) -> np.ndarray:
    """E_μ[w] after each prefix that μ reaches and where something is cut off."""
    w = (log_pi - LOG_MU).exp()
    means = []
    for prefix, row in world.ROW.items():
        here = [i for i, y in enumerate(DRAWN) if len(y) > len(prefix) and y[: len(prefix)] == prefix]
        if here and not KEPT[row].all():
            share = PROBABILITY[here]
            means.append(float((share * w[here, len(prefix)]).sum() / share.sum()))
    return np.array(means)


def expected_loss(table: Tensor, objective: Objective, *, on_support: bool = True) -> Tensor:
    """E_μ of a sequence's loss, by enumeration."""
    reward = torch.from_numpy(REWARD[truncation.drawable(KEPT)])
    out = objective(scores(table, on_support=on_support), LOG_MU, LOG_REF, reward, MASK)
    return (PROBABILITY * out.terms.sum(1)).sum()


def truth(theta: np.ndarray, level: str, formula) -> complex:
    if level == "sequence":
        return truncation.sequence_objective(theta, REFERENCE, KEPT, REWARD, BETA, formula)
    return truncation.token_objective(theta, REFERENCE, MU, KEPT, REWARD, BETA, formula)


def test_mu_is_what_the_head_says_on_the_recorded_support():
    expected = [[np.log(MU[world.ROW[y[:t]], token]) for t, token in enumerate(y)] for y in DRAWN]
    np.testing.assert_allclose(LOG_MU[MASK].numpy(), [*chain(*expected)], atol=1e-14, rtol=0)
    assert len(DRAWN) < len(world.SEQUENCES)


def test_mean_of_w_is_one_at_every_place_on_the_recorded_support_and_below_one_without_it():
    table = torch.from_numpy(POLICY)
    on_support, plain = mean_weights(scores(table)), mean_weights(scores(table, on_support=False))
    np.testing.assert_allclose(on_support, 1, atol=1e-14, rtol=0)
    # π has mass where μ has none, and what is left is less than all.
    assert len(plain) >= 3
    assert (plain < 0.95).all()


def test_the_estimate_is_the_enumerated_value_on_the_recorded_support_and_another_without_it():
    table, reward = torch.from_numpy(POLICY), torch.from_numpy(REWARD[truncation.drawable(KEPT)])
    value = truncation.sequence_objective(POLICY, REFERENCE, KEPT, REWARD, 0.0, DIVERGENCES["rkl"]).real
    estimates = [
        float((PROBABILITY * reward * (scores(table, on_support=on_support) - LOG_MU).nansum(1).exp()).sum())
        for on_support in (True, False)
    ]
    assert estimates[0] == pytest.approx(value, abs=1e-13)
    untruncated = (world.token_probabilities(world.conditionals(POLICY)).prod(1) * REWARD).sum()
    # Without it, it is neither the value of the truncated policy nor that of the whole one.
    assert abs(estimates[1] - value) > 0.05
    assert abs(estimates[1] - untruncated) > 0.05


@pytest.mark.parametrize("name", ["fkl", "rkl", "ufkl", "urkl"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_gradient_is_that_of_the_policy_renormalised_on_the_support_as_drawn(name, level, estimator):
    objective = Objective(divergence=name, beta=BETA, estimator=estimator, level=level, clip="none")
    table = torch.from_numpy(POLICY).requires_grad_()
    (actual,) = torch.autograd.grad(expected_loss(table, objective), table)
    expected = world.gradient(lambda theta: truth(theta, level, DIVERGENCES[name]), POLICY)
    np.testing.assert_allclose(actual.numpy(), -expected, atol=1e-9, rtol=0)
    assert np.abs(expected).max() > 1e-2


def test_finite_differences_of_the_stated_objective_agree():
    objective = Objective(divergence="rkl", beta=BETA, estimator="reinforce", level="sequence", clip="none")
    table = torch.from_numpy(POLICY).requires_grad_()
    (actual,) = torch.autograd.grad(expected_loss(table, objective), table)
    step, numeric = 1e-5, np.zeros_like(POLICY)
    for index in np.ndindex(*POLICY.shape):
        moved = np.zeros_like(POLICY)
        moved[index] = step
        up, down = (truth(POLICY + sign * moved, "sequence", DIVERGENCES["rkl"]).real for sign in (1, -1))
        numeric[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(actual.numpy(), -numeric, atol=1e-8, rtol=0)


def test_without_the_support_the_gradient_is_another():
    objective = Objective(divergence="rkl", beta=BETA, estimator="reinforce", level="token", clip="none")
    table = torch.from_numpy(POLICY).requires_grad_()
    (plain,) = torch.autograd.grad(expected_loss(table, objective, on_support=False), table)
    expected = world.gradient(lambda theta: truth(theta, "token", DIVERGENCES["rkl"]), POLICY)
    assert np.abs(plain.numpy() + expected).max() > 0.05


def test_words_that_were_cut_off_feel_no_gradient():
    objective = Objective(divergence="rkl", beta=BETA, estimator="reinforce", level="token", clip="none")
    table = torch.from_numpy(POLICY).requires_grad_()
    (on_support,) = torch.autograd.grad(expected_loss(table, objective), table, retain_graph=True)
    (plain,) = torch.autograd.grad(expected_loss(table, objective, on_support=False), table)
    assert np.abs(on_support.numpy()[~KEPT]).max() == 0
    assert np.abs(plain.numpy()[~KEPT]).max() > 1e-2
