"""A run of several rewards, from its file to its rollouts."""

import json
import logging

import pytest

from klimb.errors import ConfigError
from klimb.experience import open_store
from klimb.training.json_lines import read_lines
from klimb.workbench.cli import show_what_cannot_be_seen
from klimb.workbench.config import build_config, read_tables

OWN = """
def brief(completions, **kwargs):
    return [-float(len(completion[0]["content"])) for completion in completions]


async def digits(prompt, response, answer, metadata):
    return sum(character.isdigit() for character in response) / max(1, len(response))


def hostile(prompt, response, answer, metadata):
    raise RuntimeError("\\x1b[2Jgone\\u202e")
"""

TABLES = """
[rewards.right]
reward = "task"

[rewards.brief]
reward = "python:several_of_run.brief"
weight = 0.25
scale = "group"

[rewards.digits]
reward = "python:several_of_run.digits"
weight = 2.0
scale = "batch"
"""


@pytest.fixture
def several(workplace):
    """A run file with three rewards."""
    workplace.write("several_of_run.py", OWN)
    text = (workplace.path / "run.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("reward =")]
    workplace.write("several.toml", "\n".join(lines) + TABLES)
    return workplace


def test_a_run_of_several_rewards_says_what_each_gave_and_keeps_it_with_each_sample(several):
    outcome = several.klimb("train", "several.toml", "--set", "training.num_steps=1", "run.name=a")
    assert outcome.status == 0, outcome.err
    assert "1 × right = task + 0.25 × brief = python:several_of_run.brief (scaled in its group)" in outcome.out
    samples = list(open_store(several.path / "runs" / "a").samples())
    for sample in samples:
        assert float(sample.metadata["reward/brief"]) == -len(sample.response)
        assert sample.reward_parts["brief"] == -0.25 * len(sample.response)
        assert sample.reward == pytest.approx(sum(sample.reward_parts.values()), rel=1e-15)
    (row,) = read_lines(several.path / "runs" / "a" / "metrics.jsonl")
    mean = -sum(len(sample.response) for sample in samples) / len(samples)
    assert row["rewards/brief/mean"] == pytest.approx(mean)
    assert row["reward_part_brief"] == pytest.approx(0.25 * mean)


def test_its_rollouts_are_a_log_that_can_be_scaled_and_those_of_another_run_are_not(several):
    assert several.klimb("train", "several.toml", "--set", "training.num_steps=1", "run.name=a").status == 0
    assert several.klimb("train", "run.toml", "--set", "training.num_steps=1", "run.name=b").status == 0
    on = ("sources.log=1.0", "training.num_steps=1", "evaluation.at_ends=false")
    again = several.klimb("train", "several.toml", "--set", *on, "log.path=runs/a", "run.name=c")
    assert again.status == 0, again.err
    refused = several.klimb("train", "several.toml", "--set", *on, "log.path=runs/b", "run.name=d")
    assert refused.status == 2
    assert (
        "8 samples of the log say nothing of rewards.right, rewards.brief, rewards.digits, or were rated" in refused.err
    )


def test_a_resume_with_another_weight_is_refused_and_the_same_goes_on(several):
    assert several.klimb("train", "several.toml", "--set", "training.num_steps=1", "run.name=a").status == 0
    refused = several.klimb("train", "--resume", "runs/a", "--set", "rewards.brief.weight=0.5")
    assert refused.status != 0
    assert "rewards.brief.weight: 0.25 in the checkpoint, 0.5 now" in refused.err
    went_on = several.klimb("train", "--resume", "runs/a", "--set", "training.num_steps=2")
    assert went_on.status == 0, went_on.err
    assert len(list(read_lines(several.path / "runs" / "a" / "metrics.jsonl"))) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("rewards.brief.wieght=1.0",), "rewards.brief.wieght = 1.0: unknown key; did you mean rewards.brief.weight?"),
        (("rewards.digits.reward=python:several_of_run.no",), "has no function 'no'"),
        (("rewards.brief.reward=python:not_there.f",), "there is no module 'not_there'"),
        (("rewards.liked.reward=model:nowhere",), "rewards.liked.reward = 'model:nowhere': expected the folder of a"),
        (("rewards.overlong.reward=task", "scoring.overlong.buffer_tokens=2"), "adds a part of that name"),
        (("rewards.right=default", "task.reward=python:several_of_run.digits"), "does nothing: no reward of [rewards]"),
        (("rewards.brief.weight=0",), "scale = 'group' does nothing with weight = 0"),
    ],
)
def test_a_table_that_cannot_act_is_refused_in_its_own_words(several, overrides, message):
    outcome = several.klimb("train", "several.toml", "--set", *overrides)
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err
    assert not (several.path / "runs").exists()


@pytest.mark.parametrize("answer", ["", "answer"])
def test_rewards_that_read_no_answer_need_no_column_with_one(several, answer):
    several.write("asked.jsonl", "".join(f'{{"question": "What is {number}+1?"}}\n' for number in range(4)))
    lines = (several.path / "several.toml").read_text().split("[task]")
    asked = f'[task]\nkind = "file"\npath = "asked.jsonl"\nanswer = "{answer}"\n'
    rest = lines[1][lines[1].index("\n[") :]
    several.write("no_answer.toml", lines[0] + asked + rest)
    settings = ("rewards.right=default", "rewards.digits=default", "training.num_steps=1", "run.name=a")
    outcome = several.klimb("train", "no_answer.toml", "--set", *settings)
    assert outcome.status == 0, outcome.err
    assert json.loads((several.path / "runs" / "a" / "config.json").read_text())["task"]["reward"] == "none"
    resumed = several.klimb("train", "--resume", "runs/a", "--set", "training.num_steps=2")
    assert resumed.status == 0, resumed.err
    refused = several.klimb("train", "no_answer.toml", "--set", "task.reward=none", "task.answer=question")
    assert (refused.status, "task.reward = 'none': the run has no reward" in refused.err) == (2, True), refused.err


def test_an_environment_may_be_the_only_one_that_gives_a_reward():
    tables = {"task": {"kind": "file", "path": "rows.jsonl", "answer": "", "reward": "none"}}
    environment = {"environment": {"factory": "python:my_locks.Lock"}}
    assert build_config({**tables, **environment}, source="run.toml").task.reward == "none"
    with pytest.raises(ConfigError, match=r"the run has no reward; .* or take an \[environment\] that gives one"):
        build_config(tables, source="run.toml")


def test_set_takes_a_reward_away_and_gives_a_key_its_default(several):
    tables = read_tables(several.path / "several.toml")
    config = build_config(tables, ("rewards.brief=default", "rewards.digits.weight=default"), source="several.toml")
    assert list(config.rewards) == ["right", "digits"]
    assert config.rewards["digits"].weight == 1.0


def test_what_a_rewards_error_says_is_shown_and_does_nothing(several):
    settings = ("rewards.brief.reward=python:several_of_run.hostile", "run.name=a", "sampling.num_samples=16")
    outcome = several.klimb("train", "several.toml", "--set", *settings, "evaluation.at_ends=false")
    assert outcome.status != 0
    told = outcome.out + outcome.err
    assert r"RewardFailed: rewards.brief raised RuntimeError: \x1b[2Jgone\u202e" in told
    assert "\x1b[2J" not in told
    assert "\u202e" not in told


def test_a_log_message_is_shown_without_control_characters():
    record = logging.LogRecord("klimb", logging.WARNING, "", 0, "sample %s: refused", ("\x1b[31mred\u2066",), None)
    assert show_what_cannot_be_seen(record)
    assert json.dumps(record.getMessage()) == json.dumps(r"sample \x1b[31mred\u2066: refused")
