"""The squared residual: its gradient by enumeration, and what its minimum is."""

import math

import numpy as np
import pytest
import torch

from klimb.experience.advantages import compute_advantages
from klimb.losses import Inputs, SquaredResidual
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
    minimiser,
)
from tests.oracle import regression, world

REWARDS = world.rewards(31)
MASK = torch.from_numpy(world.MASK)
NUM_ROWS = int(COUNTS.sum())
SHARES = COUNTS / NUM_ROWS
ONE_GROUP = torch.zeros(NUM_ROWS, dtype=torch.int64)
BETA = 0.7
NAN = torch.full(world.MASK.shape, math.nan, dtype=torch.float64)


def gradient(objective, log_mu, log_ref, advantages) -> np.ndarray:
    """With respect to the logits, on the data set that holds every sequence."""
    table = torch.from_numpy(POLICY).requires_grad_()
    rows = in_data(log_probs(table)), in_data(log_mu), in_data(log_ref)
    mask = in_data(MASK)
    detached = (row.detach() for row in rows)
    prepared, inputs = objective.prepare(Inputs(*detached, in_data(advantages), mask, groups=ONE_GROUP))
    loss = prepared(*rows, inputs.advantages, mask).loss
    return torch.autograd.grad(loss, table)[0].numpy()


@pytest.mark.parametrize("anchor", ["mu", "ref"])
def test_gradient_is_that_of_the_enumerated_square_and_the_other_distribution_is_not_read(anchor):
    objective = SquaredResidual(beta=BETA, anchor=anchor)
    conditionals = BEHAVIOUR if anchor == "mu" else REFERENCE
    log_mu, log_ref = (log_of(BEHAVIOUR), NAN) if anchor == "mu" else (NAN, log_of(REFERENCE))
    actual = gradient(objective, log_mu, log_ref, torch.from_numpy(REWARDS))
    expected = world.gradient(
        lambda theta: regression.squared_residual(theta, conditionals, SHARES, REWARDS, BETA), POLICY
    )
    np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=0)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("value", ["group-optimal", "batch-optimal"])
def test_with_a_fitted_value_the_gradient_is_that_of_the_loss_minimised_over_the_value(value):
    objective = SquaredResidual(beta=BETA, anchor="ref", value=value)
    actual = gradient(objective, NAN, log_of(REFERENCE), torch.from_numpy(REWARDS))
    expected = world.gradient(
        lambda theta: regression.fitted_squared_residual(theta, REFERENCE, SHARES, REWARDS, BETA), POLICY
    )
    np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=0)


def test_at_the_anchor_the_gradient_is_that_of_reinforce_whatever_beta_is():
    log_pi = torch.tensor([[-1.0, -2.0], [-0.5, math.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    advantages = torch.tensor([2.0, -3.0], dtype=torch.float64)
    for beta in (0.01, 1.0, 50.0):
        leaf = log_pi.clone().requires_grad_()
        out = SquaredResidual(beta=beta)(leaf, log_pi, None, advantages, mask)
        (slope,) = torch.autograd.grad(out.loss, leaf)
        assert slope.tolist() == [[-1.0, -1.0], [1.5, 0.0]]  # −A a token, over two responses


def test_sequence_mean_divides_the_log_ratio_by_the_length():
    """L = (1 + 2 + 3)/3 = 2, the residual 0.5·2 − 3 = −2, the loss 4/(2·0.5) = 4, its slope −2·∇L = −2/3 a token."""
    leaf = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    log_mu = torch.tensor([[-1.0, -2.0, -3.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    out = SquaredResidual(beta=0.5, level="sequence-mean")(leaf, log_mu, None, torch.tensor([3.0]), mask)
    (slope,) = torch.autograd.grad(out.loss, leaf)
    assert float(out.loss.detach()) == pytest.approx(4)
    assert slope.tolist()[0] == pytest.approx([-2 / 3] * 3)
    assert out.metrics["residual_mean"] == pytest.approx(-2)
    assert out.metrics["residual_rms"] == pytest.approx(2)
    assert out.metrics["log_pi_anchor_mean"] == pytest.approx(2)
    assert out.metrics["w_max"] == pytest.approx(math.exp(2))


def trained(recipe_name: str, anchor: np.ndarray, log_mu: torch.Tensor, log_ref: torch.Tensor | None) -> np.ndarray:
    """Where the recipe ends on the data set, a minibatch of everything: fitted anew for each gradient."""
    recipe = RECIPES[recipe_name]
    objective = recipe.make_objective(beta=BETA)
    rewards = in_data(torch.from_numpy(REWARDS))
    advantages = compute_advantages(rewards, ONE_GROUP.tolist(), kind=recipe.advantages.kind, temperature=BETA)
    rows_mu, mask = in_data(log_mu), in_data(MASK)
    rows_ref = None if log_ref is None else in_data(log_ref)

    def loss_of(table: torch.Tensor) -> torch.Tensor:
        log_pi = in_data(log_probs(table))
        minibatch = Inputs(log_pi.detach(), rows_mu, rows_ref, advantages, mask, groups=ONE_GROUP)
        prepared, inputs = objective.prepare(minibatch)
        return prepared(log_pi, rows_mu, rows_ref, inputs.advantages, mask).loss

    return minimiser(loss_of, np.log(anchor))


def test_the_minimum_of_oapl_is_the_optimum_of_the_regularised_objective():
    mu = data_conditionals()
    actual = trained("oapl", mu, log_of(mu), None)
    expected = regression.tilted(SHARES, REWARDS, BETA)
    np.testing.assert_allclose(actual, expected, atol=1e-7, rtol=0)
    assert np.abs(expected - SHARES).max() > 0.05


def test_the_minimum_of_dro_is_the_optimum_whatever_policy_wrote_the_data():
    ref = world.token_probabilities(REFERENCE).prod(1)
    actual = trained("dro", REFERENCE, NAN, log_of(REFERENCE))
    np.testing.assert_allclose(actual, regression.tilted(ref, REWARDS, BETA), atol=1e-7, rtol=0)


def test_the_minimum_of_kimi_pmd_has_a_chi_squared_term_beside_the_kl():
    mu = data_conditionals()
    actual = trained("kimi-pmd", mu, log_of(mu), None)
    centred = REWARDS - (SHARES * REWARDS).sum()
    expected = regression.mixed_regulariser_optimum(SHARES, centred, BETA)
    assert expected.sum() == pytest.approx(1, abs=1e-9)
    share = BETA * (SHARES * np.log(SHARES / expected)).sum()  # weight of the χ² term: β·KL(μ‖π)
    np.testing.assert_allclose(BETA * np.log(expected / SHARES) + share * expected / SHARES, centred, atol=1e-9)
    np.testing.assert_allclose(actual, expected, atol=1e-7, rtol=0)
    assert np.abs(expected - regression.tilted(SHARES, REWARDS, BETA)).max() > 0.01


def small_batch():
    generator = torch.Generator().manual_seed(6)
    log_pi, log_mu, log_ref = (-3 * torch.rand(6, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    rewards = torch.randn(6, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 3, 1, 2, 4, 0])[:, None]
    return log_pi, log_mu, log_ref, rewards, mask


def test_values_are_of_the_group_and_of_the_minibatch_for_who_is_alone():
    log_pi, _, log_ref, rewards, mask = small_batch()
    targets = rewards - BETA * torch.where(mask, log_pi - log_ref, 0.0).sum(1)
    groups = torch.tensor([7, 3, 7, 3, 5, 5])  # The last row has no token: row 4 is alone.
    objective = SquaredResidual(beta=BETA, anchor="ref", value="group-optimal")
    prepared, inputs = objective.prepare(Inputs(log_pi, None, log_ref, rewards, mask, groups=groups))
    pairs, everyone = (targets[[0, 2]].mean(), targets[[1, 3]].mean()), targets[:5].mean()
    values = torch.stack([pairs[0], pairs[1], pairs[0], pairs[1], everyone])
    torch.testing.assert_close(inputs.advantages[:5], rewards[:5] - values)
    assert prepared == SquaredResidual(beta=BETA, anchor="ref")


@pytest.mark.parametrize("reduce", ["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum", 7])
def test_micro_batches_of_a_prepared_minibatch_add_up(reduce):
    log_pi, _, log_ref, rewards, mask = small_batch()
    objective = SquaredResidual(beta=BETA, anchor="ref", value="batch-optimal", reduce=reduce)
    groups = torch.zeros(6, dtype=torch.int64)
    objective, inputs = objective.prepare(Inputs(log_pi, None, log_ref, rewards, mask, groups=groups))
    advantages = inputs.advantages
    gradients = []
    for cuts in ([slice(0, 6)], [slice(0, 1), slice(1, 4), slice(4, 6)]):
        leaf = log_pi.clone().requires_grad_()
        for cut in cuts:
            part = leaf[cut], None, log_ref[cut], advantages[cut], mask[cut]
            objective(*part, normalizer=objective.normalizer(mask)).loss.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-15, rtol=1e-12)
    assert bool((gradients[0][~mask] == 0).all())


def test_metrics_name_the_ratio_to_mu_only_where_mu_is_the_anchor():
    log_pi, log_mu, log_ref, rewards, mask = small_batch()
    of_mu = SquaredResidual(beta=1.0)(log_pi, log_mu, None, rewards, mask).metrics
    of_ref = SquaredResidual(beta=1.0, anchor="ref")(log_pi, log_mu * math.nan, log_ref, rewards, mask).metrics
    assert set(of_ref) == {"residual_mean", "residual_rms", "log_pi_mean", "log_pi_anchor_mean"}
    assert {"ess_token", "kl_mu_pi", "w_max", "num_bound_hits"} <= set(of_mu)
    assert not {"kl_pi_ref", "clip_low_fraction"} & set(of_mu)
    assert of_ref["log_pi_anchor_mean"] == pytest.approx(float((log_pi - log_ref)[mask].mean()))
    assert of_ref["log_pi_mean"] == pytest.approx(float(log_pi[mask].mean()))


def test_a_policy_that_produces_nan_gives_a_loss_that_is_not_finite_and_spoils_no_other_row():
    log_pi, _, log_ref, rewards, mask = small_batch()
    log_pi[0, 0] = math.nan
    objective = SquaredResidual(beta=1.0, anchor="ref", value="batch-optimal")
    prepared, inputs = objective.prepare(Inputs(log_pi, None, log_ref, rewards, mask))
    assert bool(inputs.advantages.isfinite().all())
    assert not prepared(inputs).loss.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, r"beta must be finite and > 0 \(the loss divides by it\), got 0.0"),
        ({"anchor": "nu"}, "unknown anchor 'nu'. There are: mu, ref"),
        ({"value": "optimal"}, "unknown value 'optimal'"),
        ({"level": "token"}, "unknown level of a squared residual 'token'"),
        ({"reduce": 0}, "reduce"),
    ],
)
def test_settings_out_of_range_are_errors(options, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match=message):
        SquaredResidual(**({"beta": 1.0} | options))


def test_what_cannot_be_computed_is_refused():
    log_pi, log_mu, log_ref, rewards, mask = small_batch()
    fitting = SquaredResidual(beta=1.0, anchor="ref", value="group-optimal")
    with pytest.raises(ValueError, match=r"call prepare\(…\) on it first"):
        fitting(log_pi, log_mu, log_ref, rewards, mask)
    with pytest.raises(ValueError, match="groups is None, and value 'group-optimal' is of each group"):
        SquaredResidual(beta=BETA, value="group-optimal").prepare(Inputs(log_pi, log_pi, None, rewards, mask))
    with pytest.raises(ValueError, match="log_ref is None, and it is the anchor"):
        SquaredResidual(beta=1.0, anchor="ref")(log_pi, log_mu, None, rewards, mask)
    with pytest.raises(ValueError, match="log_mu is nan at row 0, position 0"):
        SquaredResidual(beta=1.0)(log_pi, log_mu * math.nan, None, rewards, mask)
    with pytest.raises(ValueError, match=r"advantages must be \[batch\], one a sequence"):
        SquaredResidual(beta=1.0)(log_pi, log_mu, None, log_pi, mask)


def test_a_minibatch_of_one_response_is_fitted_exactly_and_teaches_nothing():
    log_pi, _, log_ref, rewards, mask = small_batch()
    one = (log_pi[:1].detach().requires_grad_(), None, log_ref[:1])
    fitting = SquaredResidual(beta=1.0, anchor="ref", value="group-optimal")
    prepared, inputs = fitting.prepare(Inputs(*one, rewards[:1], mask[:1], groups=torch.zeros(1, dtype=torch.int64)))
    out = prepared(inputs)
    out.loss.backward()
    assert one[0].grad is not None
    torch.testing.assert_close(one[0].grad, torch.zeros_like(one[0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("anchor", ["mu", "ref"])
def test_a_micro_batch_of_padding_costs_nothing_and_says_nothing(anchor):
    log_pi, log_mu, log_ref, rewards, mask = small_batch()
    out = SquaredResidual(beta=1.0, anchor=anchor)(log_pi, log_mu, log_ref, rewards * math.nan, mask & False)
    assert float(out.loss) == 0
    assert out.metrics == {}
