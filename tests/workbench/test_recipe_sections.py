"""What a run file says of credit, corrections and trust regions becomes the objective that it names, or an error."""

import math

import pytest

from klimb.errors import ConfigError
from klimb.losses import (
    Corrected,
    DecoupledCorrection,
    DualClip,
    Mask,
    MaskedCorrection,
    NoClip,
    NormalisedCorrection,
    Objective,
    SecondMoment,
    TotalVariation,
    Truncate,
    TruncatedCorrection,
)
from klimb.training import RECIPES
from klimb.workbench.config import build_config
from klimb.workbench.session import make_objective


def message_of(tables: dict) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(tables, source="run.toml")
    return str(raised.value)


def objective_of(tables: dict):
    return make_objective(build_config(tables, source="run.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_file_that_names_a_recipe_trains_with_its_objective(name: str):
    recipe = RECIPES[name]
    overrides = {"reduce": 48} if recipe.objective.reduce == "max-new-tokens" else {}
    made = objective_of({"objective": {"recipe": name}, "sampling": {"max_new_tokens": 48}})
    assert made == recipe.make_objective(**overrides)


@pytest.mark.parametrize("name", RECIPES)
def test_credit_is_the_recipes(name: str):
    recipe, credit = RECIPES[name], build_config({"objective": {"recipe": name}}, source="").credit
    assert credit == recipe.credit


@pytest.mark.parametrize(
    ("section", "correction", "rule"),
    [
        ({"kind": "decoupled"}, DecoupledCorrection(level="sequence"), NoClip()),
        ({"kind": "truncate", "high": 3.0}, TruncatedCorrection(level="sequence", high=3.0), Truncate(1.0, 2.0)),
        ({"kind": "normalised"}, NormalisedCorrection(level="sequence"), Truncate(1.0, 1.0)),
        ({"kind": "mask"}, MaskedCorrection(level="sequence"), Mask(0.5, 5.0)),
    ],
)
def test_a_correction_wraps_the_objective_of_the_recipe(section, correction, rule):
    made = objective_of({"objective": {"recipe": "grpo"}, "correction": {"level": "sequence", **section}})
    assert made == Corrected(objective=RECIPES["grpo"].make_objective(), correction=correction)
    assert correction.rule == rule
    assert correction.normalised == (section["kind"] == "normalised")


def test_the_off_policy_mask_goes_with_every_kind_and_with_none():
    alone = objective_of({"correction": {"off_policy_mask": 0.5}})
    assert isinstance(alone, Corrected)
    assert (alone.correction.rule, alone.correction.off_policy_mask) == (None, 0.5)
    both = objective_of({"correction": {"kind": "mask", "off_policy_mask": 0.25}})
    assert isinstance(both, Corrected)
    assert (both.correction.rule, both.correction.off_policy_mask) == (Mask(0.5, 5.0), 0.25)
    assert isinstance(objective_of({"correction": "none"}), Objective)


@pytest.mark.parametrize(
    ("section", "clip"),
    [
        ({"kind": "total-variation", "ceiling": "none"}, TotalVariation(0.2, 0.2, math.inf)),
        ({"kind": "second-moment", "threshold": 0.1}, SecondMoment(0.1)),
        ({"kind": "dual", "low": 0.1}, DualClip(0.1, 0.28, 3.0)),
    ],
)
def test_a_clip_section_becomes_its_clip(section, clip):
    made = objective_of({"objective": {"clip": section}})
    assert isinstance(made, Objective)
    assert made.clip == clip


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"objective": {"recipe": "kto"}, "correction": "mask"},
            "correction.kind = 'mask' weighs the terms of a policy gradient, and the loss kto of recipe kto is none",
        ),
        (
            {"objective": {"recipe": "oapl"}, "correction": {"off_policy_mask": 0.5}},
            "the loss squared-residual of recipe oapl is none",
        ),
        (
            {"objective": {"recipe": "asymre"}, "correction": "truncate"},
            "splits the ratio pi/mu, and objective.ratio = 'none' (recipe asymre) forms none",
        ),
        ({"correction": {"kind": "truncate", "high": 1.0}}, "correction.high = 1.0: expected a number > 1"),
        ({"correction": {"kind": "decoupled", "high": 2.0}}, "correction.high = 2.0: unknown key"),
        ({"credit": {"whiten": True}}, "credit.whiten = True does nothing with credit.kind = 'response'"),
        ({"credit": "gae"}, "advantages.kind = 'group-mean' gives one advantage a response"),
        (
            {"objective": {"recipe": "reinforce++"}, "credit": {"gae_lambda": 0.5}},
            "credit.gae_lambda = 0.5 does nothing with credit.kind = 'reward-to-go'",
        ),
        (
            {"objective": {"recipe": "ppo"}, "reference": "none"},
            "credit.kl_in_reward is 0.02 but reference.kind is 'none'",
        ),
    ],
)
def test_what_does_nothing_or_does_not_fit_is_an_error(tables, message):
    assert message in message_of(tables)


ON_A_LOG = {"sources": {"rollout": 0.0, "log": 1.0}, "log": {"path": "store"}}
ASYMRE = {"recipe": "asymre", "beta": 0.1}


@pytest.mark.parametrize(
    ("objective", "reference", "message"),
    [
        ({"recipe": "bc", "divergence": "rkl"}, "behaviour", "'rkl' lowers the probability of every response"),
        ({"recipe": "bc", "divergence": "ufkl"}, "behaviour", "objective.divergence = 'ufkl' does nothing"),
        ({"recipe": "bc-filtered", "divergence": "urkl"}, "behaviour", "objective.divergence = 'urkl' does nothing"),
        ({"recipe": "bc", "divergence": "0.7*fkl + 0.3*rkl"}, "behaviour", "only forward KL needs no ratio"),
        ({"recipe": "bc", "divergence": "k3-in-loss"}, "behaviour", "objective.divergence = 'k3-in-loss' does nothing"),
        ({"recipe": "bc", "divergence": "urkl"}, "fixed", "the policy starts at its reference"),
        ({"recipe": "bc", "divergence": "fkl"}, "fixed", "'fkl' raises the probability of every response"),
        ({"recipe": "bc", "beta": 0.0}, "behaviour", "objective.beta is 0 and advantages.kind is 'zero'"),
        ({**ASYMRE, "divergence": "rkl"}, "behaviour", "'rkl' lowers the probability of every response"),
        ({**ASYMRE, "divergence": "rkl"}, "fixed", "'rkl' lowers the probability of every response"),
        ({**ASYMRE, "divergence": "urkl"}, "behaviour", "objective.divergence = 'urkl' does nothing"),
        ({"recipe": "topr", "beta": 0.1, "divergence": "rkl"}, "fixed", "'rkl' lowers the probability"),
    ],
)
def test_a_divergence_that_cannot_act_without_a_ratio_is_an_error(objective, reference, message):
    assert message in message_of({"objective": objective, "reference": reference, **ON_A_LOG})


@pytest.mark.parametrize(
    ("objective", "reference"),
    [
        ({"recipe": "bc", "divergence": "2*fkl"}, "behaviour"),
        ({**ASYMRE, "divergence": "fkl"}, "behaviour"),
        ({**ASYMRE, "divergence": "urkl"}, "fixed"),
        ({"recipe": "topr", "beta": 0.1, "divergence": "urkl"}, "behaviour"),
        ({"recipe": "topr", "beta": 0.1, "divergence": "rkl", "estimator": "differentiable"}, "behaviour"),
        ({"recipe": "grpo", "divergence": "rkl"}, "fixed"),
    ],
)
def test_a_divergence_that_acts_on_a_log_is_let_through(objective, reference):
    objective_of({"objective": objective, "reference": reference, **ON_A_LOG})


def test_on_fresh_rollouts_the_constant_of_a_divergence_averages_to_zero_and_is_let_through():
    objective_of({"objective": {**ASYMRE, "divergence": "rkl"}, "reference": "fixed"})


def test_a_divergence_of_the_users_own_is_held_to_the_same(tmp_path, monkeypatch):
    (tmp_path / "own_divergence_that_idles.py").write_text("from klimb.divergences import URKL as idle\n")
    monkeypatch.chdir(tmp_path)
    objective = {"recipe": "bc", "divergence": "python:own_divergence_that_idles.idle"}
    with pytest.raises(ConfigError, match="idle' does nothing"):
        objective_of({"objective": objective, **ON_A_LOG})


def test_the_kl_in_the_reward_may_be_switched_off_with_its_reference():
    tables = {"objective": {"recipe": "ppo"}, "credit": {"kl_in_reward": 0.0}, "reference": "none"}
    assert build_config(tables, source="").credit.gae_lambda == 0.95
