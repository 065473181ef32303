"""What others put into a conversation is read by the policy and by no loss: it has no gradient, weight or length."""

from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from klimb.losses import (
    CLIPS,
    AutomaticCorrection,
    Corrected,
    DecoupledCorrection,
    Inputs,
    KtoObjective,
    Loss,
    MaskedCorrection,
    NoCorrection,
    NormalisedCorrection,
    Objective,
    PairwiseLoss,
    SquaredResidual,
    TruncatedCorrection,
    build_loss,
)
from klimb.losses.names import ANCHORS, ESTIMATORS, LEVELS, PAIR_FORMS, REDUCTIONS, SEQUENCE_LEVELS, VALUES, Level
from klimb.losses.settings import CORRECTION_CHOICES, LOSSES
from klimb.training.recipes import RECIPES

REDUCES = (*REDUCTIONS, 9)
CORRECTIONS = (
    NoCorrection(off_policy_mask=0.05),
    *(
        correction
        for level in get_args(Level)
        for correction in (
            DecoupledCorrection(level=level),
            TruncatedCorrection(level=level, high=1.1),
            NormalisedCorrection(level=level, high=1.5, off_policy_mask=0.05),
            MaskedCorrection(level=level, low=0.8, high=1.3, off_policy_mask=0.05),
        )
    ),
)

MASK = torch.tensor(
    [
        [1, 1, 0, 0, 0, 1, 1, 1, 0, 0],  # an answer between two turns
        [1, 0, 1, 0, 0, 1, 0, 0, 0, 1],  # three of them
        [0, 0, 1, 1, 1, 1, 0, 0, 0, 0],  # what was said first was not the policy's
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],  # what was said last was not
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],  # one turn alone
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # nothing counts here
    ]
).bool()
GROUPS = torch.tensor([0, 0, 1, 1, 1, 2])


@dataclass(frozen=True)
class Result:
    """What a loss says, and its gradient with respect to log_pi and the entropy."""

    loss: float
    terms: Tensor
    metrics: dict[str, float]
    of_log_pi: Tensor
    of_entropy: Tensor


def make_inputs(loss: Loss, *, advantages_by_token: bool = False) -> Inputs:
    """Return policies near enough to each other that a clip lets some tokens pass and stops others.

    Of the two bad responses the policy says the first no longer, so that an off-policy mask leaves it out.
    """
    generator = torch.Generator().manual_seed(5)

    def draw(scale: float) -> Tensor:
        return scale * torch.randn(MASK.shape, dtype=torch.float64, generator=generator)

    log_mu = -draw(1.0).abs() - 0.1
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    by_row = signs if isinstance(loss, KtoObjective) else signs * draw(1.0)[:, 0].abs()
    shift = torch.tensor([0.0, -0.4, 0.0, 0.2, 0.0, 0.0], dtype=torch.float64)[:, None]
    return Inputs(
        log_pi=log_mu + draw(0.3) + shift * MASK,
        log_mu=log_mu,
        log_ref=log_mu + draw(0.3),
        advantages=draw(1.0) if advantages_by_token else by_row,
        mask=MASK,
        entropy=draw(1.0).abs(),
        log_prox=log_mu + draw(0.2),
        groups=GROUPS,
    )


def run(loss: Loss, inputs: Inputs) -> Result:
    """Return what the loss says of the whole minibatch at once."""
    assert inputs.entropy is not None
    log_pi, entropy = inputs.log_pi.clone().requires_grad_(), inputs.entropy.clone().requires_grad_()
    if loss.needs_minibatch:
        loss, inputs = loss.prepare(inputs)
    out = loss(replace(inputs, log_pi=log_pi, entropy=entropy))
    out.loss.backward()
    return Result(float(out.loss.detach()), out.terms.detach(), out.metrics, _gradient(log_pi), _gradient(entropy))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def poison(inputs: Inputs) -> Inputs:
    """Return the inputs with what is no number, or no log-probability, wherever nothing was drawn."""
    bad = torch.tensor([float("nan"), float("inf"), float("-inf"), 1e30, -700.0], dtype=torch.float64)

    def spoil(values: Tensor | None, shift: int) -> Tensor | None:
        if values is None or values.ndim == 1:
            return values
        places = (torch.arange(values.numel()).view(values.shape) + shift) % len(bad)
        return torch.where(inputs.mask, values, bad[places])

    names = ("log_pi", "log_mu", "log_ref", "advantages", "entropy", "log_prox")
    return replace(inputs, **{name: spoil(getattr(inputs, name), shift) for shift, name in enumerate(names)})


def close(values: Tensor) -> Tensor:
    """Return the drawn tokens of each row side by side, as if nothing had been said between."""
    order = (~MASK).int().argsort(dim=1, stable=True)
    return values.gather(1, order)[:, : int(MASK.sum(dim=1).max())]


def without_context(inputs: Inputs) -> Inputs:
    """Return the same turns as one each: the drawn tokens alone."""
    names = ("log_pi", "log_mu", "log_ref", "mask", "entropy", "log_prox")
    changes = {name: close(getattr(inputs, name)) for name in names}
    if inputs.advantages.ndim == 2:
        changes["advantages"] = close(inputs.advantages)
    return replace(inputs, **changes)


def check_context(loss: Loss, *, advantages_by_token: bool = False) -> None:
    """Assert that neither what stands at undrawn tokens nor their number changes anything."""
    inputs = make_inputs(loss, advantages_by_token=advantages_by_token)
    result = run(loss, inputs)
    assert result.metrics
    assert bool((result.of_log_pi != 0).any()) or bool((result.of_entropy != 0).any())
    assert not result.of_log_pi[~MASK].any()
    assert not result.of_entropy[~MASK].any()
    assert not result.terms[~MASK].any()
    _check_equal(run(loss, poison(inputs)), result)
    _check_close(run(loss, without_context(inputs)), result)
    _check_micro_batches(loss, poison(inputs), result)


def _check_equal(found: Result, expected: Result) -> None:
    """To the last bit."""
    assert found.loss == expected.loss
    assert found.metrics == expected.metrics
    for name in ("terms", "of_log_pi", "of_entropy"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def _check_close(found: Result, expected: Result) -> None:
    """Up to the order of sums."""
    assert found.loss == pytest.approx(expected.loss, rel=1e-12, abs=1e-15)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-12, abs=1e-15)
    for name in ("terms", "of_log_pi", "of_entropy"):
        torch.testing.assert_close(getattr(found, name), close(getattr(expected, name)), rtol=1e-12, atol=1e-15)


def _check_micro_batches(loss: Loss, inputs: Inputs, expected: Result) -> None:
    """A minibatch in portions, each as narrow as its last drawn token, has the loss and gradient of the whole."""
    log_pi = inputs.log_pi.clone().requires_grad_()
    if loss.needs_minibatch:
        loss, inputs = loss.prepare(inputs)
    inputs = replace(inputs, log_pi=log_pi, normalizer=loss.normalizer(inputs.mask))
    total = sum((loss(inputs.select(rows)).loss for rows in ([3, 1], [2], [5], [0, 4])), torch.zeros(()))
    assert float(total.detach()) == pytest.approx(expected.loss, rel=1e-12, abs=1e-15)
    (gradient,) = torch.autograd.grad(total, log_pi)
    torch.testing.assert_close(gradient, expected.of_log_pi, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", RECIPES)
def test_context_changes_nothing_in_any_recipe(name: str):
    loss = build_loss(RECIPES[name].objective, max_new_tokens=9)
    check_context(loss)
    if isinstance(loss, Objective):
        by_token = loss.level in ("token", "prefix")
        check_context(replace(loss, entropy_bonus=0.3), advantages_by_token=by_token)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_context_changes_nothing_in_any_clip(clip, level, estimator):
    check_context(Objective(clip=clip, estimator=estimator, level=level, divergence="rkl", beta=0.3))


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("level", LEVELS)
def test_context_changes_nothing_in_any_reduction(level, reduce):
    check_context(Objective(reduce=reduce, level=level, divergence="ufkl", beta=0.3, clip="none", entropy_bonus=0.2))


@pytest.mark.parametrize("divergence", ["fkl", "rkl", "ufkl", "urkl", "jensen-shannon", "k2-in-loss", "k3-in-loss"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_context_changes_nothing_in_any_divergence(divergence, estimator):
    check_context(Objective(divergence=divergence, beta=0.3, estimator=estimator, level="prefix", clip="none"))


@pytest.mark.parametrize("level", LEVELS)
def test_context_changes_nothing_where_there_is_no_ratio(level):
    check_context(Objective(ratio="none", divergence="rkl", beta=0.3, level=level, clip="none"))


@pytest.mark.parametrize("correction", CORRECTIONS, ids=lambda correction: f"{correction.kind}-{correction.level}")
def test_context_changes_nothing_in_any_correction(correction):
    objective = Objective(clip="second-moment", level=correction.level, divergence="urkl", beta=0.3, entropy_bonus=0.2)
    check_context(Corrected(objective=objective, correction=correction))


@pytest.mark.parametrize("level", SEQUENCE_LEVELS)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_context_changes_nothing_in_a_squared_residual(anchor, value, level):
    check_context(SquaredResidual(beta=0.3, anchor=anchor, value=value, level=level))


@pytest.mark.parametrize("reduce", REDUCES)
def test_context_changes_nothing_in_losses_for_logs_whatever_the_reduction(reduce):
    check_context(SquaredResidual(beta=0.3, reduce=reduce))
    check_context(KtoObjective(beta=0.3, reduce=reduce))


@pytest.mark.parametrize("level", SEQUENCE_LEVELS)
@pytest.mark.parametrize("form", PAIR_FORMS)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_context_changes_nothing_in_pairs(anchor, form, level):
    check_context(PairwiseLoss(beta=0.3, form=form, anchor=anchor, level=level))


def test_these_are_all_losses_and_all_corrections():
    assert set(LOSSES) == {"policy-gradient", "squared-residual", "kto", "pairwise"}
    assert {type(correction) for correction in CORRECTIONS} == set(CORRECTION_CHOICES.values()) - {AutomaticCorrection}


def test_some_tokens_are_clipped_and_some_responses_left_out_so_that_their_shares_mean_something():
    loss = Objective(clip="dual", level="token", beta=0.0)
    metrics = run(loss, make_inputs(loss)).metrics
    assert 0 < metrics["clip_low_fraction"] < 0.5
    assert 0 < metrics["clip_high_fraction"] < 0.5
    corrected = Corrected(objective=loss, correction=MaskedCorrection(low=0.8, high=1.3, off_policy_mask=0.05))
    metrics = run(corrected, make_inputs(loss)).metrics
    # One of the five responses that have a token.
    assert metrics["off_policy_mask_fraction"] == pytest.approx(0.2)
    assert 0 < metrics["behaviour_cut_fraction"] < 1
