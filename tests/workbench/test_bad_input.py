"""What a user gets wrong, through the command line: a clear error and status 2, or a counted error sample."""

import pytest

from klimb.errors import ConfigError
from klimb.experience import read_samples
from klimb.training import read_metrics
from klimb.workbench import cli


def refused(outcome) -> str:
    """The message of a command that was refused: one paragraph, no traceback."""
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    return outcome.err


def test_a_wrong_model_path(workplace):
    message = refused(workplace.klimb("train", "run.toml", "--set", "model.path=no/such/model"))
    assert "no/such/model" in message
    assert not (workplace.path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "no rows"),
        ("broken.jsonl", '{"question": "1+1?", "answer": "2"}\n{"question": ', "broken.jsonl:2"),
        ("column.jsonl", '{"prompt": "1+1?", "answer": "2"}\n', "question"),
        ("data.json", "[]", "has no rows"),
    ],
)
def test_a_data_file_that_cannot_be_used(workplace, name: str, content: str, words: str):
    workplace.write(name, content)
    settings = ["task.kind=file", f"task.path={name}"]
    message = refused(workplace.klimb("train", "run.toml", "--set", *settings))
    assert name in message and words in message
    assert not (workplace.path / "runs").exists()


def test_a_missing_data_file(workplace):
    message = refused(workplace.klimb("train", "run.toml", "--set", "task.kind=file", "task.path=nothing.jsonl"))
    assert "task.path = 'nothing.jsonl': expected a file, and there is nothing of that name in" in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("objective.beta=-0.1", "objective.beta = -0.1: expected a number >= 0"),
        ("objective.beta=nan", "objective.beta = nan"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = nan"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate = 0"),
        ("objective.bta=0.1", "did you mean objective.beta?"),
        ("sampling.num_samples=0", "sampling.num_samples = 0: expected a whole number >= 1"),
        ("sampling.temperature=0", "sampling.temperature = 0"),
        ("objective.divergence=fk", "did you mean 'fkl'?"),
        ("objective.recipe=grop", "did you mean 'grpo'?"),
        ("objective.divergence=python:no_such_module.f", "no_such_module"),
    ],
)
def test_a_wrong_setting(workplace, setting: str, words: str):
    assert words in refused(workplace.klimb("train", "run.toml", "--set", setting))
    assert not (workplace.path / "runs").exists()


def test_a_reward_that_is_not_there(workplace):
    message = refused(workplace.klimb("train", "run.toml", "--set", "task.reward=python:my_reward.digit"))
    assert "did you mean 'digits'?" in message
    assert not (workplace.path / "runs").exists()


SOMETIMES = "if ord(response[:1] or 'a') % 4 == 0: {failure}\n    return float(len(response) % 2)"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("raise KeyError('oops')", "oops"),
        ("return float('nan')", "nan"),
        ("return 'much'", "much"),
        ("time.sleep(60)", "timed out"),
    ],
)
def test_a_reward_that_fails_now_and_then_costs_only_its_samples(without_reward, failure: str, reason: str):
    workplace = without_reward(SOMETIMES.format(failure=failure))
    limit = 0.3 if reason == "timed out" else 60  # no other reward is to be late, however busy the machine
    settings = [f"scoring.timeout_seconds={limit}", "scoring.max_error_fraction=1.0", "evaluation.at_ends=false"]
    outcome = workplace.klimb("train", "run.toml", "--set", *settings)
    assert outcome.status == 0, outcome.err
    run = workplace.path / "runs" / "run"
    samples = [sample for path in sorted((run / "rollouts").iterdir()) for sample in read_samples(path)]
    errors = [sample for sample in samples if sample.reward is None]
    assert errors, "some of the answers begin with such a character"
    assert all(reason in sample.reward_reason for sample in errors)
    assert sum(row["num_errors"] for row in read_metrics(run / "metrics.jsonl")) == len(errors)


@pytest.mark.parametrize(
    ("body", "reason"), [("raise KeyError('oops')", "oops"), ("return float('nan')", "nan"), ("return None", "None")]
)
def test_a_reward_that_always_fails_stops_the_run_and_says_why(without_reward, body: str, reason: str):
    workplace = without_reward(body)
    outcome = workplace.klimb("train", "run.toml", "--set", "evaluation.num_samples=16")
    assert outcome.status == 3
    assert "have no reward" in outcome.err and reason in outcome.err


def test_a_folder_with_something_in_it(workplace):
    (workplace.path / "mine").mkdir()
    (workplace.path / "mine" / "thesis.tex").write_text("years of work")
    message = refused(workplace.klimb("train", "run.toml", "--folder", "mine"))
    assert "mine already exists" in message
    assert (workplace.path / "mine" / "thesis.tex").read_text() == "years of work"


def test_resuming_what_is_no_run(workplace):
    assert "holds no run" in refused(workplace.klimb("train", "--resume", "runs/nothing"))


@pytest.mark.parametrize("arguments", [("train",), ("train", "run.toml", "--resume", "runs/x"), ("eval", "model")])
def test_a_command_that_says_too_little_or_too_much(workplace, arguments):
    refused(workplace.klimb(*arguments))


def test_evaluating_a_task_that_does_not_exist(workplace):
    message = refused(workplace.klimb("eval", str(workplace.model), "--task", "arithmetics"))
    assert "arithmetic" in message


def test_a_task_without_training_problems(workplace):
    message = refused(workplace.klimb("train", "run.toml", "--set", "task.held_out_fraction=1.0"))
    assert "no training problem" in message


def test_the_traceback_is_there_for_those_who_ask(workplace, monkeypatch):
    monkeypatch.setenv("KLIMB_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        workplace.klimb("train", "nothing.toml")


def test_a_defect_is_not_dressed_up_as_the_users_error():
    def defect() -> None:
        int("seven")

    with pytest.raises(ValueError) as raised:
        defect()
    assert not cli.is_ours(raised.value)
