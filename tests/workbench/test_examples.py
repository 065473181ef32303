"""The examples run, here with a tiny model and one step."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from klimb.experience import read_samples
from klimb.training import read_metrics

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE_STEP = [
    "training.num_steps=1",
    "evaluation.num_problems=2",
    "sampling.num_prompts=2",
    "advantages.group_filter=false",
]


CONVERSATIONS = ("calculator.toml", "guessing.toml", "sql.toml", "prices.toml", "number.toml")
"""Examples whose prompts tell of tools: letter by letter, as the tiny model reads them, they are long."""

IN_CONVERSATIONS = ["sampling.num_samples=2", "sampling.max_new_tokens=16", "evaluation.num_samples=1"]


def with_room(model: Path, folder: Path) -> Path:
    """Return a copy of the model with more positions, for which it needs no more weights."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16_384}))
    return folder


@pytest.fixture
def beside_the_examples(workplace):
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, workplace.path)
    shutil.copytree(EXAMPLES / "templates", workplace.path / "templates")
    return workplace


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.toml")])
def test_the_run_files_run(beside_the_examples, name: str):
    model, settings = beside_the_examples.model, ONE_STEP
    if name in (*CONVERSATIONS, "agent.toml"):
        model = with_room(model, beside_the_examples.path / "long")
        settings = [*settings, *IN_CONVERSATIONS]
    settings = [f"model.path={model}", *settings]
    if name == "logs.toml":  # it learns from what sums.toml leaves
        assert beside_the_examples.klimb("train", "sums.toml", "--set", *settings, "run.report=false").status == 0
    is_drawn = name == "sums.toml"  # a report is the same work for each
    outcome = beside_the_examples.klimb("train", name, "--set", *settings, f"run.report={str(is_drawn).lower()}")
    assert outcome.status == 0, outcome.err
    assert "step 1/1" in outcome.out
    if name in CONVERSATIONS:
        samples = read_samples(Path(f"runs/{name.removesuffix('.toml')}/rollouts/step-000001.parquet"))
        assert len(samples) == 4 and all(
            sample.turns and sample.tools and sample.metadata["ended"] for sample in samples
        )


def test_the_own_divergence_trains_and_leaves_a_run(beside_the_examples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_divergence.py", str(beside_the_examples.model)])
    runpy.run_path(str(EXAMPLES / "own_divergence.py"))
    assert "step 3/3" in capsys.readouterr().out
    assert len(read_metrics(Path("runs/neyman/metrics.jsonl"))) == 3
    assert beside_the_examples.klimb("report", "runs/neyman").status == 0


def test_the_run_from_python_is_a_program_that_leaves_a_run(beside_the_examples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python_run.py", str(beside_the_examples.model)])
    runpy.run_path("python_run.py", run_name="__main__")
    # What the program printed is all that it printed: the run itself was not shown.
    *steps, last = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in steps] == [f"step {number + 1} of 20" for number in range(len(steps))]
    rewards = [row["reward_mean"] for row in read_metrics(Path("runs/brief/metrics.jsonl"))]
    assert [line.split()[5] for line in steps] == [f"{reward:.3f}," for reward in rewards]
    # The callback stops it where the reward, unrounded, is above 0.9, and not before.
    assert all(reward <= 0.9 for reward in rewards[:-1]) and (len(rewards) == 20 or rewards[-1] > 0.9)
    assert "klimb report runs/brief" in last
    folder = beside_the_examples.path / "runs" / "brief"
    config = json.loads((folder / "config.json").read_text())
    assert config["task"]["reward"] == "python:__object__.brief"
    assert config["run"]["callbacks"] == ["python:__object__.Watch"]
    assert beside_the_examples.klimb("report", str(folder)).status == 0


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
