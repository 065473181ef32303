"""What a user is told before it costs a day: settings that do nothing, batches that teach nothing, runs half done."""

import pytest

BROKEN = """
def broken(prompt, response, answer, metadata):
    raise KeyError("boom")
"""


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        (["training.num_minibatches=1"], True),
        (["training.num_minibatches=2"], False),
        (["training.num_epochs=2"], False),
        (["reference.kind=fixed"], False),
        (["sampling.temperature=0.7"], True),
        (["sampling.temperature=0.7", "model.temperature=1.0"], False),
        (["sampling.top_p=0.9"], False),
        (["objective.beta=0"], False),
    ],
)
def test_a_divergence_that_cannot_act_is_said_and_any_other_is_not(workplace, settings, is_told):
    outcome = workplace.klimb("train", "run.toml", "--set", "training.num_steps=1", *settings)
    assert outcome.status == 0, outcome.err
    assert ("w = 1 and x = 0" in outcome.out) is is_told


def test_a_step_that_trains_on_nothing_is_said(workplace, caplog):
    constant = "def constant(prompt, response, answer, metadata):\n    return 1.0\n"
    workplace.write("same.py", constant)
    settings = ["task.reward=python:same.constant", "advantages.group_filter=true", "training.num_steps=1"]
    outcome = workplace.klimb("train", "run.toml", "--set", *settings)
    assert outcome.status == 0, outcome.err
    assert "step 1 trained on nothing" in caplog.text


def test_a_dry_run_says_why_no_reward_came(workplace):
    workplace.write("bad.py", BROKEN)
    outcome = workplace.klimb("train", "run.toml", "--dry-run", "--set", "task.reward=python:bad.broken")
    assert "KeyError: 'boom'" in outcome.out + outcome.err


def test_evaluating_a_run_that_did_not_end_names_the_command_that_ends_it(workplace):
    assert workplace.klimb("train", "run.toml").status == 0
    model = workplace.path / "runs" / "run" / "model"
    model.rename(model.with_name("elsewhere"))
    outcome = workplace.klimb("eval", "runs/run")
    assert outcome.status == 2
    assert "klimb train --resume runs/run goes on" in " ".join(outcome.err.split())


def test_a_file_and_a_run_to_resume_cannot_both_be_given(workplace):
    outcome = workplace.klimb("train", "run.toml", "--resume", "runs/run")
    assert outcome.status == 2
    assert "not both" in outcome.err
