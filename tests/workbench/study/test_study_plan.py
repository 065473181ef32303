"""The matrix: what is in it, in which order, laid over what, and what is refused before anything runs."""

import math
import tomllib
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from klimb.declarations import MOST
from klimb.errors import ConfigError
from klimb.workbench.study.config import StudyConfig, read_study, ready_studies
from klimb.workbench.study.plan import STUDY_OWNED, StudyPlan, make_plan

STUDY = """
[study]
name = "letters"
seeds = 3
baseline = "grpo"
budget = {kind = "tokens", amount = 1000}

[base.optimizer]
learning_rate = 1e-3
weight_decay = 0.0

[tasks.sums.task]
digits = 1
[tasks.products.task]
operators = "*"

[methods.grpo]
[methods.dapo]

[settings.adamw]
[settings.schedule-free.optimizer]
kind = "schedule-free"
"""


def plan_of(text: str) -> StudyPlan:
    return make_plan(StudyConfig.model_validate(tomllib.loads(text)), Path("place"), source="study.toml", text=text)


def error_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        study, _ = read_study(str(path))
        make_plan(study, tmp_path, source="study.toml")
    return str(caught.value)


def test_the_matrix_has_every_task_with_every_method_setting_and_seed_once():
    names = [cell.name for cell in plan_of(STUDY).cells]
    wanted = {
        f"{task}/{method}/{setting}/seed-{seed}"
        for task in ("sums", "products")
        for method in ("grpo", "dapo")
        for setting in ("adamw", "schedule-free")
        for seed in (0, 1, 2)
    }
    assert set(names) == wanted
    assert len(names) == len(wanted)


def test_every_prefix_of_the_order_has_run_each_arm_equally_often_but_for_one_seed():
    arms = [(cell.task, cell.method, cell.setting) for cell in plan_of(STUDY).cells]
    for end in range(1, len(arms) + 1):
        counts = Counter(arms[:end])
        assert all(abs(counts[a] - counts[b]) <= 1 for a, b in combinations(set(arms), 2))


def test_a_study_without_settings_has_no_folder_for_them():
    text = STUDY.partition("[settings")[0]
    assert [cell.name for cell in plan_of(text).cells][:2] == ["sums/grpo/seed-0", "sums/dapo/seed-0"]


def test_a_method_has_the_recipe_of_its_name_unless_it_names_another():
    text = STUDY + '[methods.mine.objective]\nrecipe = "rloo"\nbeta = 0.5\n'
    configs = {cell.method: cell.config for cell in plan_of(text).cells}
    assert {name: config.objective.recipe for name, config in configs.items()} == {
        "grpo": "grpo",
        "dapo": "dapo",
        "mine": "rloo",
    }
    assert configs["mine"].objective.beta == 0.5


def test_settings_lie_over_methods_over_tasks_over_the_base():
    text = (
        STUDY
        + "[methods.slow.optimizer]\nlearning_rate = 1e-4\n[methods.slow.objective]\nrecipe = 'grpo'\n"
        + "[settings.fast.optimizer]\nlearning_rate = 1e-2\n"
    )
    rates = {(cell.method, cell.setting): cell.config.optimizer.learning_rate for cell in plan_of(text).cells}
    assert rates["grpo", "adamw"] == 1e-3
    assert rates["slow", "adamw"] == 1e-4
    assert rates["slow", "fast"] == 1e-2


def test_an_optimizer_of_another_kind_keeps_the_shared_settings():
    cells = [cell for cell in plan_of(STUDY).cells if cell.setting == "schedule-free"]
    assert {cell.config.optimizer.kind for cell in cells} == {"schedule-free"}
    assert {cell.config.optimizer.weight_decay for cell in cells} == {0.0}


def test_a_task_of_another_kind_replaces_the_whole_task_where_its_settings_are_moved_to_their_arm():
    text = STUDY.replace(
        "[tasks.sums.task]", "[tasks.logic.task]\nkind = 'reasoning-gym'\ndataset = 'gcd'\n[tasks.sums.task]"
    )
    tasks = {cell.task: cell.config.task.kind for cell in plan_of(text).cells}
    assert tasks == {"sums": "arithmetic", "products": "arithmetic", "logic": "reasoning-gym"}


def test_a_setting_of_the_base_that_is_nothing_to_the_kind_of_an_arm_is_refused_by_name():
    text = STUDY.replace("[base.", "[base.task]\nkind = 'arithmetic'\ndigits = 2\n\n[base.", 1)
    text += "[tasks.logic.task]\nkind = 'reasoning-gym'\ndataset = 'gcd'\n"
    with pytest.raises(ConfigError) as raised:
        plan_of(text)
    assert "logic · grpo" in str(raised.value)
    assert "task.digits = 2 was written for task.kind = 'arithmetic', and 'reasoning-gym' has no" in str(raised.value)


def test_all_runs_have_the_same_budget_and_are_evaluated_at_equal_parts_of_it():
    for cell in plan_of(STUDY).cells:
        assert cell.config.training.max_generated_tokens == 1000
        assert cell.config.evaluation.every_tokens == 250
        assert cell.config.training.num_steps == MOST
        assert cell.config.evaluation.at_ends


def test_a_budget_of_seconds_limits_training_time_alone():
    config = plan_of(STUDY.replace('"tokens", amount = 1000', '"seconds", amount = 90')).cells[0].config
    assert config.training.max_training_seconds == 90
    assert config.evaluation.every_seconds == 22.5
    assert config.training.max_generated_tokens == math.inf


def test_runs_of_one_seed_differ_by_what_the_matrix_says_and_nothing_else():
    first, second, *_ = plan_of(STUDY).cells
    differing = {
        name
        for name, table in first.config.model_dump().items()
        if table != second.config.model_dump()[name] and name != "run"
    }
    assert first.seed == second.seed
    assert differing <= {"objective", "advantages", "reference", "credit"}


def test_rollouts_are_kept_only_where_a_run_reads_them_back_or_the_file_asks():
    assert not plan_of(STUDY).cells[0].config.run.save_rollouts
    assert plan_of(STUDY + "[base.sampling]\nlag = 1\n").cells[0].config.run.save_rollouts
    assert plan_of(STUDY + "[base.run]\nsave_rollouts = true\n").cells[0].config.run.save_rollouts


@pytest.mark.parametrize("key", STUDY_OWNED)
def test_what_makes_runs_comparable_cannot_be_set_for_some_of_them(tmp_path: Path, key: str):
    message = error_of(tmp_path, STUDY.replace("[methods.dapo]", f"[methods.dapo]\n{key} = 1"))
    assert f"methods.dapo.{key} = 1: the study sets this" in message
    assert STUDY_OWNED[key] in message


def test_a_wrong_setting_names_a_cell_that_has_it_and_is_told_once(tmp_path: Path):
    message = error_of(tmp_path, STUDY.replace("learning_rate = 1e-3", "learning_rat = 1e-3"))
    assert message.count("optimizer.learning_rat = 0.001: unknown key; did you mean optimizer.learning_rate?") == 1
    assert "sums · grpo · adamw: 1 setting is not right" in message


def test_different_mistakes_are_all_told(tmp_path: Path):
    text = STUDY.replace("digits = 1", "digits = 100") + "[methods.odd.objective]\nrecipe = 'grp'\n"
    message = error_of(tmp_path, text)
    assert "task.digits = 100" in message
    assert "sums · odd · adamw" in message and "objective.recipe" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('baseline = "grpo"', 'baseline = "ppo"'), "study.baseline = 'ppo' is none of the methods grpo, dapo"),
        (("seeds = 3", "seeds = [1, 1]"), "has a seed twice"),
        (("seeds = 3", "seeds = 0"), "study.seeds"),
        (("seeds = 3", "seeds = 3\nevaluation = 2"), "unknown key; did you mean study.evaluations?"),
        (("amount = 1000", "amount = -1"), "study.budget.amount = -1: expected a number > 0"),
        (("[methods.dapo]", "[methods.GRPO]"), "differ in upper and lower case alone"),
        (("[methods.dapo]", '[methods."../dapo"]'), "methods.../dapo"),
        (("[study]", "[stud]"), "did you mean study?"),
    ],
)
def test_a_wrong_study_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], said: str):
    assert said in error_of(tmp_path, STUDY.replace(*change))


def test_a_budget_of_tokens_is_refused_where_no_token_is_drawn(tmp_path: Path):
    tables = '[base.sources]\nrollout = 0.0\nlog = 1.0\n[base.log]\npath = "store"\n'
    message = error_of(tmp_path, STUDY.replace("[methods.dapo]", "") + tables)
    assert 'budget.kind = "seconds"' in message


def test_an_unknown_study_names_the_ready_ones():
    with pytest.raises(ConfigError, match=r"no ready study.*headline, smoke"):
        read_study("headlin")


@pytest.mark.parametrize("name", ready_studies())
def test_a_ready_study_is_right(name: str):
    study, text = read_study(name)
    plan = make_plan(study, Path("place"), source=name, text=text)
    arms = len(study.tasks) * len(study.methods) * max(1, len(study.settings))
    assert len(plan.cells) == arms * len(study.seeds)


def test_the_headline_study_compares_what_the_paper_compares_with_both_optimizers():
    study, _ = read_study("headline")
    rpg = {f"rpg-{form}{name}" for form in ("", "reinforce-") for name in ("fkl", "rkl", "ufkl", "urkl")}
    assert set(study.methods) >= {*rpg, "ppo", "grpo", "dapo", "reinforce++"}
    assert len(study.tasks) >= 2 and len(study.seeds) >= 5
    optimizers = {cell.config.optimizer.kind for cell in make_plan(study, Path("x"), source="x").cells}
    assert optimizers == {"adamw", "schedule-free"}


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("seeds = 3", "seeds = 0", "study.seeds = 0: expected a whole number from 1 to 1000, or a list of seeds"),
        ("seeds = 3", "seeds = [0, -1]", "study.seeds = [0, -1]: expected a whole number from 1 to 1000, or a list"),
        ("seeds = 3", "sedes = 3", "study.sedes = 3: unknown key; did you mean study.seeds?"),
        ('kind = "tokens"', 'kind = "token"', "study.budget.kind = 'token': expected one of 'tokens', 'seconds'"),
        ('baseline = "grpo"', "", "study.baseline: missing; expected 1 to 60 letters, digits"),
        ("[methods.dapo]", '[methods."a b"]', "methods.a b = 'a b': expected a name: 1 to 60 letters, digits"),
        ("[methods.dapo]", "[method.dapo]", "method = {…}: unknown key; did you mean methods?"),
    ],
)
def test_a_mistake_in_a_study_file_is_told_as_in_a_run_file(tmp_path, was, becomes, expected):
    message = error_of(tmp_path, STUDY.replace(was, becomes))
    assert "study.toml: 1 setting is not right" in message
    assert expected in message
