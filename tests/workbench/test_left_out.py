"""A run leaves out what the model cannot be asked, and says so at its start, in the dry run, and in its folder."""

import json
import shutil

import pytest

from klimb.training.metrics import read_metrics
from klimb.training.run_folder import read_run
from klimb.workbench.config import read_config
from klimb.workbench.session import make_session

LONG = "a" * 240
"""With 19 tokens of the template beyond the 256 positions of the tiny model."""


@pytest.fixture
def letters(workplace):
    text = (workplace.path / "run.toml").read_text()
    kept = text[: text.index("[task]")] + text[text.index("[sampling]") :]
    task = (
        '[task]\nkind = "file"\npath = "letters.jsonl"\nreward = "python:my_reward.digits"\n'
        "held_out_fraction = 0.5\nmax_unusable_fraction = 0.5\n"
    )
    workplace.write("run.toml", kept + task)
    questions = ["a", "b", LONG, "c", "d", "e", LONG.replace("a", "b"), "f"]
    rows = [{"question": question, "answer": "1"} for question in questions]
    workplace.write("letters.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return workplace


def test_a_long_question_is_left_out_at_the_start_by_file_and_line(letters):
    run = letters.klimb("train", "run.toml", "--set", "training.num_steps=2", "run.report=true")
    assert run.status == 0, run.err
    words = " ".join(run.out.split())
    assert "left out 2 of 8 problems cannot be used: letters.jsonl:" in words
    assert "the prompt has 259 tokens, and with an answer of 6 it needs more than the model's 256 positions" in words
    folder = letters.path / "runs" / "run"
    (left_out,) = json.loads((folder / "prompts.json").read_text())["left_out"]
    assert {row["id"] for row in left_out["reasons"]} == {"letters.jsonl:3", "letters.jsonl:7"}
    assert (left_out["num_left_out"], left_out["num_looked_at"]) == (2, 8)
    assert len(read_run(folder).left_out) == 1
    assert "could not be asked and were left out" in (folder / "report.html").read_text()
    session = make_session(read_config(letters.path / "run.toml"))
    assert len(session.task.train) + len(session.task.held_out) == 6


def test_a_dry_run_says_it_too(letters):
    dry = letters.klimb("train", "run.toml", "--dry-run")
    assert dry.status == 0, dry.err
    assert "2 of 8 problems cannot be used" in dry.out


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_more_than_is_allowed_is_refused_before_anything_is_made(letters, arguments):
    run = letters.klimb("train", "run.toml", *arguments, "--set", "task.max_unusable_fraction=0.2")
    assert run.status == 2
    assert "2 of 8 problems cannot be used" in run.err and "task.max_unusable_fraction = 0.2" in run.err
    assert not (letters.path / "runs").exists()


def test_a_resume_leaves_out_the_same_even_with_another_share_allowed(letters):
    first = letters.klimb("train", "run.toml", "--set", "training.num_steps=2")
    assert first.status == 0, first.err
    changed = ("training.num_steps=3", "task.max_unusable_fraction=0.25")
    resumed = letters.klimb("train", "--resume", "runs/run", "--set", *changed)
    assert resumed.status == 0, resumed.err
    assert len(read_metrics(letters.path / "runs" / "run" / "metrics.jsonl")) == 3


def test_an_evaluation_leaves_them_out_and_says_so(letters):
    told = letters.klimb("eval", str(letters.model), "--task", "file:letters.jsonl", "--set", "task.reward=exact")
    assert told.status == 2 and "max_unusable_fraction = 0.1" in told.err
    settings = ("task.reward=exact", "task.max_unusable_fraction=0.3", "sampling.max_new_tokens=4")
    told = letters.klimb("eval", str(letters.model), "--task", "file:letters.jsonl", "--set", *settings)
    assert told.status == 0, told.err
    assert "2 of 8 problems cannot be used" in told.out


def test_a_template_that_takes_no_system_message_ends_a_run_in_one_line_before_it_begins(workplace):
    shutil.copytree(workplace.model, workplace.path / "strict")
    (workplace.path / "strict" / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    run = workplace.klimb("train", "run.toml", "--set", "model.path=strict", "task.system_prompt='Be brief.'")
    assert run.status == 2
    assert "refuses messages of system, user: System role not supported" in run.err
    assert "Traceback" not in run.err and not (workplace.path / "runs").exists()


def test_a_pair_of_the_warm_up_that_is_too_long_is_left_out_by_its_line(workplace):
    rows = [{"prompt": "q", "response": "r" * length} for length in (3, 300, 4)]
    workplace.write("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    settings = ("cloning.path=pairs.jsonl", "training.num_steps=1", "task.max_unusable_fraction=0.4")
    run = workplace.klimb("train", "run.toml", "--set", *settings)
    assert run.status == 0, run.err
    assert "1 of 3 pairs of the warm-up cannot be used: pairs.jsonl:2: " in run.out
    refused = workplace.klimb("train", "run.toml", "--set", *settings[:2], "--folder", "other")
    assert refused.status == 2 and "1 of 3 pairs of the warm-up cannot be used" in refused.err
