import json

import pytest
from tests.workbench.logged import drawn, store_of
from transformers import AutoModelForCausalLM

from klimb.samplers import LocalSampler
from klimb.training import RECIPES, read_metrics
from klimb.workbench import dry_run
from klimb.workbench.config import build_config
from klimb.workbench.dry_run import Cost, Trial, step_seconds


def test_train_leaves_a_whole_run(workplace):
    outcome = workplace.klimb("train", "run.toml", "--set", "run.loggers=['tensorboard']", "run.report=true")
    assert outcome.status == 0, outcome.err
    assert [line[:8] for line in outcome.out.splitlines() if line.startswith("step ")] == [
        "step 1/3",
        "step 2/3",
        "step 3/3",
    ]
    run = workplace.path / "runs" / "run"
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]
    for name in (
        "config.json",
        "provenance.json",
        "curves.png",
        "curves.svg",
        "tensorboard",
        "rollouts",
        "checkpoints",
    ):
        assert (run / name).exists(), name
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model_path"] == "runs/run/model"
    assert summary["held_out"]["count"] == 8
    assert 0 <= summary["held_out"]["before"]["mean"] <= 1
    assert 0 <= summary["held_out"]["after"]["mean"] <= 1
    assert summary["seconds"]["total"] > 0
    assert str(workplace.path) not in (run / "summary.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(run / "model").num_parameters() > 0


def test_a_resumed_run_goes_on_with_changed_length_and_keeps_what_it_measured_before(workplace):
    assert workplace.klimb("train", "run.toml").status == 0
    run = workplace.path / "runs" / "run"
    before = json.loads((run / "summary.json").read_text())["held_out"]["before"]
    outcome = workplace.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=5")
    assert outcome.status == 0, outcome.err
    assert "step 4/5" in outcome.out and "step 3/5" not in outcome.out
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_steps"] == 5
    assert summary["held_out"]["before"] == before
    assert json.loads((run / "config.json").read_text())["training"]["num_steps"] == 5
    assert "no step is left" not in outcome.out
    shorter = workplace.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=2")
    assert shorter.status == 0, shorter.err
    assert "no step is left to do: 5 are done, and training.num_steps is 2" in shorter.out


def test_a_resumed_run_with_another_objective_is_refused_and_nothing_is_changed(workplace):
    assert workplace.klimb("train", "run.toml").status == 0
    run = workplace.path / "runs" / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    outcome = workplace.klimb("train", "--resume", "runs/run", "--set", "objective.beta=0.5", "training.num_steps=9")
    assert outcome.status == 2
    assert "objective" in outcome.err
    assert {path: path.read_bytes() for path in before} == before


def test_eval_gives_mean_pass_and_greedy_of_a_run(workplace):
    assert workplace.klimb("train", "run.toml", "--set", "task.reward=task").status == 0
    outcome = workplace.klimb("eval", "runs/run", "--output", "result.json")
    assert outcome.status == 0, outcome.err
    for text in ("Mean@4", "pass@4", "greedy", "95 % interval"):
        assert text in outcome.out
    result = json.loads((workplace.path / "result.json").read_text())
    after = json.loads((workplace.path / "runs" / "run" / "summary.json").read_text())["held_out"]["after"]
    assert result["mean"] == after["mean"], "a saved model scores what the trained one did"


def test_eval_takes_a_task_by_name(workplace):
    outcome = workplace.klimb(
        "eval", str(workplace.model), "--task", "arithmetic", "--set", "task.digits=2", "evaluation.num_samples=2",
        "sampling.max_new_tokens=4", "evaluation.num_problems=3",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "3 problems, 6 answers scored" in outcome.out


def test_a_second_run_of_the_same_file_gets_a_folder_of_its_own(workplace):
    for _ in range(2):
        assert workplace.klimb("train", "run.toml", "--set", "training.num_steps=1").status == 0
    assert sorted(path.name for path in (workplace.path / "runs").iterdir()) == ["run", "run-2"]


def test_a_dry_run_estimates_and_leaves_nothing(workplace):
    before = sorted(workplace.path.rglob("*"))
    outcome = workplace.klimb("train", "run.toml", "--dry-run")
    assert outcome.status == 0, outcome.err
    for text in ("4 answers × 6 tokens", "weights", "one step", "the run", "an answer"):
        assert text in outcome.out
    assert [path for path in sorted(workplace.path.rglob("*")) if "__pycache__" not in path.parts] == before


def test_a_time_limit_ends_the_run_as_if_it_were_done(workplace):
    outcome = workplace.klimb("train", "run.toml", "--set", "training.max_seconds=0.001")
    assert outcome.status == 0, outcome.err
    assert "stopped after step 0 of 3" in outcome.out
    assert (workplace.path / "runs" / "run" / "model").is_dir()


def test_a_lora_run_trains_resumes_and_evaluates(workplace):
    assert workplace.klimb("train", "run.toml", "--set", "model.lora.rank=2").status == 0
    outcome = workplace.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=4")
    assert outcome.status == 0, outcome.err
    assert workplace.klimb("eval", "runs/run").status == 0


def test_a_run_may_begin_with_cloning(workplace):
    workplace.write("pairs.jsonl", '{"prompt": "What is 1+1?", "response": "2"}\n' * 4)
    outcome = workplace.klimb("train", "run.toml", "--set", "cloning.path=pairs.jsonl", "training.num_steps=1")
    assert outcome.status == 0, outcome.err
    assert "cloned 4 answers" in outcome.out


def test_a_divergence_of_ones_own_is_found_by_name(workplace):
    workplace.write(
        "own_divergences.py",
        "from klimb.divergences import Divergence\n"
        "chi = Divergence('chi', f=lambda r: (r - 1) ** 2, df=lambda r: 2 * (r - 1))\n",
    )
    outcome = workplace.klimb("train", "run.toml", "--set", "objective.divergence=python:own_divergences.chi")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_shown_and_takes_a_step(workplace, name: str):
    shown = workplace.klimb("recipes", "show", name)
    assert shown.status == 0
    for text in (RECIPES[name].formula, RECIPES[name].source, "[objective]"):
        assert text in shown.out
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", f"objective.recipe={name}")
    assert outcome.status == 0, outcome.err


def test_recipes_lists_all(workplace):
    listed = workplace.klimb("recipes").out
    assert all(name in listed for name in RECIPES)


def test_the_settings_that_recipes_show_prints_are_a_configuration(workplace):
    toml = workplace.klimb("recipes", "show", "grpo").out.partition("[objective]")
    workplace.write(
        "grpo.toml",
        (workplace.path / "run.toml").read_text().replace("[advantages]\ngroup_filter = false", toml[1] + toml[2]),
    )
    assert workplace.klimb("train", "grpo.toml", "--dry-run").status == 0


def test_the_estimate_of_a_step_adds_what_each_answer_costs_to_what_a_step_costs():
    config = build_config(
        {
            "sampling": {"num_prompts": 4, "num_samples": 8, "max_batch": 16},
            "training": {"num_epochs": 2, "num_minibatches": 4},
        },
        source="",
    )
    cost = Cost(one=1.0, group=1.7, num_rows=8)
    trial = Trial(
        batch=None, rewards=(), error="", answer="", score_seconds=0.5, sampling=cost, learning=cost, touched=None
    )
    # Each further answer adds 0.1 s. Sampling: 2 waves of 16 rows; learning: 2 epochs of 4 steps with 8 rows each.
    expected = (2 * 1.0 + 30 * 0.1) + 4 * 0.5 + 2 * (4 * 1.0 + 28 * 0.1)
    assert step_seconds(config, trial) == pytest.approx(expected)


ON_A_LOG = (
    "sources.log=1.0",
    "sources.rollout=0.0",
    "log.path='log'",
    "objective.recipe='asymre'",
    "evaluation.at_ends=false",
)


@pytest.fixture
def log_workplace(workplace, tiny_policy):
    store_of(workplace.path / "log", drawn(tiny_policy))
    return workplace


def test_a_run_on_logs_needs_no_training_problem(log_workplace):
    outcome = log_workplace.klimb("train", "run.toml", "--set", *ON_A_LOG, "task.held_out_fraction=1.0")
    assert outcome.status == 0, outcome.err
    resumed = log_workplace.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=4")
    assert resumed.status == 0, resumed.err
    assert len((log_workplace.path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_dry_run_on_logs_draws_nothing_and_measures_a_step_of_the_run(log_workplace, monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a run on logs draws nothing")

    for method in ("sample", "stream"):
        monkeypatch.setattr(LocalSampler, method, refuse)
    before = sorted(log_workplace.path.rglob("*"))
    outcome = log_workplace.klimb("train", "run.toml", "--dry-run", "--set", *ON_A_LOG)
    assert outcome.status == 0, outcome.err
    assert "8 answers in 2 groups" in outcome.out  # sampling.num_prompts = 2, and a group of the log has 4
    assert [path for path in sorted(log_workplace.path.rglob("*")) if "__pycache__" not in path.parts] == before


def test_the_time_that_a_dry_run_on_logs_says_is_that_of_its_step_times_the_steps(log_workplace, monkeypatch):
    measured = {"step_seconds": 20.0, "num_tokens_trained": 5.0}
    monkeypatch.setattr(dry_run, "try_one_step", lambda session: measured)
    outcome = log_workplace.klimb("train", "run.toml", "--dry-run", "--set", *ON_A_LOG, "training.num_steps=90")
    assert "about 30:00 for 90 steps" in outcome.out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("optimizer.warmup_steps='auto'", "training.num_steps=35"), "after a warm-up of 4 optimiser steps"),
        (("optimizer.warmup_steps='auto'",), "learning rate 0.001 from the first step on"),
        (("optimizer.warmup_steps=7",), "after a warm-up of 7 optimiser steps"),
    ],
)
def test_a_run_says_first_over_how_many_steps_its_learning_rate_grows(workplace, settings, words):
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", *settings)
    assert words in " ".join(outcome.out.split()), outcome.err


@pytest.mark.parametrize(("num_minibatches", "is_told"), [(1, True), (2, False)])
def test_a_divergence_that_stands_at_its_reference_on_logs_is_told(log_workplace, num_minibatches, is_told):
    settings = ("objective.beta=0.1", "reference='iterative'", f"training.num_minibatches={num_minibatches}")
    outcome = log_workplace.klimb("train", "run.toml", "--dry-run", "--set", *ON_A_LOG, *settings)
    assert outcome.status == 0, outcome.err
    assert ("x = 0, so the divergence does nothing" in " ".join(outcome.out.split())) is is_told
