"""The section `[guard]` of a run file, from the command line to guard.json and the terminal."""

import json
from importlib.resources import files

import pytest
from rich.console import Console
from safetensors.torch import load_file

from klimb.training import read_metrics
from klimb.ui.terminal.run import print_guard

GUARD = """
[guard]
every_steps = 1
num_problems = 3
max_new_tokens = 4
max_refusal_fraction = "none"
max_empty_fraction = "none"
max_repetition_fraction = "none"
"""


@pytest.fixture
def guarded(workplace):
    path = workplace.path / "run.toml"
    path.write_text(path.read_text(encoding="utf-8") + GUARD, encoding="utf-8")
    return workplace


def test_a_guarded_run_keeps_and_shows_its_base_metrics(guarded):
    outcome = guarded.klimb("train", "run.toml", "--set", "training.num_steps=2")
    assert outcome.status == 0, outcome.err
    run = guarded.path / "runs" / "run"
    kept = json.loads((run / "guard.json").read_text())
    assert kept["before"]["guard/perplexity"] > 1
    assert 0 <= kept["before"]["guard/general/everyday"] <= 1
    last = read_metrics(run / "metrics.jsonl")[-1]
    assert {name: last[name] for name in kept["after"]} == kept["after"]
    assert "text built-in, everyday · every 1 steps · beyond a limit: warn" in outcome.out
    assert "perplexity of the text" in outcome.out


def test_a_run_says_beforehand_what_its_guard_can_see(guarded):
    few = guarded.klimb("train", "run.toml", "--dry-run", "--set", "training.num_steps=2")
    assert "with 3 problems and 2 checks the guard sees no fall of the general score in 4 of 5 runs" in few.out, few.err
    more = guarded.klimb(
        "train", "run.toml", "--dry-run", "--set", "guard.num_problems=40", "guard.max_empty_fraction=0.2"
    )
    assert "with 40 problems and 3 checks the guard sees a fall of" in more.out, more.err


def test_a_run_that_forgets_is_rolled_back_and_saves_the_good_model(guarded):
    outcome = guarded.klimb(
        "train", "run.toml", "--set", "optimizer.learning_rate=0.2", "guard.action='rollback'", "run.report=false"
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "stopped after step 1 of 3: the guard ended it at step 1 and went back to step 0" in outcome.out
    assert "guard, step 1: went back to step 0: perplexity of the held-out text is" in outcome.out
    run = guarded.path / "runs" / "run"
    kept = json.loads((run / "guard.json").read_text())
    assert kept["after"] == kept["before"]
    assert "guard/rollout_empty_fraction" in kept["after"]
    saved, original = load_file(run / "model" / "model.safetensors"), load_file(guarded.model / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(saved[name].equal(original[name]) for name in original)
    resumed = guarded.klimb("train", "--resume", "runs/run")
    assert resumed.status == 0, resumed.err
    assert "step 2/3" not in resumed.out


def test_a_set_that_does_not_exist_is_known_before_anything_is_written(guarded):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    outcome = guarded.klimb("train", "run.toml", "--set", "guard.general=['chain_sums']")
    assert outcome.status == 2
    assert "guard.general" in outcome.err and "chain_sum" in outcome.err
    assert not (guarded.path / "runs").exists()


def test_what_others_wrote_into_the_file_cannot_steer_the_terminal(tmp_path):
    event = {
        "step": 3,
        "action": "stop",
        "name": "m",
        "number": None,
        "limit": 0.1,
        "title": "bad \x1b[31m[red]\u202e",
    }
    content = {"before": {"guard/perplexity": 20.0}, "after": {"guard/perplexity": None}, "events": [event]}
    (tmp_path / "guard.json").write_text(json.dumps(content), encoding="utf-8")
    console = Console(record=True, width=100, force_terminal=False)
    print_guard(console, tmp_path / "guard.json")
    shown = console.export_text()
    assert "not finite" in shown
    assert "guard, step 3: the run was stopped: bad [31m[red]" in shown
    assert "\x1b" not in shown and "\u202e" not in shown


def test_a_run_without_a_guard_says_nothing_of_it(tmp_path):
    console = Console(record=True, force_terminal=False)
    print_guard(console, tmp_path / "guard.json")
    assert console.export_text() == ""


def test_the_questions_are_plain_text_of_two_columns():
    lines = (files("klimb.training.guard") / "questions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "question,answers"
    assert all(line.count(",") == 1 for line in lines)
