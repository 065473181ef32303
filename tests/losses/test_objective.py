"""Masks, bounds, reductions, metrics and errors of the objective."""

import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from klimb.divergences import DIVERGENCES
from klimb.experience import Sample, collate
from klimb.losses import CLIPS, Inputs, Objective, effective_sample_share
from klimb.losses.objective import PENALTIES
from tests.losses.enumerated import BEHAVIOUR, POLICY, REFERENCE, log_of, log_probs
from tests.oracle import world
from tests.oracle.formulas import DIVERGENCES as FORMULAS

LEVELS = ("token", "prefix", "sequence", "sequence-mean")
ESTIMATORS = ("reinforce", "differentiable")
REDUCTIONS = ("token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum", 7)


def batch(num_rows: int = 8, time: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    log_pi, log_mu, log_ref = (-torch.rand(num_rows, time, generator=generator, dtype=dtype) * 3 for _ in range(3))
    advantages = torch.randn(num_rows, generator=generator, dtype=dtype)
    lengths = torch.randint(1, time + 1, (num_rows,), generator=generator)
    return log_pi, log_mu, log_ref, advantages, torch.arange(time) < lengths[:, None]


def gradient(objective, log_pi, log_mu, log_ref, advantages, mask, **options) -> torch.Tensor:
    leaf = log_pi.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf, log_mu, log_ref, advantages, mask, **options).loss, leaf)[0]


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_positions_carry_no_value_and_no_gradient_whatever_they_hold(estimator, level, garbage):
    log_pi, log_mu, log_ref, advantages, mask = batch()
    dirty = [torch.where(mask, tensor, garbage) for tensor in (log_pi, log_mu, log_ref)]
    per_token = torch.where(mask, advantages[:, None], garbage)
    objective = Objective(divergence="rkl", beta=0.3, estimator=estimator, level=level)
    clean = gradient(objective, log_pi, log_mu, log_ref, advantages, mask)
    actual = gradient(objective, *dirty, per_token, mask)
    torch.testing.assert_close(actual, clean, atol=1e-15, rtol=0)
    assert not actual[~mask].any()
    out = objective(*dirty, per_token, mask, entropy=dirty[0].abs())
    assert not out.terms[~mask].any()
    assert all(math.isfinite(value) for value in out.metrics.values())


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", [*DIVERGENCES, "alpha:-1", *PENALTIES])
def test_float32_stays_finite_at_log_ratios_of_200_and_the_bound_is_counted(name, estimator, level, clip):
    log_pi = torch.full((4, 3), -1.0)
    log_mu = torch.tensor([[-201.0], [199.0], [-1.0], [-1.0]]).expand(4, 3)
    log_ref = torch.tensor([[-1.0], [-1.0], [-201.0], [199.0]]).expand(4, 3)
    mask = torch.ones(4, 3, dtype=torch.bool)
    objective = Objective(divergence=name, beta=0.1, estimator=estimator, level=level, clip=clip)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    objective, _ = objective.prepare(Inputs(log_pi, log_mu, log_ref, advantages, mask))
    out = objective(log_pi, log_mu, log_ref, advantages, mask)
    assert out.loss.isfinite()
    assert gradient(objective, log_pi, log_mu, log_ref, advantages, mask).isfinite().all()
    assert all(math.isfinite(value) for value in out.metrics.values())
    assert out.metrics["num_bound_hits"] == (12 if level in ("token", "prefix") else 4)


def test_a_bounded_weight_still_learns_and_the_estimators_still_agree():
    log_pi, log_mu = torch.full((1, 1), -1.0), torch.full((1, 1), -41.0)
    mask = torch.ones(1, 1, dtype=torch.bool)
    slopes = [
        gradient(
            Objective(divergence="urkl", beta=0.1, estimator=estimator, clip="none"),
            log_pi, log_mu, log_mu, torch.tensor([1.0]), mask,
        )
        for estimator in ESTIMATORS
    ]  # fmt: skip
    expected = -math.exp(20) * (1 - 0.1 * 40)
    torch.testing.assert_close(slopes[0], torch.full((1, 1), expected))
    torch.testing.assert_close(slopes[1], slopes[0])


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_eight_micro_batches_of_one_give_the_gradient_of_one_batch_of_eight(estimator, level, reduce):
    tensors = batch()
    mask = tensors[-1]
    objective = Objective(beta=0.3, estimator=estimator, level=level, reduce=reduce)
    whole = gradient(objective, *tensors)
    total = objective.normalizer(mask)
    parts = [gradient(objective, *(t[row : row + 1] for t in tensors), normalizer=total) for row in range(8)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-15, rtol=1e-12)


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("token-mean", (1 + 2 + 3 + 10) / 4),
        ("sequence-mean-token-mean", ((1 + 2 + 3) / 3 + 10) / 2),
        ("sequence-mean-token-sum", (6 + 10) / 2),
        (8, 16 / (2 * 8)),
    ],
)
def test_reductions_by_hand(reduce, expected):
    """With π = μ, β = 0 and A = −1 …, the differentiable term is −A; the last row is padding and no sequence."""
    zeros = torch.zeros(3, 3)
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    advantages = -torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0], [5.0, 5.0, 5.0]])
    out = Objective(beta=0.0, estimator="differentiable", reduce=reduce)(zeros, zeros, None, advantages, mask)
    assert float(out.loss) == pytest.approx(expected)


@pytest.mark.parametrize("level", LEVELS)
def test_a_rows_terms_sum_to_its_loss(level):
    """β = 0, no clip, differentiable: −A·w summed over units, with w of the level."""
    log_pi, log_mu, log_ref, advantages, mask = batch()
    out = Objective(beta=0.0, estimator="differentiable", level=level, clip="none")(
        log_pi, log_mu, log_ref, advantages, mask
    )
    for row in range(8):
        log_w = (log_pi - log_mu)[row][mask[row]]
        weights = {
            "token": log_w.exp().sum(),
            "prefix": log_w.cumsum(0).exp().sum(),
            "sequence": log_w.sum().exp(),
            "sequence-mean": log_w.mean().exp(),
        }
        assert float(out.terms[row].sum()) == pytest.approx(float(-advantages[row] * weights[level]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(LEVELS), padding=st.integers(1, 4))
def test_neither_the_order_of_rows_nor_padding_matters(seed, level, padding):
    tensors = batch(seed=seed)
    objective = Objective(divergence="jeffreys", beta=0.2, level=level)
    loss = objective(*tensors).loss
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(objective(*(t[order] for t in tensors)).loss, loss)
    wide = [torch.nn.functional.pad(t, (0, padding)) if t.ndim == 2 else t for t in tensors]
    torch.testing.assert_close(objective(*wide).loss, loss)


def test_a_batch_without_counted_tokens_has_loss_zero_and_no_gradient():
    log_pi, log_mu, log_ref, advantages, mask = batch()
    out = Objective()(log_pi.requires_grad_(), log_mu, log_ref, advantages, torch.zeros_like(mask))
    out.loss.backward()
    assert float(out.loss.detach()) == 0
    assert not log_pi.grad.any()
    assert out.metrics == {}


def test_half_precision_is_widened_and_double_stays_double():
    log_pi, log_mu, log_ref, advantages, mask = batch()
    assert Objective()(log_pi, log_mu, log_ref, advantages, mask).loss.dtype == torch.float64
    half = [t.bfloat16() for t in (log_pi, log_mu, log_ref, advantages)]
    assert Objective()(*half, mask).loss.dtype == torch.float32


def test_no_gradient_reaches_anything_but_log_pi():
    log_pi, log_mu, log_ref, advantages, mask = batch()
    leaves = [t.requires_grad_() for t in (log_pi, log_mu, log_ref, advantages)]
    Objective(beta=0.5, estimator="differentiable")(*leaves, mask).loss.backward()
    assert leaves[0].grad is not None
    assert [leaf.grad for leaf in leaves[1:]] == [None, None, None]


def test_kl_metrics_are_unbiased_in_the_enumerated_world():
    """Weighted by the visits under μ, the per-token estimates give the exact divergences of next-token choices."""
    table = torch.from_numpy(POLICY)
    log_mu = log_of(BEHAVIOUR)
    mu = torch.from_numpy(world.token_probabilities(BEHAVIOUR).prod(1))
    mask = torch.from_numpy(world.MASK)
    visits = {p: sum(float(mu[i]) for i, y in enumerate(world.SEQUENCES) if y[: len(p)] == p and len(y) > len(p))
              for p in world.PREFIXES}  # fmt: skip
    pi = world.conditionals(POLICY)
    exact = {
        "kl_pi_ref": sum(visits[p] * FORMULAS["rkl"](pi[r], REFERENCE[r]).sum() for p, r in world.ROW.items()),
        "kl_ref_pi": sum(visits[p] * FORMULAS["rkl"](REFERENCE[r], pi[r]).sum() for p, r in world.ROW.items()),
        "kl_mu_pi": sum(visits[p] * FORMULAS["rkl"](BEHAVIOUR[r], pi[r]).sum() for p, r in world.ROW.items()),
    }
    totals = dict.fromkeys(exact, 0.0)
    for i in range(len(world.SEQUENCES)):
        row = slice(i, i + 1)
        advantages = torch.zeros(1, dtype=torch.float64)
        out = Objective()(log_probs(table)[row], log_mu[row], log_of(REFERENCE)[row], advantages, mask[row])
        for name in totals:
            totals[name] += float(mu[i]) * int(world.LENGTHS[i]) * out.metrics[name]
    assert totals == pytest.approx(exact, abs=1e-9)


def test_effective_sample_share_by_hand():
    """Weights 1, 1, 2: (1 + 1 + 2)² / (3·(1 + 1 + 4)) = 16/18; equal weights give 1, one survivor of n gives 1/n."""
    assert float(effective_sample_share(torch.tensor([1.0, 1.0, 2.0]).log())) == pytest.approx(16 / 18)
    assert 1 - 1e-4 < float(effective_sample_share(torch.full((5,), 300.0))) <= 1
    assert float(effective_sample_share(torch.tensor([500.0, 0.0, 0.0, 0.0]))) == pytest.approx(0.25)


def test_effective_sample_shares_are_of_token_mean_and_sequence_weights():
    log_w = torch.tensor([[0.0, math.log(2)], [math.log(3), 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    zeros = torch.zeros_like(log_w)
    metrics = Objective(beta=0.0)(log_w, zeros, None, torch.zeros(2), mask).metrics
    share = lambda *w: sum(w) ** 2 / (len(w) * sum(x * x for x in w))  # noqa: E731
    assert metrics["ess_token"] == pytest.approx(share(1, 2, 3))
    assert metrics["ess_sequence"] == pytest.approx(share(2, 3))
    assert metrics["ess_normalised"] == pytest.approx(share(math.sqrt(2), 3))


def test_weight_metrics_by_hand():
    log_w = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64).log()
    mask = torch.ones(1, 3, dtype=torch.bool)
    entropy = torch.tensor([[1.0, 2.0, 6.0]])
    out = Objective(beta=0.0)(log_w, torch.zeros_like(log_w), None, torch.zeros(1), mask, entropy=entropy)
    assert out.metrics["w_mean"] == pytest.approx(2)
    assert out.metrics["w_p50"] == pytest.approx(2)
    assert out.metrics["w_max"] == pytest.approx(3)
    assert out.metrics["w_p01"] == pytest.approx(np.quantile([1, 2, 3], 0.01))
    assert out.metrics["entropy"] == pytest.approx(3)
    assert "kl_pi_ref" not in out.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "beta must be finite and >= 0, got -0.1"),
        ({"beta": math.nan}, "beta must be finite"),
        ({"divergence": "rlk"}, "did you mean 'rkl'"),
        ({"estimator": "reinforced"}, "did you mean 'reinforce'"),
        ({"level": "tokens"}, "did you mean 'token'"),
        ({"clip": "duel"}, "did you mean 'dual'"),
        ({"reduce": "mean"}, "unknown reduce 'mean'"),
        ({"reduce": 0}, r"reduce \(a fixed length\) must be > 0"),
        ({"weight_bound": 0.0}, "weight_bound must be > 0"),
    ],
)
def test_settings_out_of_range_are_errors(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match=message):
        Objective(**options)


def replaced(index: int, tensor: object) -> list:
    tensors: list = list(batch(4, 3))
    tensors[4] = torch.ones(4, 3, dtype=torch.bool)
    tensors[index] = tensor
    return tensors


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (replaced(1, torch.zeros(4, 2)), r"log_mu must have the shape of log_pi, \[4, 3\], got \[4, 2\]"),
        (replaced(2, None), "log_ref is None but beta"),
        (replaced(3, torch.zeros(3)), r"advantages must be \[batch\] or \[batch, time\]"),
        (replaced(4, torch.ones(4, 3)), "mask must be boolean"),
        (replaced(4, torch.ones(4, 9, dtype=torch.bool)), r"mask must have the shape of log_pi"),
        (replaced(1, torch.full((4, 3), -math.inf)), "log_mu is -inf at row 0, position 0, which counts"),
        (replaced(3, torch.tensor([0.0, math.nan, 0.0, 0.0])), "advantages is nan at row 1"),
    ],
)
def test_bad_tensors_are_errors(inputs, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match=message):
        Objective()(*inputs)


@pytest.mark.parametrize("name", ["entropy", "log_prox"])
def test_what_is_given_by_name_has_the_shape_of_log_pi_too(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match=f"{name} must have the shape of log_pi"):
        Objective()(*batch(4, 3), **{name: torch.zeros(4, 2)})


def test_a_loss_takes_inputs_or_their_fields():
    objective, tensors, entropy = Objective(beta=0.3), batch(), torch.rand(8, 5)
    of_fields = objective(*tensors, entropy=entropy, normalizer=7.0)
    of_inputs = objective(Inputs(*tensors, entropy=entropy, normalizer=7.0))
    assert torch.equal(of_fields.terms, of_inputs.terms)
    assert (float(of_fields.loss), of_fields.metrics) == (float(of_inputs.loss), of_inputs.metrics)


@pytest.mark.parametrize("per_token", [False, True])
def test_selected_rows_have_their_own_losses_without_columns_in_which_none_of_them_counts(per_token):
    log_pi, log_mu, log_ref, advantages, _ = batch(4, 6)
    mask = torch.arange(6) < torch.tensor([[6], [2], [3], [1]])
    advantages = advantages[:, None] * torch.arange(1.0, 7.0) if per_token else advantages
    whole = Inputs(log_pi, log_mu, log_ref, advantages, mask, entropy=-log_pi, log_prox=log_mu, normalizer=9.0)
    part = whole.select([2, 1])
    assert part.mask.tolist() == [[True, True, True], [True, True, False]]
    assert part.normalizer == 9
    terms = Objective(beta=0.3)(whole).terms
    torch.testing.assert_close(Objective(beta=0.3)(part).terms, terms[[2, 1], :3])


def test_a_batch_gives_inputs_with_what_the_policy_says_of_it():
    sample = Sample(
        sample_id="a",
        group_id="g",
        prompt=(),
        prompt_ids=(1,),
        response="",
        response_ids=(2, 3),
        finish_reason="stop",
        log_mu=(-1.0, -2.0),
        log_mu_provenance="sampler",
        log_ref=(-3.0, -4.0),
    )
    collated = collate([sample, replace(sample, sample_id="b", group_id="h")], torch.tensor([1.0, -1.0]))
    inputs = Inputs.of(collated, torch.full((2, 2), -0.5), groups=collated.groups)
    assert inputs.log_mu is collated.log_mu
    assert inputs.log_ref is collated.log_ref
    assert inputs.advantages is collated.advantages
    assert inputs.mask is collated.mask
    assert inputs.groups is not None and inputs.groups.tolist() == [0, 1]


def test_a_sequence_level_refuses_advantages_that_differ_within_a_row():
    log_pi, log_mu, log_ref, advantages, mask = batch()
    per_token = advantages[:, None].expand_as(mask).clone()
    Objective(level="sequence")(log_pi, log_mu, log_ref, per_token, mask)
    row = int(mask.sum(1).argmax())
    per_token[row, 0] += 1
    with pytest.raises(ValueError, match=f"advantages of row {row} differ"):
        Objective(level="sequence")(log_pi, log_mu, log_ref, per_token, mask)


def test_a_policy_that_produces_nan_gives_a_loss_that_is_not_finite():
    log_pi, log_mu, log_ref, advantages, mask = batch()
    log_pi[0, 0] = math.nan
    assert not Objective()(log_pi, log_mu, log_ref, advantages, mask).loss.isfinite()
