"""What `--set`, a file, the tables of a study and a recipe say together: one rule, whoever says what."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from klimb.declarations import OneOf
from klimb.errors import ConfigError
from klimb.losses.settings import KtoSettings, PairwiseSettings
from klimb.training import RECIPES
from klimb.workbench.config import build_config, known_fields, read_config, save_config
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.config.recipe import KINDED, UNIONS
from klimb.workbench.study.plan import laid_over

TUNED = {
    "objective": {"recipe": "grpo"},
    "optimizer": {"kind": "adamw", "learning_rate": 3e-4, "warmup_steps": 2, "weight_decay": 0.02, "beta2": 0.95},
    "advantages": {"kind": "group-mean", "group_filter": True, "max_refills": 7, "offset": -0.25},
}


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def changes(tables: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """Return the keys of the resolved run, with their values, that the overrides change."""
    before, after = (flat(resolved_tables(build_config(tables, given, source="run.toml"))) for given in ((), overrides))
    return {key: after.get(key) for key in {*before, *after} if before.get(key) != after.get(key)}


def message_of(tables: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(tables, overrides, source="run.toml")
    return str(raised.value)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.kind=schedule-free", "optimizer.kind", "schedule-free"),
        ("advantages.kind=leave-one-out", "advantages.kind", "leave-one-out"),
        ("advantages.offset=0.5", "advantages.offset", 0.5),
        ("optimizer.beta1=0.8", "optimizer.beta1", 0.8),
        ("correction.kind=decoupled", "correction.kind", "decoupled"),
    ],
)
def test_an_override_changes_its_key_alone(override: str, key: str, value: object):
    changed = changes(TUNED, override)
    changed.pop("correction.level", None)  # a key that only the new kind has
    assert changed == {key: value}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_kind_beside_a_recipe_leaves_the_recipes_other_settings_of_advantages(recipe: str):
    other = "leave-one-out" if RECIPES[recipe].advantages.kind == "batch-z-score" else "batch-z-score"
    if RECIPES[recipe].credit.kind != "response" or isinstance(
        RECIPES[recipe].objective, KtoSettings | PairwiseSettings
    ):
        pytest.skip("it takes no other advantage of a response")
    assert changes({"objective": {"recipe": recipe}}, f"advantages.kind={other}") == {"advantages.kind": other}


def test_a_credit_of_another_kind_keeps_what_acts_there_and_nothing_else_of_the_recipe():
    assert changes({"objective": {"recipe": "ppo"}}, "objective.recipe=reinforce++", "credit.kl_in_reward=0.02") != {}
    credit = build_config({"objective": {"recipe": "reinforce++"}}, ["credit.kind=gae"], source="").credit
    assert (credit.kl_in_reward, credit.whiten, credit.gae_lambda) == (0.01, True, 1.0)


OVERRIDES = (
    "optimizer.kind=schedule-free",
    "optimizer.learning_rate=0.01",
    "objective.recipe=rloo",
    "objective.clip=truncate",
    "objective.clip.low=0.9",
    "reference.kind=ema",
    "reference.decay=0.5",
    "optimizer.weight_decay=default",
)


def test_the_order_on_the_command_line_does_not_matter():
    wanted = build_config(TUNED, OVERRIDES, source="")
    assert (wanted.optimizer.learning_rate, wanted.optimizer.weight_decay) == (0.01, 0.1)
    assert (wanted.objective.clip.kind, wanted.objective.clip.low, wanted.reference.decay) == ("truncate", 0.9, 0.5)
    for order in itertools.islice(itertools.permutations(OVERRIDES), 0, None, 1_009):
        assert build_config(TUNED, order, source="") == wanted


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1", "seed=2"),
        ("optimizer.kind=adamw", "optimizer.kind=schedule-free"),
        ("optimizer.beta1=default", "optimizer.beta1=0.5"),
        ("objective.clip={low = 0.1}", "objective.clip.low=0.2"),
        ("seed=3", "seed.x=1"),
    ],
)
@pytest.mark.parametrize("step", [1, -1])
def test_two_overrides_that_contradict_each_other_are_refused_in_any_order(overrides: tuple[str, ...], step: int):
    assert "--set" in message_of({}, *overrides[::step])


def test_the_same_override_twice_is_one():
    assert build_config({}, ["seed=4", "seed=4"], source="").seed == 4


@pytest.mark.parametrize(
    ("tables", "override", "key", "reason"),
    [
        ({"objective": {"clip": {"kind": "dual", "low": 0.1}}}, "objective.clip.kind=none", "low = 0.1", "no such"),
        ({"objective": {"clip": {"high": 0.5}}}, "objective.clip.kind=none", "high = 0.5", "no such"),
        ({"objective": {"clip": {"low": 0.1}}}, "objective.clip.kind=mask", "low = 0.1", "means something else"),
        (
            {"objective": {"recipe": "grpo", "clip": {"high": 0.3}}},
            "objective.recipe=dppo-tv",
            "high = 0.3",
            "means something else",
        ),
        ({"reference": {"every_steps": 4}}, "reference.kind=ema", "every_steps = 4", "no such"),
        ({"correction": {"kind": "mask", "low": 0.1}}, "correction.kind=truncate", "low = 0.1", "no such"),
        ({"task": {"digits": 2, "seed": 5}}, "task.kind=reasoning-gym", "digits = 2", "no such"),
    ],
)
def test_what_the_file_says_and_the_new_kind_does_not_know_is_refused_with_the_way_out(tables, override, key, reason):
    message = message_of(tables, override)
    assert key in message and reason in message
    kind = override.partition("=")[2]
    if "recipe" not in override:
        section = override.partition(".kind")[0]
        assert f"or give {section} = {kind!r} in place of the kind" in message
        if kind != "reasoning-gym":  # which needs a dataset besides
            taken = build_config(tables, [f"{section}={kind}"], source="")
            assert taken == build_config({}, [f"{section}={kind}"], source="")


@pytest.mark.parametrize("kind", ["none", "mask", "truncate", "taper", "total-variation", "second-moment"])
@pytest.mark.parametrize("recipe", ["grpo", "cispo", "rpg-urkl", "m2po"])
def test_what_a_recipe_says_of_its_own_kind_stands_in_nobodys_way(recipe: str, kind: str):
    clip = build_config({"objective": {"recipe": recipe}}, [f"objective.clip.kind={kind}"], source="").objective.clip
    of_recipe = RECIPES[recipe].objective.clip
    assert clip == (of_recipe if of_recipe.kind == kind else type(clip)())


def test_what_is_written_for_both_kinds_stays():
    tables = {"correction": {"kind": "truncate", "high": 3.0, "level": "sequence", "off_policy_mask": 0.5}}
    changed = changes(tables, "correction.kind=normalised")
    assert changed == {"correction.kind": "normalised"}


def test_what_is_said_beside_the_new_kind_is_said_for_it():
    tables = {"objective": {"clip": {"kind": "dual", "low": 0.1}}}
    made = build_config(tables, ["objective.clip.kind=mask", "objective.clip.low=0.4"], source="")
    assert (made.objective.clip.kind, made.objective.clip.low, made.objective.clip.high) == ("mask", 0.4, 2.0)


@pytest.mark.parametrize("path", KINDED)
def test_a_word_in_the_place_of_a_table_is_its_kind(path: str):
    kinds = {
        "task": "arithmetic",
        "objective.clip": "taper",
        "correction": "decoupled",
        "reference": "fixed",
        "optimizer": "schedule-free",
        "advantages": "zero",
        "credit": "response",
    }
    as_word = build_config({}, [f"{path}={kinds[path]}"], source="")
    assert as_word == build_config({}, [f"{path}.kind={kinds[path]}"], source="")


def test_default_takes_a_key_or_a_section_away():
    tables = {**TUNED, "model": {"lora": {"rank": 4}}, "guard": {"every_steps": 3}}
    made = build_config(tables, ["model.lora=default", "guard=default", "optimizer=default", "seed=default"], source="")
    assert (made.model.lora, made.guard, made.seed) == (None, None, 0)
    assert made.optimizer == build_config({}, source="").optimizer
    assert build_config({"run": {"name": "x"}}, ["run.name='default'"], source="").run.name == "default"


def test_an_unknown_key_cannot_be_taken_away():
    assert "unknown key; did you mean guard?" in message_of({}, "gaurd=default")
    gym = {"task": {"kind": "reasoning-gym", "dataset": "gcd", "parameters": {"min_numbers": 2}}}
    assert build_config(gym, ["task.parameters.min_numbers=default"], source="").task.parameters == {}


@pytest.mark.parametrize(("loss", "recipe"), [("kto", "rloo"), ("kto", "rpg-urkl"), ("kto", "kimi-pmd")])
def test_another_loss_than_the_recipes_has_its_own_defaults(loss: str, recipe: str):
    tables = {
        "objective": {"recipe": recipe, "loss": loss},
        "reference": "fixed",
        "advantages": {"kind": "binary-feedback"},
    }
    objective = build_config(tables, source="").objective
    assert (objective.recipe, objective.loss) == (recipe, loss)
    own = RECIPES["kto"].objective
    assert (objective.beta, objective.reduce) == (own.beta, own.reduce) == (0.1, "sequence-mean-token-sum")


def test_another_loss_that_has_no_default_of_a_key_asks_for_it():
    message = message_of({"objective": {"recipe": "grpo", "loss": "squared-residual"}})
    assert "objective.beta: missing" in message
    tables = {"objective": {"recipe": "grpo", "loss": "squared-residual", "beta": 0.5}}
    made = build_config(tables, source="").objective
    assert (made.beta, made.anchor, made.level, made.reduce) == (0.5, "mu", "sequence", "sequence-mean-token-sum")


@pytest.mark.parametrize(
    "upper",
    [
        {"optimizer": {"kind": "schedule-free"}},
        {"advantages": {"kind": "leave-one-out"}},
        {"objective": {"recipe": "rloo"}, "reference": {"kind": "ema"}},
        {"objective": {"clip": "taper"}},
        {"objective": {"clip": {"low": 0.05}}},
    ],
)
def test_a_study_and_the_command_line_agree(upper: dict[str, Any]):
    laid = laid_over(TUNED, upper)
    overrides = [f"{key}={value}" for key, value in flat(upper).items()]
    assert build_config(laid, source="") == build_config(TUNED, overrides, source="")


def test_a_resolved_file_is_changed_as_the_file_it_came_from(tmp_path: Path):
    tables = {"objective": {"recipe": "grpo", "beta": 0.5}, "sampling": {"num_samples": 4}}
    save_config(tmp_path / "config.json", build_config(tables, source=""))
    for overrides in (
        ["objective.clip.kind=none"],
        ["objective.clip.kind=mask", "objective.clip.high=3.0"],
        ["reference.kind=ema"],
        ["objective.recipe=rloo"],
        ["objective.recipe=rpg-urkl", "objective.clip.low=0.1"],
    ):
        assert read_config(tmp_path / "config.json", overrides) == build_config(tables, overrides, source="")


def test_a_resolved_file_refuses_what_somebody_wrote_for_another_kind(tmp_path: Path):
    save_config(tmp_path / "config.json", build_config({"objective": {"clip": {"low": 0.1}}}, source=""))
    assert json.loads((tmp_path / "config.json").read_text())["objective"]["clip"]["high"] == 0.28
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / "config.json", ["objective.clip.kind=none"])
    assert "objective.clip.low = 0.1" in str(raised.value)
    assert "high" not in str(raised.value)


def test_the_tables_that_are_told_apart_by_kind_are_all_known():
    told = {facts.path.removesuffix(".kind") for facts in known_fields() if facts.path.endswith(".kind")}
    assert told == set(KINDED)
    with_other_keys = {
        facts.path.removesuffix(".kind") for facts in known_fields() if facts.path.endswith(".kind") and facts.kinds
    }
    assert with_other_keys == set(UNIONS)
    for path, union in UNIONS.items():
        kinds = {facts.kinds[-1] for facts in known_fields() if facts.path == f"{path}.kind"}
        assert kinds == {*union.rows, *(["python:module.name"] if union.own else [])}
        assert isinstance(union, OneOf)
