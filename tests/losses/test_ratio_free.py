"""Recipes that need no ratio or a tapered one: what they maximise, by enumeration, and what they do not read."""

import math

import numpy as np
import pytest
import torch

from klimb.divergences import DIVERGENCES
from klimb.experience.advantages import compute_advantages
from klimb.losses import Inputs, Objective, Taper, penalty_named, slope_at_reference
from klimb.losses.objective import PENALTIES
from klimb.training import RECIPES
from tests.losses.enumerated import (
    BEHAVIOUR,
    COUNTS,
    POLICY,
    REFERENCE,
    data_conditionals,
    in_data,
    log_of,
    log_probs,
)
from tests.oracle import regression, world

SHARES = COUNTS / COUNTS.sum()
REWARDS = world.rewards(51)
MASK = torch.from_numpy(world.MASK)
NAN = torch.full(world.MASK.shape, math.nan, dtype=torch.float64)


def gradient(objective, log_mu, log_ref, advantages) -> np.ndarray:
    """With respect to the logits, on the data set that holds every sequence."""
    table = torch.from_numpy(POLICY).requires_grad_()
    rows_mu, rows_ref = (None if t is None else in_data(t) for t in (log_mu, log_ref))
    loss = objective(in_data(log_probs(table)), rows_mu, rows_ref, advantages, in_data(MASK)).loss
    return torch.autograd.grad(loss, table)[0].numpy()


def advantages_of(recipe) -> torch.Tensor:
    rewards = in_data(torch.from_numpy(REWARDS))
    one_group = [0] * len(rewards)
    return compute_advantages(rewards, one_group, kind=recipe.advantages.kind, offset=recipe.advantages.offset)


def log_likelihood(theta: np.ndarray, weights: np.ndarray) -> complex:
    return (weights * np.log(world.token_probabilities(world.conditionals(theta))).sum(1)).sum()


def test_asymre_has_the_gradient_of_its_published_objective():
    """J = E_μ[(r − V)·log π] with V the mean reward less 0.1."""
    recipe = RECIPES["asymre"]
    actual = gradient(recipe.make_objective(), NAN, None, advantages_of(recipe))
    value = (SHARES * REWARDS).sum() - 0.1
    expected = world.gradient(lambda theta: log_likelihood(theta, SHARES * (REWARDS - value)), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-12, rtol=0)


def test_asymre_rests_where_several_good_responses_keep_a_share():
    """Responses of one token: where π = max(0, μ·(R − V) − c)/0.1 logits drift together, and the others fall behind."""
    mu = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    rewards = np.array([0.0, 0.2, 1.0, 0.9, 0.5])
    recipe = RECIPES["asymre"]
    push = mu * (rewards - (mu @ rewards + recipe.advantages.offset))
    kept = np.array([False, False, True, True, False])
    c = (push[kept].sum() - 0.1) / 2  # the two shares sum to 1
    assert (push > c).tolist() == kept.tolist()
    resting = np.where(kept, (push - c) / 0.1, 1e-30)
    table = torch.from_numpy(np.log(resting)).requires_grad_()
    advantages = torch.from_numpy(push / mu)
    every = torch.ones(5, 1, dtype=torch.bool)
    out = recipe.make_objective()(table.log_softmax(0)[:, None], NAN[:5, :1], None, advantages, every)
    (slope,) = torch.autograd.grad((torch.from_numpy(mu) * out.terms.sum(1)).sum(), table)
    drift = -slope.numpy()
    np.testing.assert_allclose(drift[kept], c, atol=1e-12)
    assert bool((drift[~kept] < c - 1e-2).all())


def test_topr_has_the_gradient_of_its_published_objective():
    recipe = RECIPES["topr"]
    mu = data_conditionals()
    actual = gradient(recipe.make_objective(), log_of(mu), None, advantages_of(recipe))
    centred = REWARDS - (SHARES * REWARDS).sum()
    expected = world.gradient(lambda theta: regression.topr(theta, mu, centred), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-12, rtol=0)
    w = np.exp(regression.log_ratio(POLICY, mu))
    branches = {(bool(good), bool(above)) for good, above in zip(centred >= 0, w > 1, strict=True)}
    assert len(branches) == 4  # every branch of the taper is in the sum


@pytest.mark.parametrize("name", ["bc", "bc-filtered"])
def test_cloning_has_the_gradient_of_the_likelihood_of_the_tokens(name):
    recipe = RECIPES[name]
    actual = gradient(recipe.make_objective(beta=0.3), NAN, None, advantages_of(recipe))
    num_tokens = (COUNTS * world.LENGTHS).sum()
    expected = world.gradient(lambda theta: 0.3 * log_likelihood(theta, COUNTS / num_tokens), POLICY)
    np.testing.assert_allclose(actual, -expected, atol=1e-12, rtol=0)


def test_the_taper_unit_by_unit():
    """Good: weight 1 below and above; bad: w below 1 and 1 above. The good are those with A ≥ 0."""
    log_w = torch.tensor([[0.25, 4.0], [0.25, 4.0], [0.25, 4.0]], dtype=torch.float64).log()
    leaf = (log_w - 2).requires_grad_()
    advantages = torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64)
    for estimator in ("reinforce", "differentiable"):
        objective = Objective(beta=0.0, clip="taper", estimator=estimator, reduce=2)
        out = objective(leaf, torch.full_like(log_w, -2.0), None, advantages, torch.ones(3, 2, dtype=torch.bool))
        (slope,) = torch.autograd.grad(out.loss * 6, leaf)
        np.testing.assert_allclose(slope.numpy(), [[-2, -2], [0.5, 2], [0, 0]], atol=1e-14)
        # The row of A = 0 has no gradient to change.
        assert out.metrics["clip_low_fraction"] == pytest.approx(1 / 6)
        assert out.metrics["clip_high_fraction"] == pytest.approx(2 / 6)
        assert out.metrics["clip_ceiling_fraction"] == 0


def test_the_taper_weighs_the_whole_regularised_advantage():
    """With β the weight is w̄·(A − β·x), as for `truncate`: here A − β·x = 1 − 0.5·log 4 > 0, so w̄ = 1."""
    log_pi = torch.tensor([[math.log(4.0)]], requires_grad=True)
    zeros = torch.zeros(1, 1)
    out = Objective(beta=0.5, clip=Taper())(log_pi, zeros, zeros, torch.ones(1), torch.ones(1, 1, dtype=torch.bool))
    (slope,) = torch.autograd.grad(out.loss, log_pi)
    assert float(slope) == pytest.approx(-(1 - 0.5 * math.log(4)))


@pytest.mark.parametrize("level", ["token", "prefix", "sequence", "sequence-mean"])
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize("log_ref", [None, log_of(REFERENCE)], ids=["ref is μ", "ref is not μ"])
def test_without_a_ratio_log_mu_stands_at_the_policy_and_is_not_read(level, estimator, log_ref):
    """As a recorded ratio with the policy's own log-probabilities for log_mu, whatever stands there, NaN included."""
    settings = {"divergence": "fkl", "beta": 0.4, "estimator": estimator, "level": level, "clip": "none"}
    advantages = in_data(torch.from_numpy(REWARDS))
    log_pi = log_probs(torch.from_numpy(POLICY))
    recorded = gradient(Objective(**settings), log_pi, log_pi if log_ref is None else log_ref, advantages)
    for log_mu in (NAN, None, log_of(BEHAVIOUR)):
        actual = gradient(Objective(ratio="none", **settings), log_mu, log_ref, advantages)
        np.testing.assert_array_equal(actual, recorded)
    assert np.abs(recorded).max() > 1e-2


@pytest.mark.parametrize("name", [*DIVERGENCES, *PENALTIES, "0.7*fkl + 0.3*rkl", "alpha:-1"])
def test_without_a_ratio_and_with_ref_at_mu_a_divergence_is_a_constant_beside_the_advantage(name):
    """The gradient is that of advantages A − β·f′(1): the constant raises, lowers or leaves the data."""
    objective = Objective(ratio="none", divergence=name, beta=0.4, clip="none")
    plain = Objective(ratio="none", beta=0.0, clip="none")
    constant = slope_at_reference(penalty_named(name)).constant
    advantages = in_data(torch.from_numpy(REWARDS))
    actual = gradient(objective, None, None, advantages)
    np.testing.assert_allclose(actual, gradient(plain, None, None, advantages - 0.4 * constant), atol=1e-12)
    known = {"fkl": -1.0, "rkl": 1.0, "0.7*fkl + 0.3*rkl": -0.4}
    assert constant == pytest.approx(known.get(name, 0.0))


@pytest.mark.parametrize("name", [*DIVERGENCES, *PENALTIES, "0.7*fkl + 0.3*rkl", "alpha:-1", "0.3*fkl"])
def test_forward_kl_alone_has_a_slope_to_the_data_that_needs_no_ratio(name):
    assert slope_at_reference(penalty_named(name)).is_forward_kl == (name in ("fkl", "0.3*fkl"))


def test_without_a_ratio_no_metric_pretends_to_one():
    log_pi, log_ref, advantages = log_probs(torch.from_numpy(POLICY)), log_of(REFERENCE), torch.from_numpy(REWARDS)
    objective = Objective(ratio="none")
    alone = objective(log_pi, NAN, None, advantages, MASK, entropy=torch.ones_like(log_pi)).metrics
    assert alone == pytest.approx({"log_pi_mean": float(log_pi[MASK].mean()), "entropy": 1.0})
    beside_ref = objective(log_pi, NAN, log_ref, advantages, MASK).metrics
    assert beside_ref == pytest.approx(
        {
            "log_pi_mean": float(log_pi[MASK].mean()),
            "log_pi_ref_mean": float((log_pi - log_ref)[MASK].mean()),
            "num_bound_hits": 0.0,
        }
    )


@pytest.mark.parametrize("name", ["bc", "asymre", "topr"])
def test_micro_batches_add_up(name):
    objective = RECIPES[name].make_objective()
    log_pi = log_probs(torch.from_numpy(POLICY))
    log_mu, advantages = log_of(BEHAVIOUR), torch.from_numpy(REWARDS)
    gradients = []
    for cuts in ([slice(0, 15)], [slice(0, 1), slice(1, 9), slice(9, 15)]):
        leaf = log_pi.clone().requires_grad_()
        for cut in cuts:
            part = leaf[cut], log_mu[cut], None, advantages[cut], MASK[cut]
            objective(*part, normalizer=objective.normalizer(MASK)).loss.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-15, rtol=1e-12)


def test_an_objective_that_needs_nothing_of_the_minibatch_gives_back_what_it_was_given():
    objective = Objective()
    log_pi, advantages = log_probs(torch.from_numpy(POLICY)), torch.from_numpy(REWARDS)
    inputs = Inputs(log_pi, None, None, advantages, MASK)
    prepared, given = objective.prepare(inputs)
    assert prepared is objective
    assert given is inputs


def test_a_recorded_ratio_needs_log_mu():
    log_pi = log_probs(torch.from_numpy(POLICY))
    with pytest.raises(ValueError, match="log_mu is None, and ratio = 'recorded' needs it"):
        Objective(beta=0.0)(log_pi, None, None, torch.from_numpy(REWARDS), MASK)
