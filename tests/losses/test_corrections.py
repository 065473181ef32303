"""Three policies: what is exact when prox stands between μ and π, and what each rule does to the weight prox/μ."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from klimb.losses import (
    Corrected,
    DecoupledCorrection,
    DualClip,
    Inputs,
    Loss,
    MaskedCorrection,
    NoCorrection,
    NormalisedCorrection,
    Objective,
    SecondMoment,
    TruncatedCorrection,
)
from klimb.training import RECIPES
from tests.losses.enumerated import BEHAVIOUR, POLICY, REFERENCE, log_of, log_probs
from tests.oracle import world
from tests.oracle.formulas import DIVERGENCES

LEVELS = ("token", "prefix", "sequence", "sequence-mean")
BETA = 0.37
PROX = world.conditionals(world.logits(15))
KINDS = [DecoupledCorrection, TruncatedCorrection, NormalisedCorrection, MaskedCorrection]


def batch(seed: int = 0, num_rows: int = 8):
    generator = torch.Generator().manual_seed(seed)
    log_pi, log_mu, log_ref, log_prox = (
        -3 * torch.rand(num_rows, 5, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    advantages = torch.randn(num_rows, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.randint(1, 6, (num_rows,), generator=generator)[:, None]
    return log_pi, log_mu, log_ref, log_prox, advantages, mask


def prepare(objective: Loss, log_pi, log_mu, log_ref, log_prox, advantages, mask) -> Loss:
    groups = torch.zeros(len(log_pi), dtype=torch.int64)
    return objective.prepare(Inputs(log_pi, log_mu, log_ref, advantages, mask, log_prox=log_prox, groups=groups))[0]


def gradient(objective: Loss, log_pi, log_mu, log_ref, log_prox, advantages, mask, **options) -> torch.Tensor:
    leaf = log_pi.clone().requires_grad_()
    loss = objective(leaf, log_mu, log_ref, advantages, mask, log_prox=log_prox, **options).loss
    return torch.autograd.grad(loss, leaf)[0]


def expected_gradient(
    objective: Loss, advantages: np.ndarray, ref: np.ndarray, told_mu: np.ndarray = BEHAVIOUR
) -> np.ndarray:
    """E_μ of the gradient of a sequence's loss with respect to the logits, over all sequences there are.

    `told_mu` is what the loss takes for μ.
    """
    table = torch.from_numpy(POLICY).requires_grad_()
    out = objective(
        log_probs(table),
        log_of(told_mu),
        log_of(ref),
        torch.from_numpy(advantages),
        torch.from_numpy(world.MASK),
        log_prox=log_of(PROX),
    )
    mu = torch.from_numpy(world.token_probabilities(BEHAVIOUR).prod(1))
    return torch.autograd.grad((mu * out.terms.sum(1)).sum(), table)[0].numpy()


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize("name", ["fkl", "rkl", "ufkl", "urkl"])
def test_decoupled_sequence_weights_give_the_exact_gradient_under_mu(name, estimator):
    """b·(π/prox) = π/μ and b·(ref/prox) = ref/μ: E_μ of the corrected gradient is that of J, whoever prox is."""
    inner = Objective(divergence=name, beta=BETA, estimator=estimator, level="sequence", clip="none")
    actual = expected_gradient(
        Corrected(objective=inner, correction=DecoupledCorrection(level="sequence")), world.rewards(22), REFERENCE
    )
    exact = world.gradient(
        lambda theta: world.sequence_objective(theta, REFERENCE, world.rewards(22), BETA, DIVERGENCES[name]), POLICY
    )
    np.testing.assert_allclose(actual, -exact, atol=1e-9, rtol=0)
    assert np.abs(exact).max() > 1e-2


def test_decoupled_prefix_weights_give_the_exact_gradient_of_rewards_per_token():
    inner = Objective(divergence="rkl", beta=BETA, level="prefix", clip="none")
    rewards = world.prefix_rewards(21)
    actual = expected_gradient(
        Corrected(objective=inner, correction=DecoupledCorrection(level="prefix")), rewards, REFERENCE
    )
    exact = world.gradient(
        lambda theta: world.prefix_objective(theta, REFERENCE, rewards, BETA, DIVERGENCES["rkl"]), POLICY
    )
    np.testing.assert_allclose(actual, -exact, atol=1e-9, rtol=0)


def test_without_the_correction_prox_in_the_place_of_mu_is_biased():
    """The test above would not notice a weight that is always 1; this one shows that it matters here."""
    inner = Objective(divergence="rkl", beta=BETA, level="sequence", clip="none")
    with_weight = expected_gradient(
        Corrected(objective=inner, correction=DecoupledCorrection(level="sequence")), world.rewards(22), REFERENCE
    )
    without = expected_gradient(inner, world.rewards(22), REFERENCE, told_mu=PROX)
    assert np.abs(with_weight - without).max() > 0.01


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_decoupled_without_a_clip_is_the_objective_itself_row_by_row(level, estimator):
    rows = batch()
    inner = Objective(divergence="rkl", beta=BETA, estimator=estimator, level=level, clip="none")
    with_prox = gradient(Corrected(objective=inner, correction=DecoupledCorrection(level=level)), *rows)
    torch.testing.assert_close(with_prox, gradient(inner, *rows), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("recipe", ["grpo", "rpg-reinforce-urkl", "gspo"])
def test_where_mu_is_prox_every_correction_changes_nothing(recipe, kind, level):
    log_pi, log_mu, log_ref, _, advantages, mask = batch()
    rows = (log_pi, log_mu, log_ref, log_mu, advantages, mask)
    inner = RECIPES[recipe].make_objective()
    corrected = prepare(Corrected(objective=inner, correction=kind(level=level)), *rows)
    torch.testing.assert_close(gradient(corrected, *rows), gradient(inner, *rows), atol=1e-14, rtol=0)


def test_the_clip_acts_on_pi_over_prox_and_not_on_pi_over_mu():
    """π = prox, far from μ: nothing is clipped, and each good token has the weight prox/μ = e."""
    log_pi = torch.full((1, 2), -1.0, dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    rows = (log_pi, log_pi - 1, None, log_pi, torch.ones(1, dtype=torch.float64), mask)
    inner = Objective(beta=0.0, clip=DualClip(0.2, 0.2, math.inf))
    assert not gradient(inner, *rows).any()
    torch.testing.assert_close(gradient(Corrected(objective=inner), *rows), torch.full_like(log_pi, -math.e / 2))


@pytest.mark.parametrize(
    ("correction", "weights"),
    [
        (DecoupledCorrection(), [0.25, 1.0, 3.0, 8.0]),
        (TruncatedCorrection(high=2.0), [0.25, 1.0, 2.0, 2.0]),
        (MaskedCorrection(low=0.5, high=5.0), [0.0, 1.0, 3.0, 0.0]),
    ],
)
def test_each_rule_makes_of_prox_over_mu_what_it_says(correction, weights):
    """One token a row with b = ¼, 1, 3, 8 and π = prox: the gradient is −b̄·A over four sequences."""
    log_b = torch.tensor([[0.25], [1.0], [3.0], [8.0]], dtype=torch.float64).log()
    log_pi = torch.full((4, 1), -4.0, dtype=torch.float64)
    rows = (log_pi, log_pi - log_b, None, log_pi, torch.ones(4, dtype=torch.float64), torch.ones(4, 1).bool())
    actual = gradient(Corrected(objective=Objective(beta=0.0, clip="none"), correction=correction), *rows)[:, 0]
    torch.testing.assert_close(actual, -torch.tensor(weights, dtype=torch.float64) / 4)


def test_normalised_weights_have_mean_one_over_the_minibatch():
    """Of min(b, 2) = ¼, 1, 2, 2 the mean is 21/16."""
    log_b = torch.tensor([[0.25], [1.0], [3.0], [8.0]], dtype=torch.float64).log()
    log_pi = torch.full((4, 1), -4.0, dtype=torch.float64)
    rows = (log_pi, log_pi - log_b, None, log_pi, torch.ones(4, dtype=torch.float64), torch.ones(4, 1).bool())
    made = Corrected(objective=Objective(beta=0.0, clip="none"), correction=NormalisedCorrection(high=2.0))
    with pytest.raises(ValueError, match=r"call prepare\(…\) on it first"):
        gradient(made, *rows)
    actual = gradient(prepare(made, *rows), *rows)[:, 0]
    torch.testing.assert_close(actual, -torch.tensor([0.25, 1.0, 2.0, 2.0], dtype=torch.float64) / (21 / 16) / 4)


def test_a_sequence_weight_is_the_product_over_its_counted_tokens():
    log_prox = torch.full((2, 3), -1.0, dtype=torch.float64)
    log_mu = log_prox - torch.tensor([[0.1, 0.2, 0.4], [0.3, math.nan, math.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rows = (log_prox, log_mu, None, log_prox, torch.ones(2, dtype=torch.float64), mask)
    actual = gradient(
        Corrected(objective=Objective(beta=0.0, clip="none"), correction=DecoupledCorrection(level="sequence")), *rows
    )
    torch.testing.assert_close(actual, -torch.where(mask, torch.tensor([[0.7], [0.3]]).double().exp(), 0.0) / 4)


def test_the_off_policy_mask_drops_the_bad_responses_that_the_policy_no_longer_says():
    """Mean log(μ/π) is 0.6 in the first two rows and 0.4 in the others; δ = 0.5 drops the bad one of the first two."""
    log_pi = torch.full((4, 2), -2.0, dtype=torch.float64)
    log_mu = log_pi + torch.tensor([[0.1, 1.1], [0.6, 0.6], [0.4, 0.4], [0.8, 0.0]], dtype=torch.float64)
    advantages = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    rows = (log_pi, log_mu, None, None, advantages, torch.ones(4, 2).bool())
    inner = Objective(beta=0.0, clip="none")
    masked = Corrected(objective=inner, correction=NoCorrection(off_policy_mask=0.5))
    assert not masked.needs_log_prox
    kept = torch.tensor([[0.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient(masked, *rows), gradient(inner, *rows) * kept)
    assert masked(log_pi, log_mu, None, advantages, rows[-1]).metrics["off_policy_mask_fraction"] == 0.25


def test_with_advantages_per_token_the_mask_drops_the_bad_tokens_of_a_far_response():
    log_pi = torch.full((1, 3), -2.0, dtype=torch.float64)
    advantages = torch.tensor([[-1.0, 0.5, -2.0]], dtype=torch.float64)
    rows = (log_pi, log_pi + 1, None, None, advantages, torch.ones(1, 3).bool())
    masked = Corrected(objective=Objective(beta=0.0, clip="none"), correction=NoCorrection(off_policy_mask=0.5))
    assert (gradient(masked, *rows) != 0).tolist() == [[False, True, False]]


@pytest.mark.parametrize("clip", [DualClip(), SecondMoment(0.1)], ids=["dual", "second-moment"])
def test_micro_batches_add_up_to_the_whole(clip):
    rows = batch(num_rows=9)
    inner = Objective(beta=BETA, divergence="rkl", clip=clip)
    correction = NormalisedCorrection(high=2.0, level="sequence", off_policy_mask=0.3)
    made = Corrected(objective=inner, correction=correction)
    whole = prepare(made, *rows)
    parts = [tuple(values[start : start + 2] for values in rows) for start in range(0, 9, 2)]
    total = whole.normalizer(rows[-1])
    added = torch.cat([gradient(whole, *part, normalizer=total) for part in parts])
    torch.testing.assert_close(added, gradient(whole, *rows), atol=1e-14, rtol=0)


def test_metrics_say_of_which_two_policies_they_are():
    log_pi, log_mu, log_ref, log_prox, advantages, mask = batch()
    inner = Objective(beta=BETA, divergence="rkl", level="sequence")
    corrected = Corrected(objective=inner, correction=MaskedCorrection(low=0.5, high=5.0))
    out = corrected(log_pi, log_mu, log_ref, advantages, mask, log_prox=log_prox)
    of_mu = inner(log_pi, log_mu, log_ref, advantages, mask).metrics
    of_prox = inner(log_pi, log_prox, log_ref, advantages, mask).metrics
    for name in ("kl_mu_pi", "kl_pi_ref", "ess_token", "ess_sequence", "w_mean", "w_p99"):
        assert out.metrics[name] == pytest.approx(of_mu[name]), name
    assert out.metrics["kl_prox_pi"] == pytest.approx(of_prox["kl_mu_pi"])
    assert out.metrics["prox_w_p99"] == pytest.approx(of_prox["w_p99"])
    # A sequence of which the correction drops every token has no gradient that a clip could change.
    kept = (mask & ((log_prox - log_mu).exp() >= 0.5) & ((log_prox - log_mu).exp() <= 5)).any(dim=1)
    rows = [inner(*(each[row : row + 1] for each in (log_pi, log_prox, log_ref, advantages, mask))) for row in range(8)]
    is_high = torch.tensor([row.metrics["clip_high_fraction"] for row in rows])
    assert out.metrics["clip_high_fraction"] == float((is_high * kept).mean())
    assert float(is_high.mean()) == of_prox["clip_high_fraction"]
    b = (log_prox - log_mu)[mask].exp()
    assert out.metrics["behaviour_w_mean"] == pytest.approx(float(b.mean()))
    assert out.metrics["behaviour_ess"] == pytest.approx(float(b.sum() ** 2 / (b**2).sum() / len(b)))
    assert out.metrics["behaviour_cut_fraction"] == pytest.approx(float(((b < 0.5) | (b > 5)).double().mean()))


@pytest.mark.parametrize(
    ("correction", "wanted"),
    [
        (DecoupledCorrection(), 0.5),
        (MaskedCorrection(low=0.5, high=2.0), 0.25),  # the first response has prox/μ = e
        (NoCorrection(), 0.5),
        (NoCorrection(off_policy_mask=0.5), 0.25),  # in the second, A < 0 and the mean of log(μ/π) is 1
    ],
)
def test_what_the_correction_leaves_out_is_not_counted_as_clipped(correction, wanted):
    """Two responses of two tokens; without weights the clip changes the gradient of one token in each."""
    log_mu = torch.full((2, 2), -3.0)
    log_pi = log_mu + torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    log_prox = log_mu + torch.tensor([[1.0, 1.0], [0.0, 0.0]]) if correction.rule is not None else None
    if correction.rule is not None:
        log_pi = log_pi + torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    advantages, mask = torch.tensor([1.0, -1.0]), torch.ones(2, 2, dtype=torch.bool)
    made = Corrected(objective=Objective(beta=0.0, clip=DualClip()), correction=correction)
    metrics = made(log_pi, log_mu, None, advantages, mask, log_prox=log_prox).metrics
    assert metrics["clip_low_fraction"] + metrics["clip_high_fraction"] == wanted


def test_extreme_weights_stay_finite_and_are_counted():
    log_pi = torch.full((2, 2), -1.0)
    log_mu = torch.tensor([[-301.0, -1.0], [299.0, -1.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    made = Corrected(objective=Objective(beta=0.0))
    out = made(log_pi.requires_grad_(), log_mu, None, torch.ones(2), mask, log_prox=torch.full((2, 2), -1.0))
    out.loss.backward()
    assert out.loss.isfinite()
    assert log_pi.grad is not None and log_pi.grad.isfinite().all()
    assert all(math.isfinite(value) for value in out.metrics.values())
    assert out.metrics["num_behaviour_bound_hits"] == 2


def test_what_is_masked_out_may_hold_anything():
    log_pi, log_mu, log_ref, log_prox, advantages, mask = batch()
    correction = MaskedCorrection(high=2.0, level="sequence", off_policy_mask=0.2)
    made = Corrected(objective=Objective(beta=BETA), correction=correction)
    clean = gradient(made, log_pi, log_mu, log_ref, log_prox, advantages, mask)
    dirty = (torch.where(mask, values, math.nan) for values in (log_pi, log_mu, log_ref, log_prox))
    torch.testing.assert_close(gradient(made, *dirty, advantages, mask), clean)


def test_a_batch_without_a_counted_token_is_a_loss_of_zero():
    log_pi, log_mu, log_ref, log_prox, advantages, mask = batch()
    made = Corrected(objective=Objective(beta=BETA))
    out = made(log_pi, log_mu, log_ref, advantages, mask & False, log_prox=log_prox)
    assert (float(out.loss), out.metrics) == (0.0, {})


def test_what_is_missing_or_makes_no_sense_is_an_error():
    log_pi, log_mu, log_ref, log_prox, advantages, mask = batch()
    made = Corrected(objective=Objective(beta=BETA))
    with pytest.raises(ValueError, match="log_prox is None, and the correction weighs by prox/μ"):
        made(log_pi, log_mu, log_ref, advantages, mask)
    with pytest.raises(ValueError, match="log_mu is None, and a correction compares with it"):
        made(log_pi, None, log_ref, advantages, mask, log_prox=log_prox)
    with pytest.raises(ValueError, match="log_prox is nan at row 0, position 0"):
        made(log_pi, log_mu, log_ref, advantages, mask, log_prox=log_prox * math.nan)
    with pytest.raises(ValueError, match="needs an objective that forms π/μ, got ratio = 'none'"):
        Corrected(objective=RECIPES["asymre"].make_objective())
    with pytest.raises(ValueError, match="off_policy_mask must be > 0 nats per token"):
        MaskedCorrection(off_policy_mask=-1.0)


@pytest.mark.parametrize("kind", [TruncatedCorrection, NormalisedCorrection, MaskedCorrection])
@pytest.mark.parametrize("high", [1.0, 0.5, -1.0, math.nan])
def test_a_largest_weight_is_above_one(kind, high: float):
    with pytest.raises(ValueError, match="correction high must be > 1"):
        kind(high=high)


@pytest.mark.parametrize("low", [1.0, -0.1, math.nan])
def test_a_smallest_weight_is_below_one(low: float):
    with pytest.raises(ValueError, match=r"correction low must be in \[0, 1\)"):
        MaskedCorrection(low=low)


def test_it_is_a_loss_and_takes_its_objectives_place():
    inner = RECIPES["rpg-reinforce-urkl"].make_objective()
    made = Corrected(objective=inner)
    assert isinstance(made, Loss)
    assert (made.beta, made.needs_log_ref, made.needs_log_prox) == (inner.beta, True, True)
    assert not made.needs_minibatch
    assert Corrected(objective=inner, correction=NormalisedCorrection()).needs_minibatch
    assert Corrected(objective=dataclasses.replace(inner, clip=SecondMoment())).needs_minibatch
