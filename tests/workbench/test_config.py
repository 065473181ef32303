import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from klimb.declarations import narrow
from klimb.errors import ConfigError
from klimb.training import RECIPES
from klimb.workbench.config import (
    build_config,
    known_fields,
    nearest_keys,
    read_config,
    read_tables,
    save_config,
    with_overrides,
)


def message_of(tables: dict, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(tables, overrides, source="run.toml")
    return str(raised.value)


def test_an_empty_file_is_a_run():
    config = build_config({}, source="run.toml")
    assert config.objective.recipe == "rpg-reinforce-urkl"
    assert config.model.path == "smollm2-135m"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_all_that_it_names(name: str):
    recipe, config = RECIPES[name], build_config({"objective": {"recipe": name}}, source="")
    assert narrow(config.objective, type(recipe.objective)) == recipe.objective
    assert config.advantages == recipe.advantages
    assert config.credit == recipe.credit
    assert config.reference == recipe.reference


def test_a_key_beside_the_recipe_overrides_it_and_leaves_the_rest():
    config = build_config({"objective": {"recipe": "grpo", "beta": 0.5, "clip": {"low": 0.1}}}, source="")
    assert config.objective.beta == 0.5
    assert config.objective.clip.kind == "dual"
    assert (config.objective.clip.low, config.objective.clip.high) == (0.1, 0.2)
    assert config.objective.divergence == "k3-in-loss"


def test_a_section_of_another_kind_takes_nothing_from_the_recipe():
    config = build_config({"objective": {"clip": {"kind": "mask"}}}, source="")
    assert asdict(config.objective.clip) == {"kind": "mask", "low": 0.5, "high": 2.0}


@pytest.mark.parametrize("name", RECIPES)
def test_the_resolved_configuration_reads_back_equal(name: str, tmp_path: Path):
    config = build_config({"objective": {"recipe": name}, "model": {"lora": {"rank": 4}}}, source="")
    save_config(tmp_path / "config.json", config)
    assert read_config(tmp_path / "config.json") == config


def test_the_resolved_configuration_holds_every_default(tmp_path: Path):
    save_config(tmp_path / "config.json", build_config({}, source=""))
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["objective"]["clip"] == {"kind": "dual", "low": 0.2, "high": 0.28, "ceiling": 3.0}
    assert stored["optimizer"]["weight_decay"] == 0.1


def test_overrides_are_toml_values_and_bare_words_are_texts():
    overrides = ("objective.beta=1e-3", "objective.divergence=fkl", "run.save_rollouts=false", "model.path='a b'")
    config = build_config({"objective": {"beta": 0.5}}, overrides, source="")
    assert config.objective.beta == 1e-3
    assert config.objective.divergence == "fkl"
    assert config.run.save_rollouts is False
    assert config.model.path == "a b"


def test_a_kind_may_be_given_as_the_section():
    config = build_config({}, ("objective.clip=none", "reference=fixed"), source="")
    assert config.objective.clip.kind == "none"
    assert config.reference.kind == "fixed"


def test_all_errors_come_at_once():
    message = message_of({"seed": -1, "sampling": {"top_p": 0.0}, "objective": {"beta": -0.1, "recipe": "rpg"}})
    assert "4 settings are not right" in message
    for key in ("seed = -1", "sampling.top_p = 0.0", "objective.beta = -0.1", "objective.recipe = 'rpg'"):
        assert key in message


def test_a_bad_value_is_named_with_the_allowed_range():
    assert "objective.beta = -0.1: expected a number >= 0 and <= 1000" in message_of({"objective": {"beta": -0.1}})
    assert "task.digits = 12: expected a whole number >= 1 and <= 9" in message_of({"task": {"digits": 12}})
    assert "model.dtype = 'int8': expected one of 'auto', 'float32', 'bfloat16'" in message_of(
        {"model": {"dtype": "int8"}}
    )
    assert "objective.clip.kind = 'dul': expected one of 'none', 'dual', 'truncate', 'mask'" in message_of(
        {"objective": {"clip": "dul"}}
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "key", ["objective.beta", "optimizer.learning_rate", "sampling.temperature", "objective.clip.low", "task.digits"]
)
def test_numbers_that_are_not_finite_are_errors(key: str, value: float):
    assert f"{key} = {value!r}" in message_of({}, (f"{key}={value}",))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("objective.bta", "objective.beta"),
        ("training.learning_rate", "cloning.learning_rate or critic.learning_rate or optimizer.learning_rate"),
        ("sampling.temprature", "sampling.temperature"),
        ("objectiv", "objective"),
        ("reference.evry_steps", "reference.every_steps"),
        ("model.lora.rnk", "model.lora.rank"),
        ("beta", "objective.beta"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(key: str, nearest: str):
    message = message_of({}, (f"{key}=1",))
    assert f"{key} = 1: unknown key; did you mean {nearest}?" in message or (
        f"{key} = {{…}}: unknown key; did you mean {nearest}?" in message
    )


@pytest.mark.parametrize(
    ("tables", "key", "known"),
    [
        ({"reference": {"kind": "ema", "every_steps": 3}}, "reference.every_steps", "kind, decay"),
        ({"objective": {"recipe": "grpo"}, "reference": {"every_steps": 3}}, "reference.every_steps", "kind"),
        ({"objective": {"clip": {"kind": "none", "low": 3}}}, "objective.clip.low", "kind"),
        ({"task": {"kind": "file", "path": "a.csv", "digits": 3}}, "task.digits", "kind, path, question"),
    ],
)
def test_a_key_of_another_kind_is_told_with_the_kind_that_the_table_is_of(tables, key: str, known: str):
    message = message_of(tables)
    assert f"{key} = 3: unknown key; known keys here: {known}" in message
    table = key.rpartition(".")[0]
    assert f"they are those of {table}.kind = " in message


@pytest.mark.parametrize("value", [0, -1, -0.5, 1e300, True, "never"])
@pytest.mark.parametrize("key", ["max_seconds", "max_generated_tokens", "max_training_seconds"])
def test_a_limit_is_a_number_within_its_bounds_or_none(key: str, value: object):
    message = message_of({"training": {key: value}})
    assert f"training.{key} = {value!r}: expected a" in message
    assert "or 'none'" in message
    assert "or a number or" not in message
    assert math.isinf(getattr(build_config({"training": {key: "none"}}, source="").training, key))


def test_a_limit_on_tokens_is_a_whole_number():
    assert "training.max_generated_tokens = 1.5: expected a whole number" in message_of(
        {"training": {"max_generated_tokens": 1.5}}
    )


@pytest.mark.parametrize("value", ["x", 3, [1], {"a": 1}])
def test_a_loss_that_is_none_is_told_by_its_key(value: object):
    assert "objective.loss = " in message_of({"objective": {"loss": value}})
    assert "expected one of 'policy-gradient', 'squared-residual', 'kto', 'pairwise'" in message_of(
        {"objective": {"loss": value}}
    )


def test_a_kind_in_a_table_that_has_none_is_an_unknown_key():
    assert "objective.kind = 'dual': unknown key" in message_of({"objective": {"kind": "dual"}})


@pytest.mark.parametrize("key", ["num_steps", "num_epochs", "num_minibatches"])
def test_a_count_below_its_bound_is_told_alone(key: str):
    message = message_of({"training": {key: -1}})
    assert "1 setting is not right" in message
    assert f"training.{key} = -1" in message


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"credit": {"whiten": True}}, "\n  credit.whiten = True does nothing with credit.kind = 'response'"),
        ({"advantages": "python:no_such_module.f"}, "\n  advantages.kind = 'python:no_such_module.f': there is no"),
    ],
)
def test_an_error_that_names_its_key_itself_is_not_told_under_the_table_again(tables, message: str):
    assert message in message_of(tables)


@pytest.mark.parametrize("warmup_steps", ["x", -2])
def test_a_wrong_warm_up_of_the_optimizer_is_not_told_of_the_cloning_too(warmup_steps: object):
    message = message_of({"cloning": {"path": "a.csv"}, "optimizer": {"warmup_steps": warmup_steps}})
    assert "1 setting is not right" in message
    assert f"optimizer.warmup_steps = {warmup_steps!r}" in message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("reference.every_step", "reference.every_steps"), ("objective.clip.treshold", "objective.clip.threshold")],
)
def test_a_key_that_is_asked_for_without_a_kind_may_be_of_any(key: str, nearest: str):
    assert nearest_keys(key) == [nearest]


def test_a_key_of_another_kind_is_not_suggested():
    assert "task.path" not in nearest_keys("task.path", ("arithmetic",))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"task": {"operators": "++"}}, "task = {…}: operators must be some of '+-*', each once, got '++'"),
        ({"task": {"kind": "file", "path": "a.csv", "answer": ""}}, "task = {…}: the reward 'math-verify' needs an"),
        ({"reference": {"kind": "iterative", "every_steps": "never"}}, "reference = {…}: an iterative reference needs"),
        ({"scoring": {"format": {"pattern": "("}}}, "scoring.format = {…}: pattern '(' is not a regular expression"),
    ],
)
def test_what_is_wrong_with_a_table_as_a_whole_is_told_by_its_key(tables, message):
    assert message in message_of(tables)


def test_a_parameter_that_a_task_cannot_take_is_told_once_and_by_name():
    gym = {"kind": "reasoning-gym", "dataset": "gcd", "parameters": {"min_value": {"a": 1}}}
    message = message_of({"task": gym})
    assert "1 setting is not right" in message
    assert "task.parameters.min_value = {…}: expected true, false, a number, a short text" in message


def test_texts_are_not_numbers():
    assert "training.num_steps = '5': expected a whole number" in message_of({"training": {"num_steps": "5"}})


def test_a_missing_key_is_named_with_what_it_should_be():
    assert "task.path: missing; expected a path" in message_of({"task": {"kind": "file"}})


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 101, "../up"])
def test_run_names_are_plain(name: str):
    assert "run.name" in message_of({"run": {"name": name}})


def test_a_divergence_without_a_reference_is_an_error():
    message = message_of({"reference": "none"})
    assert "objective.beta" in message and "reference.kind" in message


def test_a_group_baseline_needs_two_samples():
    assert "sampling.num_samples is 1" in message_of({"sampling": {"num_samples": 1}})
    config = build_config({"sampling": {"num_samples": 1}, "advantages": {"kind": "batch-z-score"}}, source="")
    assert config.sampling.num_samples == 1


@pytest.mark.parametrize("override", ["objective.beta", "objective.beta=[1", "=3", "a b=3", "seed.x=1"])
def test_an_override_that_is_none_is_an_error(override: str):
    with pytest.raises(ConfigError, match=r"--set|seed"):
        build_config({"seed": 1}, (override,), source="")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"seed = ", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (b"x" * 1_000_001, "larger than")],
)
def test_a_file_that_is_no_configuration_is_an_error(content: bytes, problem: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        read_config(path)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"can't read .*nothing\.toml"):
        read_config(tmp_path / "nothing.toml")


def test_every_key_is_documented_and_every_number_is_bounded():
    for facts in known_fields():
        assert facts.meaning, f"{facts.path} has no docstring"
        if facts.allowed.startswith(("a number", "a whole number")):
            assert "<" in facts.allowed and ">" in facts.allowed, f"{facts.path} takes {facts.allowed}"


@pytest.mark.parametrize(
    ("training", "warmup_steps"),
    [
        ({"num_steps": 3}, 1),
        ({"num_steps": 20}, 2),
        ({"num_steps": 21}, 3),
        ({}, 10),
        ({"num_steps": 5, "num_epochs": 2, "num_minibatches": 4}, 4),
        ({"num_steps": 100_000}, 10),
    ],
)
def test_the_warm_up_is_a_tenth_of_the_optimiser_steps_and_at_most_ten(training, warmup_steps):
    assert build_config({"training": training}, source="").optimizer.warmup_steps == warmup_steps


def test_a_warm_up_that_is_given_stays_as_it_is_also_for_cloning():
    tables = {"training": {"num_steps": 3}, "cloning": {"path": "pairs.jsonl"}}
    given = build_config({**tables, "optimizer": {"warmup_steps": 10}}, source="")
    assert (given.optimizer.warmup_steps, given.cloning.warmup_steps) == (10, 10)
    own = build_config({**tables, "cloning": {"path": "pairs.jsonl", "warmup_steps": 0}}, source="")
    assert (own.optimizer.warmup_steps, own.cloning.warmup_steps) == (1, 0)


def test_a_run_that_is_resumed_for_longer_keeps_its_warm_up(tmp_path):
    save_config(tmp_path / "config.json", build_config({"training": {"num_steps": 20}}, source=""))
    longer = with_overrides(read_tables(tmp_path / "config.json"), ["training.num_steps=400"])
    assert build_config(longer, source="").optimizer.warmup_steps == 2


def test_the_warm_up_of_the_cloning_is_a_tenth_of_its_own_steps(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "response": "b"}\n' * 90)
    cloning = {"path": str(pairs), "batch_size": 4, "num_epochs": 2}
    config = build_config({"cloning": cloning}, source="")
    cloned = config.cloning.optimizer(config.optimizer, num_pairs=90)
    assert cloned.warmup_steps == 5  # 2 · ⌈90/4⌉ = 46 steps
