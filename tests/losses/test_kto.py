"""KTO against the published formula and a derivation by hand."""

import math

import numpy as np
import pytest
import torch

from klimb.losses import Inputs, KtoObjective
from klimb.training import RECIPES
from tests.losses.enumerated import COUNTS, POLICY, REFERENCE, in_data, log_of, log_probs
from tests.oracle import regression, world

BETA, DESIRABLE, UNDESIRABLE = 0.6, 1.0, 1.5


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u))


def batch():
    generator = torch.Generator().manual_seed(8)
    log_pi, log_ref = (-3 * torch.rand(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    thumbs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 3, 1, 2, 4, 0])[:, None]
    return log_pi, log_ref, thumbs, mask


@pytest.mark.parametrize("mass", [10.0, 1.0], ids=["reference point 0", "reference point above 0"])
def test_gradient_is_that_of_the_published_loss_over_the_enumerated_world(mass):
    reference = mass * REFERENCE  # so much mass that the mean log-ratio is negative, and the point is held at 0
    is_good = world.rewards(41) > 0
    thumbs = in_data(torch.from_numpy(np.where(is_good, 1.0, -1.0)))
    table = torch.from_numpy(POLICY).requires_grad_()
    log_pi, log_ref = in_data(log_probs(table)), in_data(log_of(reference))
    mask = in_data(torch.from_numpy(world.MASK))
    objective = RECIPES["kto"].make_objective(beta=BETA, desirable_weight=DESIRABLE, undesirable_weight=UNDESIRABLE)
    groups = torch.arange(len(thumbs))
    objective, _ = objective.prepare(Inputs(log_pi.detach(), None, log_ref, thumbs, mask, groups=groups))
    loss = objective(log_pi, log_ref * math.nan, log_ref, thumbs, mask).loss
    (actual,) = torch.autograd.grad(loss, table)

    shares = COUNTS / COUNTS.sum()
    z = max(0.0, float((shares * regression.log_ratio(POLICY, reference)).sum()))
    assert (z > 0) == (mass == 1)
    settings = {"beta": BETA, "z": z, "desirable": DESIRABLE, "undesirable": UNDESIRABLE}
    expected = world.gradient(lambda theta: regression.kto(theta, reference, shares, is_good, settings), POLICY)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-12, rtol=0)
    assert float(loss.detach()) == pytest.approx(
        regression.kto(POLICY, reference, shares, is_good, settings).real, abs=1e-12
    )


def test_the_slope_by_hand():
    """d/dx of λ_D·(1 − σ(β(x − z))) is −λ_D·β·σ·(1 − σ); of λ_U·(1 − σ(β(z − x))) it is +λ_U·β·σ·(1 − σ)."""
    leaf = torch.tensor([[-1.0, -1.0], [-2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    log_ref = torch.tensor([[-2.0, -1.5], [-1.0, math.nan]], dtype=torch.float64)  # x = 1.5 and −1
    mask = torch.tensor([[True, True], [True, False]])
    objective = KtoObjective(beta=BETA, desirable_weight=1.2, undesirable_weight=0.8, reference_point=0.25)
    loss = objective(leaf, None, log_ref, torch.tensor([1.0, -1.0], dtype=torch.float64), mask).loss
    (slope,) = torch.autograd.grad(loss, leaf)
    good, bad = sigmoid(BETA * (1.5 - 0.25)), sigmoid(BETA * (0.25 + 1))
    assert float(loss.detach()) == pytest.approx((1.2 * (1 - good) + 0.8 * (1 - bad)) / 2)
    first, second = -1.2 * BETA * good * (1 - good) / 2, 0.8 * BETA * bad * (1 - bad) / 2
    np.testing.assert_allclose(slope.numpy(), [[first, first], [second, 0]], atol=1e-15)


@pytest.mark.parametrize("shift", [-5.0, 5.0])
def test_the_reference_point_is_the_mean_log_ratio_and_never_negative(shift):
    log_pi, log_ref, thumbs, mask = batch()
    x = torch.where(mask, log_pi + shift - log_ref, 0.0).sum(1)[:5]
    inputs = Inputs(log_pi + shift, None, log_ref, thumbs, mask)
    prepared, given = KtoObjective().prepare(inputs)
    assert prepared.reference_point == pytest.approx(max(0.0, float(x.mean())), abs=1e-14)
    assert (prepared.reference_point == 0) == (shift < 0)
    assert given is inputs


def test_micro_batches_of_a_prepared_minibatch_add_up():
    log_pi, log_ref, thumbs, mask = batch()
    objective, _ = KtoObjective().prepare(Inputs(log_pi + 1, None, log_ref, thumbs, mask))
    gradients = []
    for cuts in ([slice(0, 6)], [slice(0, 1), slice(1, 4), slice(4, 6)]):
        leaf = log_pi.clone().requires_grad_()
        for cut in cuts:
            part = leaf[cut], None, log_ref[cut], thumbs[cut], mask[cut]
            objective(*part, normalizer=objective.normalizer(mask)).loss.backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-15, rtol=1e-12)
    assert bool((gradients[0][~mask] == 0).all())


def test_metrics_by_hand():
    log_pi, log_ref, thumbs, mask = batch()
    x = torch.where(mask, log_pi - log_ref, 0.0).sum(1)
    out = KtoObjective(reference_point=0.5)(log_pi, None, log_ref, thumbs, mask, entropy=torch.ones_like(log_pi))
    assert out.metrics == pytest.approx(
        {
            "log_pi_mean": float(log_pi[mask].mean()),
            "log_pi_ref_mean": float((log_pi - log_ref)[mask].mean()),
            "kto_reference_point": 0.5,
            "log_pi_ref_desirable_mean": float(x[[0, 2]].mean()),
            "log_pi_ref_undesirable_mean": float(x[[1, 3, 4]].mean()),
            "entropy": 1.0,
        }
    )


def test_an_answer_far_from_the_reference_gives_no_overflow():
    log_pi = torch.tensor([[0.0], [-1e4]], requires_grad=True)
    log_ref = torch.tensor([[-1e4], [0.0]])
    mask = torch.ones(2, 1, dtype=torch.bool)
    out = KtoObjective(reference_point=0.0)(log_pi, None, log_ref, torch.tensor([-1.0, 1.0]), mask)
    (slope,) = torch.autograd.grad(out.loss, log_pi)
    assert float(out.loss.detach()) == 1
    assert slope.tolist() == [[0.0], [0.0]]


def test_a_policy_that_produces_nan_gives_a_loss_that_is_not_finite_and_spoils_no_other_row():
    log_pi, log_ref, thumbs, mask = batch()
    log_pi[0, 0] = math.nan
    objective, _ = KtoObjective().prepare(Inputs(log_pi, None, log_ref, thumbs, mask))
    assert math.isfinite(objective.reference_point)
    assert not objective(log_pi, None, log_ref, thumbs, mask).loss.isfinite()


def test_what_cannot_be_computed_is_refused():
    log_pi, log_ref, thumbs, mask = batch()
    ready = KtoObjective(reference_point=0.0)
    with pytest.raises(ValueError, match=r"call prepare\(…\) on it first"):
        KtoObjective()(log_pi, None, log_ref, thumbs, mask)
    with pytest.raises(ValueError, match=r"got 0.5 at row 0; use the advantages 'binary-feedback'"):
        ready(log_pi, None, log_ref, thumbs / 2, mask)
    with pytest.raises(ValueError, match="log_ref is None, and KTO compares"):
        ready(log_pi, log_pi, None, thumbs, mask)
    with pytest.raises(ValueError, match="no token of this minibatch counts"):
        KtoObjective().prepare(Inputs(log_pi, None, log_ref, thumbs, mask & False))
    with pytest.raises(ValueError, match="beta must be finite and > 0"):
        KtoObjective(beta=0.0)
    with pytest.raises(ValueError, match="undesirable_weight must be finite and >= 0, got -1"):
        KtoObjective(undesirable_weight=-1.0)
    with pytest.raises(ValueError, match="reference_point must be finite"):
        KtoObjective(reference_point=math.nan)


def test_a_micro_batch_of_padding_costs_nothing_and_says_nothing():
    log_pi, log_ref, thumbs, mask = batch()
    out = KtoObjective(reference_point=0.0)(log_pi, None, log_ref, thumbs * math.nan, mask & False)
    assert float(out.loss) == 0
    assert out.metrics == {}
