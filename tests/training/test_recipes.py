"""Recipes are data: each is held against its own formula written out."""

import dataclasses

import pytest
import torch
from tests.losses.enumerated import log_of, log_probs
from tests.oracle import world

from klimb.experience.advantages import ADVANTAGES, TAKES_OFFSET
from klimb.losses import DualClip, Inputs, KtoObjective, Loss, Objective, SquaredResidual, Taper
from klimb.training import RECIPES, recipe_named

PAIRS = ["fkl", "rkl", "ufkl", "urkl"]


def tensors():
    generator = torch.Generator().manual_seed(5)
    log_pi, log_mu, log_ref = (-3 * torch.rand(6, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 3, 1, 2, 4, 4])[:, None]
    return log_pi, log_mu, log_ref, advantages, mask


def gradient_of(loss_of, log_pi):
    leaf = log_pi.clone().requires_grad_()
    return torch.autograd.grad(loss_of(leaf), leaf)[0]


def test_grpo_has_the_gradient_of_its_published_loss():
    log_pi, log_mu, log_ref, advantages, mask = tensors()

    def published(lp):
        w = (lp - log_mu).exp()
        a = advantages[:, None]
        surrogate = torch.minimum(w * a, w.clamp(0.8, 1.2) * a)
        k3 = (log_ref - lp).exp() - (log_ref - lp) - 1
        per_token = torch.where(mask, -surrogate + 0.04 * k3, 0.0)
        return (per_token.sum(1) / mask.sum(1)).mean()

    objective = RECIPES["grpo"].make_objective()
    ours = gradient_of(lambda lp: objective(lp, log_mu, log_ref, advantages, mask).loss, log_pi)
    torch.testing.assert_close(ours, gradient_of(published, log_pi), atol=1e-12, rtol=0)
    assert float(objective(log_pi, log_mu, log_ref, advantages, mask).loss) == pytest.approx(float(published(log_pi)))


def test_dapo_has_the_gradient_of_its_published_loss():
    log_pi, log_mu, _, advantages, mask = tensors()

    def published(lp):
        w = (lp - log_mu).exp()
        a = advantages[:, None]
        surrogate = torch.minimum(w * a, w.clamp(1 - 0.2, 1 + 0.28) * a)
        return -surrogate[mask].mean()

    objective = RECIPES["dapo"].make_objective()
    ours = gradient_of(lambda lp: objective(lp, log_mu, None, advantages, mask).loss, log_pi)
    torch.testing.assert_close(ours, gradient_of(published, log_pi), atol=1e-12, rtol=0)


def ours(name: str, lp, rows, **overrides):
    log_mu, log_ref, advantages, mask = rows
    objective = RECIPES[name].make_objective(**overrides)
    groups = torch.zeros(len(lp), dtype=torch.int64)
    objective, _ = objective.prepare(Inputs(lp.detach(), log_mu, log_ref, advantages, mask, groups=groups))
    return objective(lp, log_mu, log_ref, advantages, mask).loss


def ppo_clip(w, a, low, high):
    return torch.minimum(w * a, w.clamp(1 - low, 1 + high) * a)


def published_loss(name: str, lp, rows):
    """The loss of each source, written out, with per-response advantages as given."""
    log_mu, log_ref, advantages, mask = rows
    log_w = torch.where(mask, lp - log_mu, 0.0)
    w, a = log_w.exp(), advantages[:, None] if advantages.ndim == 1 else advantages
    length = mask.sum(1)
    if name in ("ppo", "reinforce++"):
        return -ppo_clip(w, a, 0.2, 0.2)[mask].mean()
    if name == "reinforce++-baseline":
        return (-ppo_clip(w, a, 0.2, 0.2) + 0.01 * 0.5 * (lp - log_ref) ** 2)[mask].mean()
    if name == "dr-grpo":
        return -torch.where(mask, ppo_clip(w, a, 0.2, 0.2), 0.0).sum() / (len(lp) * 12)
    if name == "gspo":
        return -ppo_clip((log_w.sum(1) / length).exp(), advantages, 3e-4, 4e-4).mean()
    if name == "cispo":
        return -(w.detach().clamp(max=5.0) * a * lp)[mask].mean()
    if name == "dppo-tv":
        moved = (lp.exp() - log_mu.exp()).detach()
        left_out = torch.where(a >= 0, moved > 0.2, moved < -0.2)
        return -(torch.where(left_out, 0.0, w.detach().clamp(max=20.0)) * a * lp)[mask].mean()
    assert name == "m2po"
    moments = log_w.detach()[mask] ** 2
    allowed = torch.stack([moments[moments <= m].mean() <= 0.04 for m in moments])
    kept = torch.zeros_like(mask).masked_scatter(mask, allowed)
    return -torch.where(kept, w * a, 0.0).sum() / mask.sum()


PUBLISHED = ["ppo", "reinforce++", "reinforce++-baseline", "dr-grpo", "gspo", "cispo", "dppo-tv", "m2po"]


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_gradient_of_its_published_loss(name, spread):
    """Near μ, where nothing is clipped but by GSPO, and far from it, where every branch is taken."""
    log_pi, log_mu, log_ref, advantages, mask = tensors()
    if RECIPES[name].credit.kind != "response":
        advantages = advantages[:, None] * torch.linspace(-0.5, 1, 4, dtype=torch.float64)  # one a token
    log_pi = log_mu + spread * (log_pi - log_pi.mean())
    overrides = {"reduce": 12} if name == "dr-grpo" else {}
    rows = (log_mu, log_ref, advantages, mask)
    actual = gradient_of(lambda lp: ours(name, lp, rows, **overrides), log_pi)
    expected = gradient_of(lambda lp: published_loss(name, lp, rows), log_pi)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_rloo_has_the_expected_gradient_of_its_source_on_policy():
    """The source: REINFORCE on R − β·x less the mean of the group's others, so E of −(R − β·x − b)·∇log π; any b.

    Here −(R − β·(x + 1))·∇log π. The two differ by a constant times ∇log π, whose expectation is 0.
    """
    table = torch.from_numpy(world.logits(31)).requires_grad_()
    log_pi = log_probs(table)
    mask = torch.from_numpy(world.MASK)
    rewards = torch.from_numpy(world.rewards(32))
    log_ref = log_of(world.conditionals(world.logits(33)))
    pi = torch.where(mask, log_pi, 0.0).sum(1).exp().detach()
    out = RECIPES["rloo"].make_objective(beta=0.4)(log_pi, log_pi.detach(), log_ref, rewards, mask)
    actual = torch.autograd.grad((pi * out.terms.sum(1)).sum(), table, retain_graph=True)[0]
    log_y, ref = (torch.where(mask, values, 0.0).sum(1) for values in (log_pi, log_ref))
    weight = rewards - 0.4 * (log_y.detach() - ref) - 0.7
    source = torch.autograd.grad(-(pi * weight * log_y).sum(), table)[0]
    torch.testing.assert_close(actual, source, atol=1e-12, rtol=0)
    assert actual.abs().max() > 1e-2


def test_a_recipe_that_divides_by_the_longest_response_must_be_told_how_long_that_is():
    with pytest.raises(ValueError, match=r"dr-grpo divides by .* that number, e\.g\. make_objective\(reduce=512\)"):
        RECIPES["dr-grpo"].make_objective()
    assert RECIPES["dr-grpo"].make_objective(reduce=512).reduce == 512
    assert RECIPES["dr-grpo"].needs_log_mu


@pytest.mark.parametrize("name", RECIPES)
def test_credit_of_tokens_comes_with_rewards_as_they_are(name):
    recipe = RECIPES[name]
    if recipe.credit.kind == "response":
        assert (recipe.credit.kl_in_reward, recipe.credit.gae_lambda, recipe.credit.discount, recipe.credit.whiten) == (
            0.0,
            1.0,
            1.0,
            False,
        )
    else:
        assert recipe.advantages.kind == "no-baseline"
        assert recipe.objective.level == "token"
        assert recipe.credit.kl_in_reward == 0 or recipe.reference.kind != "none"


def test_behaviour_cloning_is_maximum_likelihood_whatever_mu_is():
    log_pi, log_mu, _, _, mask = tensors()
    objective = RECIPES["bc"].make_objective()
    zero = torch.zeros(6, dtype=torch.float64)
    ours = gradient_of(lambda lp: objective(lp, log_mu, None, zero, mask).loss, log_pi)
    likelihood = gradient_of(lambda lp: -lp[mask].mean(), log_pi)
    torch.testing.assert_close(ours, likelihood, atol=1e-15, rtol=0)
    with_ratio = RECIPES["bc"].make_objective(ratio="recorded")  # v = ref/μ = 1 and the slope is −v: no w in it either
    recorded = gradient_of(lambda lp: with_ratio(lp, log_mu, log_mu, zero, mask).loss, log_pi)
    torch.testing.assert_close(ours, recorded, atol=1e-15, rtol=0)


@pytest.mark.parametrize("key", PAIRS)
def test_the_two_rpg_estimators_of_a_divergence_agree_once_the_clip_is_open(key):
    log_pi, log_mu, log_ref, advantages, mask = tensors()
    gradients = [
        gradient_of(
            lambda lp, name=name: (
                RECIPES[name].make_objective(clip="none", beta=0.3)(lp, log_mu, log_ref, advantages, mask).loss
            ),
            log_pi,
        )
        for name in (f"rpg-{key}", f"rpg-reinforce-{key}")
    ]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_states_its_name_source_and_formula(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.source.startswith("arXiv ")
    assert recipe.formula and recipe.summary
    objective = recipe.make_objective(**({"reduce": 7} if recipe.objective.reduce == "max-new-tokens" else {}))
    assert isinstance(objective, Loss)
    assert not isinstance(objective, Objective) or objective.divergence.name == recipe.objective.divergence
    assert objective.beta == recipe.objective.beta
    assert recipe.advantages.kind in ADVANTAGES
    assert recipe.advantages.offset == 0 or recipe.advantages.kind in TAKES_OFFSET


def test_paper_settings_of_the_rpg_recipes():
    for name in [f"rpg-{key}" for key in PAIRS] + [f"rpg-reinforce-{key}" for key in PAIRS]:
        recipe = RECIPES[name]
        assert (recipe.objective.beta, recipe.objective.clip, recipe.advantages.kind) == (
            1e-4,
            DualClip(0.2, 0.28, 3.0),
            "group-mean",
        )
        assert (recipe.objective.reduce, recipe.reference.kind) == ("token-mean", "iterative")


def test_overrides_replace_settings_and_unknown_ones_are_errors():
    recipe = RECIPES["rpg-reinforce-urkl"]
    assert recipe.make_objective(beta=0.5).beta == 0.5
    assert dataclasses.replace(
        recipe, objective=dataclasses.replace(recipe.objective, beta=0.5)
    ).make_objective() == recipe.make_objective(beta=0.5)
    with pytest.raises(ValueError, match="no setting 'betta'; it has beta, clip"):
        recipe.make_objective(betta=0.5)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'rpg-reinforce-urkl'"):
        recipe_named("rpg-reinforce-ukrl")


def test_what_each_recipe_for_logged_data_needs():
    needs = {
        name: (recipe.needs_log_mu, recipe.make_objective().needs_log_ref, recipe.make_objective().needs_minibatch)
        for name, recipe in RECIPES.items()
        if recipe.usable_offline
    }
    assert needs == {
        "bc": (False, True, False),
        "bc-filtered": (False, True, False),
        "topr": (True, False, False),
        "asymre": (False, False, False),
        "kimi-pmd": (True, False, False),
        "oapl": (True, False, False),
        "dro": (False, True, True),
        "kto": (False, True, True),
        "dpo": (False, True, True),
        "ipo": (False, True, True),
        "rebel": (False, True, True),
    }
    assert all(recipe.needs_log_mu for recipe in RECIPES.values() if not recipe.usable_offline)


def test_a_recipe_makes_the_objective_of_its_loss():
    assert RECIPES["topr"].make_objective() == Objective(
        beta=0.0, level="sequence", clip=Taper(), reduce="sequence-mean-token-sum"
    )
    assert RECIPES["dro"].make_objective(beta=2.0) == SquaredResidual(beta=2.0, anchor="ref", value="group-optimal")
    assert RECIPES["kto"].make_objective(undesirable_weight=0.5) == KtoObjective(undesirable_weight=0.5)
    with pytest.raises(ValueError, match="the loss squared-residual has no setting 'clip'; it has anchor, beta"):
        RECIPES["oapl"].make_objective(clip="none")
