"""The examples run, here with a tiny model and one step."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE_STEP = [
    "training.num_steps=1",
    "evaluation.num_problems=2",
    "sampling.num_prompts=2",
    "advantages.group_filter=false",
]


@pytest.fixture
def beside_the_examples(workplace):
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, workplace.path)
    return workplace


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.toml")])
def test_the_run_files_run(beside_the_examples, name: str):
    settings = [f"model.path={beside_the_examples.model}", *ONE_STEP]
    if name == "logs.toml":  # it learns from what sums.toml leaves
        assert beside_the_examples.klimb("train", "sums.toml", "--set", *settings, "run.report=false").status == 0
    outcome = beside_the_examples.klimb("train", name, "--set", *settings)
    assert outcome.status == 0, outcome.err
    assert "step 1/1" in outcome.out


def test_the_own_divergence_trains(beside_the_examples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_divergence.py", str(beside_the_examples.model)])
    runpy.run_path(str(EXAMPLES / "own_divergence.py"))
    assert capsys.readouterr().out.count("reward") == 3


def test_a_reward_and_a_divergence_of_ones_own_are_found_by_name(beside_the_examples):
    settings = [f"model.path={beside_the_examples.model}", *ONE_STEP]
    own = ["task.reward=python:my_rewards.short_and_right", "objective.divergence=python:my_divergences.triangular"]
    outcome = beside_the_examples.klimb("train", "sums.toml", "--set", *settings, *own, "run.report=false")
    assert outcome.status == 0, outcome.err


def test_a_task_of_ones_own_is_found_by_name(beside_the_examples):
    settings = [f"model.path={beside_the_examples.model}", *ONE_STEP]
    own = ["task=python:my_tasks.reversals", "run.report=false"]
    outcome = beside_the_examples.klimb("train", "sums.toml", "--set", *settings, *own)
    assert outcome.status == 0, outcome.err
