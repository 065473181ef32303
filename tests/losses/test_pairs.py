"""Losses of pairs against the papers' formulas over the enumerated world, and against what a pair must not do."""

import math
from dataclasses import replace
from itertools import pairwise as neighbours

import numpy as np
import pytest
import torch

from klimb.losses import Inputs, PairwiseLoss
from klimb.training import RECIPES
from tests.losses.enumerated import POLICY, REFERENCE, log_of, log_probs, minimiser
from tests.oracle import regression, world

FORMS = [
    ("dpo", {"beta": 0.6}),
    ("dpo", {"beta": 0.6, "label_smoothing": 0.2}),
    ("dpo", {"beta": 0.6, "divergence": "fkl"}),
    ("dpo", {"beta": 0.3, "divergence": "jeffreys"}),
    ("ipo", {"beta": 0.6}),
    ("rebel", {"beta": 0.6}),
    ("rebel", {"beta": 0.2, "divergence": "chi-squared"}),
]
NUM = len(world.SEQUENCES)
GROUPS = np.arange(NUM) % 3
"""The world's sequences dealt to three prompts."""
REWARDS = np.round(world.rewards(41) * 2) / 2
"""Rounded, so that some of a group are equal."""
MASK = torch.from_numpy(world.MASK)


def inputs_of(log_pi, *, rewards=REWARDS, groups=GROUPS, mask=MASK, log_ref=None):
    log_ref = log_of(REFERENCE) if log_ref is None else log_ref
    return Inputs(log_pi, None, log_ref, torch.from_numpy(rewards), mask, groups=torch.from_numpy(groups))


@pytest.mark.parametrize(("form", "settings"), FORMS, ids=lambda value: "-".join(map(str, np.ravel(value))))
def test_gradient_is_that_of_the_published_loss_over_the_enumerated_world(form, settings):
    table = torch.from_numpy(POLICY).requires_grad_()
    loss = PairwiseLoss(form=form, **settings)
    out = loss(inputs_of(log_probs(table)))
    (actual,) = torch.autograd.grad(out.loss, table)

    def expected_of(theta):
        return regression.pairwise(regression.log_ratio(theta, REFERENCE), REWARDS, GROUPS, form, settings)

    np.testing.assert_allclose(actual.numpy(), world.gradient(expected_of, POLICY), atol=1e-11, rtol=1e-12)
    assert float(out.loss.detach()) == pytest.approx(expected_of(POLICY).real, abs=1e-12, rel=1e-12)
    assert float(out.terms.detach().sum() / out.metrics["num_pairs"]) == pytest.approx(float(out.loss.detach()))


@pytest.mark.parametrize(("form", "settings"), FORMS, ids=lambda value: "-".join(map(str, np.ravel(value))))
@pytest.mark.parametrize("cuts", [(0, NUM), (0, 1, 7, 8, NUM)], ids=["whole", "torn apart"])
def test_a_prepared_minibatch_has_the_same_loss_and_gradient_however_its_pairs_are_torn_apart(form, settings, cuts):
    loss = PairwiseLoss(form=form, **settings)
    table = torch.from_numpy(POLICY)
    whole = inputs_of(log_probs(table).detach().requires_grad_())
    direct = loss(whole)
    (expected,) = torch.autograd.grad(direct.loss, whole.log_pi)

    leaf = whole.log_pi.detach().clone().requires_grad_()
    prepared, ready = loss.prepare(replace(whole, log_pi=leaf.detach()))
    assert not prepared.needs_minibatch and prepared.beta == 0
    ready = replace(ready, log_pi=leaf, normalizer=prepared.normalizer(MASK))
    order = np.random.default_rng(3).permutation(NUM).tolist()
    total = sum(prepared(ready.select(order[low:high])).loss for low, high in neighbours(cuts))
    (actual,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(actual, expected, atol=1e-13, rtol=1e-11)
    assert float(total.detach()) == pytest.approx(float(direct.loss.detach()), abs=1e-12)


def test_equal_rewards_and_other_prompts_make_no_pair_and_have_no_gradient():
    for rewards, groups in ((np.ones(NUM), GROUPS), (REWARDS, np.arange(NUM))):
        for form in ("dpo", "ipo", "rebel"):
            leaf = log_probs(torch.from_numpy(POLICY)).detach().requires_grad_()
            prepared, ready = PairwiseLoss(form=form).prepare(inputs_of(leaf.detach(), rewards=rewards, groups=groups))
            out = prepared(replace(ready, log_pi=leaf))
            assert not bool(ready.advantages.any()) and out.metrics["num_pairs"] == 0
            assert "pair_accuracy" not in out.metrics
            (gradient,) = torch.autograd.grad(out.loss, leaf)
            assert float(out.loss.detach()) == 0 and not bool(gradient.any())


def test_only_the_answers_of_pairs_get_a_gradient():
    groups, rewards = np.zeros(NUM, dtype=int), np.zeros(NUM)
    groups[4:] = np.arange(1, NUM - 3)
    rewards[1] = 1.0
    _, ready = PairwiseLoss().prepare(
        inputs_of(log_probs(torch.from_numpy(POLICY)).detach(), rewards=rewards, groups=groups)
    )
    assert (ready.advantages != 0).nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert ready.advantages[1] > 0 and bool((ready.advantages[[0, 2, 3]] < 0).all())
    assert float(ready.advantages.sum()) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("divergence", ["rkl", "chi-squared"])
def test_the_squared_residual_of_pairs_is_least_at_the_optimum_of_the_regularised_reward(divergence):
    """One prompt, distinct rewards: β·f′(π*/ref) = R − const. For reverse KL π* is ref·exp(R/β)/Z."""
    rewards = world.rewards(41) + 1e-3 * np.arange(NUM)
    groups, beta = np.zeros(NUM, dtype=int), 0.8
    loss = PairwiseLoss(form="rebel", beta=beta, divergence=divergence)
    best = minimiser(lambda table: loss(inputs_of(log_probs(table), rewards=rewards, groups=groups)).loss, POLICY)
    mass = world.token_probabilities(REFERENCE).prod(1)
    if divergence == "rkl":
        np.testing.assert_allclose(best, regression.tilted(mass, rewards, beta), atol=1e-6)
    else:
        residual = beta * regression.SLOPES[divergence](np.log(best / mass)) - rewards
        np.testing.assert_allclose(residual, residual.mean(), atol=1e-5)


def test_the_slope_of_a_pair_by_hand():
    """x = 1.5 and −1, β = 0.5, one pair: dpo's −log σ(1.25) has the slopes ∓β·(1 − σ(1.25)); ipo's 2·(2.5 − 1)."""
    leaf = torch.tensor([[-1.0, -1.0], [-2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    log_ref = torch.tensor([[-2.0, -1.5], [-1.0, math.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    rewards, groups = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([4, 4])
    push = 0.5 * (1 - 1 / (1 + math.exp(-1.25)))
    for form, expected in (("dpo", -push), ("ipo", 2 * (2.5 - 1)), ("rebel", 1.25 - 1)):
        out = PairwiseLoss(form=form, beta=0.5)(leaf, None, log_ref, rewards, mask, groups=groups)
        (slope,) = torch.autograd.grad(out.loss, leaf)
        np.testing.assert_allclose(slope.numpy(), [[expected, expected], [-expected, 0]], atol=1e-15)
        assert out.metrics["pair_accuracy"] == 1 and out.metrics["pair_margin"] == pytest.approx(1.25)
        assert out.metrics["log_pi_anchor_mean"] == pytest.approx((1.0 + 0.5 - 1.0) / 3)


def test_metrics_of_the_pairs_are_reported_of_all_of_them_or_not_at_all():
    prepared, ready = PairwiseLoss().prepare(inputs_of(log_probs(torch.from_numpy(POLICY)).detach()))
    assert set(prepared(ready).metrics) == {
        "num_pairs",
        "pair_accuracy",
        "pair_margin",
        "log_pi_mean",
        "log_pi_anchor_mean",
    }
    assert "pair_accuracy" not in prepared(ready.select([0, 1, 2])).metrics


def test_what_the_answers_of_a_prompt_have_in_common_changes_nothing():
    log_pi = log_probs(torch.from_numpy(POLICY)).detach()
    by_group = np.array([0.3, -4.0, 7.0])[GROUPS]
    for form in ("dpo", "ipo", "rebel"):
        _, ready = PairwiseLoss(form=form).prepare(inputs_of(log_pi))
        _, shifted = PairwiseLoss(form=form).prepare(inputs_of(log_pi, rewards=REWARDS + by_group))
        torch.testing.assert_close(shifted.advantages, ready.advantages, atol=1e-12, rtol=0)


def test_the_mean_over_the_tokens_is_the_log_ratio_of_a_long_answer_divided_by_its_length():
    log_pi = log_probs(torch.from_numpy(POLICY)).detach()
    x = regression.log_ratio(POLICY, REFERENCE) / world.MASK.sum(1)
    out = PairwiseLoss(form="ipo", beta=0.6, level="sequence-mean")(inputs_of(log_pi))
    assert float(out.loss) == pytest.approx(regression.pairwise(x, REWARDS, GROUPS, "ipo", {"beta": 0.6}).real)


def test_a_row_that_the_policy_broke_spoils_its_own_pairs_alone():
    log_pi = log_probs(torch.from_numpy(POLICY)).detach()
    log_pi[0, 0] = math.nan
    prepared, ready = PairwiseLoss().prepare(inputs_of(log_pi))
    others = torch.from_numpy(np.flatnonzero(GROUPS[0] != GROUPS))
    assert bool(ready.advantages[others].isfinite().all())
    assert not prepared(ready).loss.isfinite()
    assert math.isfinite(prepared.of_pairs["pair_accuracy"])


def test_answers_far_from_the_reference_give_no_overflow():
    log_pi = torch.tensor([[0.0], [-1e4]], requires_grad=True)
    log_ref = torch.tensor([[-1e4], [0.0]])
    mask, groups = torch.ones(2, 1, dtype=torch.bool), torch.tensor([0, 0])
    for divergence in ("rkl", "fkl", "chi-squared"):
        for form in ("dpo", "rebel"):
            loss = PairwiseLoss(form=form, divergence=divergence)
            out = loss(log_pi, None, log_ref, torch.tensor([0.0, 1.0]), mask, groups=groups)
            (slope,) = torch.autograd.grad(out.loss, log_pi)
            assert bool(out.loss.isfinite()) and bool(slope.isfinite().all())
            assert out.metrics.get("num_bound_hits", 0) == (0 if divergence == "rkl" else 2)


def test_what_cannot_be_computed_is_refused():
    inputs = inputs_of(log_probs(torch.from_numpy(POLICY)).detach())
    with pytest.raises(ValueError, match="groups is None, and a pair is two answers of one group"):
        PairwiseLoss()(replace(inputs, groups=None))
    with pytest.raises(ValueError, match="log_ref is None, and it is the anchor"):
        PairwiseLoss()(replace(inputs, log_ref=None))
    with pytest.raises(ValueError, match="log_mu is None, and it is the anchor"):
        PairwiseLoss(anchor="mu").prepare(inputs)
    with pytest.raises(ValueError, match=r"divided by their number.*call prepare"):
        PairwiseLoss().normalizer(MASK)
    with pytest.raises(ValueError, match=r"label_smoothing = 0\.1 does nothing with form = 'ipo'"):
        PairwiseLoss(form="ipo", label_smoothing=0.1)
    with pytest.raises(ValueError, match="at a half no pair says anything"):
        PairwiseLoss(label_smoothing=0.5)
    with pytest.raises(ValueError, match="divergence = 'fkl' with form = 'ipo'"):
        PairwiseLoss(form="ipo", divergence="fkl")
    with pytest.raises(ValueError, match="divergence = 'fkl' with level = 'sequence-mean'"):
        PairwiseLoss(divergence="fkl", level="sequence-mean")
    with pytest.raises(ValueError, match="beta must be finite and > 0"):
        PairwiseLoss(beta=0.0)


def test_a_micro_batch_of_padding_costs_nothing_and_says_nothing():
    prepared, ready = PairwiseLoss().prepare(inputs_of(log_probs(torch.from_numpy(POLICY)).detach()))
    out = prepared(replace(ready, mask=MASK & False))
    assert float(out.loss) == 0 and out.metrics == {}


@pytest.mark.parametrize("name", ["dpo", "ipo", "rebel"])
def test_the_recipes_make_the_losses_of_their_names(name):
    loss = RECIPES[name].make_objective(beta=0.2)
    assert loss == PairwiseLoss(form=name, beta=0.2)
    assert RECIPES[name].usable_offline and not RECIPES[name].needs_log_mu
