"""Every clip, token by token, against the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from klimb.losses import (
    CLIPS,
    DualClip,
    Inputs,
    Mask,
    NoClip,
    Objective,
    ObjectiveSettings,
    SecondMoment,
    TotalVariation,
    Truncate,
    clip_named,
)
from klimb.losses.clips import LogBand
from klimb.losses.settings import OwnClip
from tests.oracle.formulas import KL_COMPONENT, algorithm_2, ppo_dual_clip

LOW, HIGH, CEILING = 0.2, 0.28, 3.0
BETA = 0.5
GRID = [
    (log_pi, log_w, advantage)
    for log_pi in (-3.0, -0.4)
    for log_w in (-2.0, -0.3, -0.1, 0.0, 0.1, 0.3, 0.9, 1.2, 2.5)
    for advantage in (-2.0, -0.3, 0.0, 0.4, 1.5)
]


def loss_and_slope(objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Loss of each grid token, ref = μ, and its derivative with respect to that token's log π."""
    grid = torch.tensor(GRID, dtype=torch.float64)
    log_pi = grid[:, :1].clone().requires_grad_()
    log_mu = grid[:, :1] - grid[:, 1:2]
    out = objective(log_pi, log_mu, log_mu, grid[:, 2], torch.ones_like(log_mu, dtype=torch.bool))
    slope = torch.autograd.grad(out.terms.sum(), log_pi)[0]
    return out.terms.detach().numpy()[:, 0], slope.numpy()[:, 0]


@pytest.mark.parametrize("name", KL_COMPONENT)
def test_reinforce_with_dual_clip_is_algorithm_2_token_by_token(name):
    objective = Objective(divergence=name, beta=BETA, estimator="reinforce", clip=DualClip(LOW, HIGH, CEILING))
    losses, slopes = loss_and_slope(objective)
    for (log_pi, log_w, advantage), loss, slope in zip(GRID, losses, slopes, strict=True):
        w = math.exp(log_w)
        c = BETA * float(KL_COMPONENT[name](np.array(w)))
        value, weight = algorithm_2(log_pi, w, advantage, c, LOW, HIGH, CEILING)
        assert loss == pytest.approx(value, abs=1e-12)
        assert slope == pytest.approx(-weight, abs=1e-12)


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_without_divergence_the_gradient_is_ppo_dual_clips(estimator):
    objective = Objective(beta=0.0, estimator=estimator, clip=DualClip(LOW, HIGH, CEILING))
    losses, slopes = loss_and_slope(objective)
    for (_, log_w, advantage), loss, slope in zip(GRID, losses, slopes, strict=True):
        value, expected = ppo_dual_clip(math.exp(log_w), advantage, LOW, HIGH, CEILING)
        assert slope == pytest.approx(expected, abs=1e-12)
        if estimator == "differentiable":
            assert loss == pytest.approx(value, abs=1e-12)


def test_reinforce_branches_on_the_sign_of_the_regularised_advantage():
    """A = 0.4 and FKL with β = −… is impossible, so RKL turns a good token bad: A − β·(log w + 1) < 0 at w = e^1.2."""
    objective = Objective(divergence="rkl", beta=BETA, estimator="reinforce", clip=DualClip(LOW, HIGH, CEILING))
    _, slopes = loss_and_slope(objective)
    at = GRID.index((-3.0, 1.2, 0.4))
    assert slopes[at] == 0  # regularised advantage is 0.4 − 0.5·2.2 < 0 and w = 3.32 is above the ceiling
    at = GRID.index((-3.0, 0.9, 0.4))
    assert slopes[at] == pytest.approx(-math.exp(0.9) * (0.4 - 0.5 * 1.9))  # bad, and below the ceiling: it learns


def test_differentiable_clips_the_reward_but_never_the_divergence():
    objective = Objective(divergence="urkl", beta=BETA, estimator="differentiable", clip=DualClip(LOW, HIGH, CEILING))
    _, slopes = loss_and_slope(objective)
    at = GRID.index((-0.4, 0.9, 1.5))  # good and beyond 1 + high: only β·∂(w·x − w + 1) = β·w·x is left
    assert slopes[at] == pytest.approx(BETA * math.exp(0.9) * 0.9)


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_truncate_bounds_the_weight_and_keeps_the_gradient(estimator):
    objective = Objective(beta=0.0, estimator=estimator, clip=Truncate(LOW, HIGH))
    _, slopes = loss_and_slope(objective)
    for (_, log_w, advantage), slope in zip(GRID, slopes, strict=True):
        assert slope == pytest.approx(-np.clip(math.exp(log_w), 1 - LOW, 1 + HIGH) * advantage, abs=1e-12)


def test_truncated_reinforce_weighs_the_whole_regularised_advantage():
    """Equation 4.1: clip(w)·(A + C/w)."""
    objective = Objective(divergence="urkl", beta=BETA, estimator="reinforce", clip=Truncate(LOW, HIGH))
    _, slopes = loss_and_slope(objective)
    for (_, log_w, advantage), slope in zip(GRID, slopes, strict=True):
        bounded = np.clip(math.exp(log_w), 1 - LOW, 1 + HIGH)
        assert slope == pytest.approx(-bounded * (advantage - BETA * log_w), abs=1e-12)


def test_mask_leaves_out_what_is_outside_the_band_and_changes_nothing_inside():
    masked, plain = (
        loss_and_slope(Objective(divergence="rkl", beta=BETA, clip=clip)) for clip in (Mask(0.5, 2.0), NoClip())
    )
    inside = np.array([0.5 <= math.exp(log_w) <= 2.0 for _, log_w, _ in GRID])
    np.testing.assert_array_equal(masked[0][inside], plain[0][inside])
    np.testing.assert_array_equal(masked[1][inside], plain[1][inside])
    assert not masked[0][~inside].any()
    assert not masked[1][~inside].any()


def test_masked_differentiable_keeps_the_divergence_outside_the_band():
    objective = Objective(divergence="urkl", beta=BETA, estimator="differentiable", clip=Mask(0.5, 2.0))
    _, slopes = loss_and_slope(objective)
    at = GRID.index((-0.4, 2.5, 1.5))
    assert slopes[at] == pytest.approx(BETA * math.exp(2.5) * 2.5)


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_total_variation_leaves_out_what_moved_too_far_the_way_the_advantage_pushes(estimator):
    """π − μ from the two probabilities themselves, not from w."""
    low, high, ceiling = 0.1, 0.15, 5.0
    objective = Objective(beta=0.0, estimator=estimator, clip=TotalVariation(low, high, ceiling))
    _, slopes = loss_and_slope(objective)
    branches = set()
    for (log_pi, log_w, advantage), slope in zip(GRID, slopes, strict=True):
        moved = math.exp(log_pi) - math.exp(log_pi - log_w)
        left = moved > high if advantage >= 0 else moved < -low
        branches.add((left, advantage >= 0))
        expected = 0.0 if left else -min(math.exp(log_w), ceiling) * advantage
        assert slope == pytest.approx(expected, abs=1e-12)
    assert len(branches) == 4


def test_total_variation_lets_a_rare_token_multiply_and_a_likely_one_move_little():
    """0.001 → 0.01 is w = 10 and stays; 0.5 → 0.75 is w = 1.5 and goes. A clip on w would say the opposite."""
    w, log_pi = torch.tensor([[10.0, 1.5]]), torch.tensor([[0.01, 0.75]]).log()
    clipped = TotalVariation(0.2, 0.2)(w, torch.ones(1, 2, dtype=torch.bool), log_pi)
    assert clipped.keep.tolist() == [[True, False]]
    assert DualClip()(w, torch.ones(1, 2, dtype=torch.bool)).keep.tolist() == [[False, False]]


def test_total_variation_without_probabilities_is_an_error():
    with pytest.raises(ValueError, match="call it with log_pi"):
        TotalVariation()(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))


def brute_force_kept(log_w: np.ndarray, threshold: float) -> np.ndarray:
    """Leaves out the largest (log w)² one after another until the mean of the rest is at most the threshold."""
    kept = np.ones(len(log_w), dtype=bool)
    while kept.any() and (log_w[kept] ** 2).mean() > threshold:
        kept[np.argmax(np.where(kept, np.abs(log_w), -1))] = False
    return kept


@pytest.mark.parametrize("threshold", [1e-6, 0.01, 0.04, 0.3, 10.0])
def test_second_moment_keeps_as_many_units_as_the_threshold_allows(threshold):
    log_w = 0.5 * np.random.default_rng(4).standard_t(3, size=200)
    w = torch.from_numpy(log_w).exp()[:, None]
    band = SecondMoment(threshold).prepare(torch.from_numpy(log_w))
    clipped = band(w, torch.ones_like(w, dtype=torch.bool))
    np.testing.assert_array_equal(clipped.keep[:, 0].numpy(), brute_force_kept(log_w, threshold))
    torch.testing.assert_close(clipped.w, torch.where(clipped.keep, w, 0.0))


def test_second_moment_treats_equal_moves_alike_and_ignores_what_is_not_finite():
    log_w = torch.tensor([0.1, -0.1, 0.5, -0.5, 0.5, math.nan, math.inf])
    band = SecondMoment(0.1).prepare(log_w)  # one 0.5 beside two 0.1 would have the mean 0.09
    keep = band(log_w.exp()[None], torch.ones(1, 7, dtype=torch.bool)).keep
    assert keep.tolist() == [[True, True, False, False, False, False, False]]


def test_second_moment_belongs_to_a_minibatch_and_not_to_its_micro_batches():
    generator = torch.Generator().manual_seed(6)
    log_mu = -2 * torch.rand(6, 4, generator=generator, dtype=torch.float64)
    log_pi = log_mu + 0.5 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 2, 4, 1, 3, 4])[:, None]
    objective = Objective(beta=0.0, clip=SecondMoment(0.1))
    with pytest.raises(ValueError, match=r"call prepare\(…\) on the objective first"):
        objective(log_pi, log_mu, None, advantages, mask)
    made, _ = objective.prepare(Inputs(log_pi, log_mu, None, advantages, mask))
    kept = brute_force_kept((log_pi - log_mu)[mask].numpy(), 0.1)
    assert 0 < kept.sum() < kept.size

    def gradient(rows: slice) -> torch.Tensor:
        leaf = log_pi[rows].clone().requires_grad_()
        out = made(leaf, log_mu[rows], None, advantages[rows], mask[rows], normalizer=made.normalizer(mask))
        return torch.autograd.grad(out.loss, leaf)[0]

    in_parts = torch.cat([gradient(slice(start, start + 1)) for start in range(6)])
    torch.testing.assert_close(in_parts, gradient(slice(0, 6)), atol=1e-15, rtol=0)
    expected = -(log_pi - log_mu).exp() * advantages[:, None] / mask.sum()
    np.testing.assert_allclose(in_parts[mask].numpy(), np.where(kept, expected[mask].numpy(), 0.0), atol=1e-15)


def test_clip_fractions_count_each_branch():
    """w = 0.5, 1.5, 4 with A = −1 and w = 1.5 with A = +1: one low, one kept, one above the ceiling, one high."""
    log_w = torch.tensor([[0.5, 1.5, 4.0, 1.5]]).log()
    advantages = torch.tensor([[-1.0, -1.0, -1.0, 1.0]])
    out = Objective(beta=0.0)(log_w - 1, torch.full((1, 4), -1.0), None, advantages, torch.ones(1, 4, dtype=torch.bool))
    assert out.metrics["clip_low_fraction"] == 0.25
    assert out.metrics["clip_high_fraction"] == 0.25
    assert out.metrics["clip_ceiling_fraction"] == 0.25


def test_an_infinite_ceiling_is_ppos_single_clip():
    objective = Objective(beta=0.0, clip=DualClip(LOW, HIGH, math.inf))
    _, slopes = loss_and_slope(objective)
    at = GRID.index((-3.0, 2.5, -2.0))
    assert slopes[at] == pytest.approx(2 * math.exp(2.5))


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_found_by_name(name):
    assert Objective(clip=name).clip == clip_named(name)


def test_settings_name_a_clip_of_ones_own_as_a_file_does():
    assert ObjectiveSettings(clip="python:my_parts.huber").clip == OwnClip(kind="python:my_parts.huber")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DualClip(low=-0.1), r"clip low must be in \[0, 1\], got -0.1"),
        (lambda: DualClip(high=-1), "clip high must be >= 0, got -1"),
        (lambda: DualClip(ceiling=1.0), "clip ceiling must be > 1"),
        (lambda: Truncate(low=2), "clip low"),
        (lambda: Truncate(high=math.nan), "clip high"),
        (lambda: Mask(low=1.5), "mask low"),
        (lambda: Mask(high=0.5), "mask high"),
        (lambda: TotalVariation(low=-0.1), "total variation low"),
        (lambda: TotalVariation(high=1.5), "total variation high"),
        (lambda: TotalVariation(ceiling=1.0), "clip ceiling"),
        (lambda: SecondMoment(0.0), "second moment threshold must be > 0, got 0.0"),
        (lambda: clip_named("duel"), "did you mean 'dual'"),
        (lambda: Objective(clip=None), "clip must be a clip, or the name of one, got None"),  # pyright: ignore[reportArgumentType]
        (lambda: Objective(clip="python:my_parts.huber"), "clip must be a clip, .* got OwnClip"),
    ],
)
def test_settings_out_of_range_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_an_advantage_of_zero_takes_the_branch_of_the_good_as_in_algorithm_2(estimator):
    seen: list[torch.Tensor] = []

    def clip(w, is_good, log_pi=None):
        seen.append(is_good)
        return NoClip()(w, is_good)

    log_w = torch.tensor([[0.5, 4.0]]).log()
    mask = torch.ones(1, 2, dtype=torch.bool)
    Objective(beta=0.0, estimator=estimator, clip=clip)(log_w, torch.zeros(1, 2), None, torch.zeros(1), mask)
    assert seen[0].tolist() == [[True, True]]


EVERY_CLIP = [
    *(clip for name, clip in CLIPS.items() if name != "second-moment"),
    DualClip(LOW, HIGH, math.inf),
    Truncate(1.0, 0.5),
    LogBand(0.5),
]


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
@pytest.mark.parametrize("clip", EVERY_CLIP, ids=repr)
def test_clip_fractions_count_the_units_whose_gradient_the_clip_changed(clip, estimator, beta):
    """No two branches meet in one unit here, so that the fractions add up to the share of other gradients."""
    rows = [*GRID, *((log_pi, log_w, 0.0) for log_pi, log_w, _ in GRID)]
    log_pi, log_w, advantages = torch.tensor(rows, dtype=torch.float64).T
    mask = torch.ones(len(rows), 1, dtype=torch.bool)

    def run(clip):
        leaf = log_pi[:, None].clone().requires_grad_()
        log_ref = torch.full_like(leaf, -1.3)
        objective = Objective(divergence="rkl", beta=beta, estimator=estimator, clip=clip)
        out = objective(leaf, (log_pi - log_w)[:, None], log_ref, advantages, mask)
        return torch.autograd.grad(out.loss, leaf)[0], out.metrics

    slope, metrics = run(clip)
    is_changed = ~torch.isclose(slope, run("none")[0], rtol=1e-12, atol=1e-15)
    counted = sum(metrics[f"clip_{branch}_fraction"] for branch in ("low", "high", "ceiling"))
    assert counted == pytest.approx(float(is_changed.double().mean()))
    assert not bool(is_changed.all())
    assert bool(is_changed.any()) == (clip != NoClip())


def test_the_regularised_advantage_decides_what_reinforce_clips_where_the_advantage_is_zero():
    """w = 1.65 on half of the tokens, A = 0: REINFORCE clips the divergence's slope, `differentiable` nothing."""
    log_mu = torch.full((4, 3), -1.0)
    log_pi = log_mu + torch.tensor([[0.5], [0.5], [-0.5], [-0.5]])
    mask = torch.ones(4, 3, dtype=torch.bool)
    found = {
        (estimator, at): Objective(divergence="urkl", beta=0.01, estimator=estimator)(
            log_pi, log_mu, log_mu if at == "mu" else log_pi, torch.zeros(4), mask
        ).metrics
        for estimator in ("reinforce", "differentiable")
        for at in ("mu", "pi")
    }
    # slope of the unnormalised reverse KL is w·x: -β·w·x < 0 at w > 1 (a bad unit below the ceiling), > 0 at w < 1.
    assert all(metrics["clip_high_fraction"] == 0 for metrics in found.values())
    # With ref = π the slope is 0 as well: nothing is there to clip.
    assert all(metrics["clip_low_fraction"] == 0 for metrics in found.values())
    near = Objective(divergence="urkl", beta=0.01)(log_pi, log_mu, log_pi + 0.1, torch.zeros(4), mask).metrics
    assert near["clip_high_fraction"] == 0.5  # x = -0.1: good units, of which those at w = 1.65 are clipped
    of_none = Objective(divergence="urkl", beta=0.01, estimator="differentiable")
    assert of_none(log_pi, log_mu, log_pi + 0.1, torch.zeros(4), mask).metrics["clip_high_fraction"] == 0
