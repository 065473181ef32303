"""What a run file says of credit, corrections and trust regions becomes the objective that it names, or an error."""

import math

import pytest

from klimb.losses import (
    RECIPES,
    Corrected,
    DualClip,
    Mask,
    NoClip,
    Objective,
    SecondMoment,
    TotalVariation,
    Truncate,
)
from klimb.workbench.config import ConfigError, build_config
from klimb.workbench.objectives import make_objective


def message_of(tables: dict) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(tables, source="run.toml")
    return str(raised.value)


def objective_of(tables: dict):
    return make_objective(build_config(tables, source="run.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_file_that_names_a_recipe_trains_with_its_objective(name: str):
    recipe = RECIPES[name]
    overrides = {"reduce": 48} if recipe.reduce == "max-new-tokens" else {}
    made = objective_of({"objective": {"recipe": name}, "sampling": {"max_new_tokens": 48}})
    assert made == recipe.objective(**overrides)


@pytest.mark.parametrize("name", RECIPES)
def test_credit_is_the_recipes(name: str):
    recipe, credit = RECIPES[name], build_config({"objective": {"recipe": name}}, source="").credit
    assert credit.kind == recipe.credit
    for key in ("kl_in_reward", "gae_lambda", "discount", "whiten"):
        assert getattr(credit, key) == getattr(recipe, key)


@pytest.mark.parametrize(
    ("section", "rule", "normalised"),
    [
        ({"kind": "decoupled"}, NoClip(), False),
        ({"kind": "truncate", "high": 3.0}, Truncate(1.0, 2.0), False),
        ({"kind": "normalised"}, Truncate(1.0, 1.0), True),
        ({"kind": "mask"}, Mask(0.5, 5.0), False),
    ],
)
def test_a_correction_wraps_the_objective_of_the_recipe(section, rule, normalised):
    made = objective_of({"objective": {"recipe": "grpo"}, "correction": {"level": "sequence", **section}})
    assert made == Corrected(objective=RECIPES["grpo"].objective(), rule=rule, level="sequence", normalised=normalised)


def test_the_off_policy_mask_goes_with_every_kind_and_with_none():
    alone = objective_of({"correction": {"off_policy_mask": 0.5}})
    assert isinstance(alone, Corrected)
    assert (alone.rule, alone.off_policy_mask) == (None, 0.5)
    both = objective_of({"correction": {"kind": "mask", "off_policy_mask": 0.25}})
    assert isinstance(both, Corrected)
    assert (both.rule, both.off_policy_mask) == (Mask(0.5, 5.0), 0.25)
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


def test_the_kl_in_the_reward_may_be_switched_off_with_its_reference():
    tables = {"objective": {"recipe": "ppo"}, "credit": {"kl_in_reward": 0.0}, "reference": "none"}
    assert build_config(tables, source="").credit.gae_lambda == 0.95
