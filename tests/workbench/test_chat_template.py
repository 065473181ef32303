"""A run's own chat template: used wherever it asks, kept with its model, and part of what the run is."""

import json

import pytest

from klimb.experience import read_samples
from klimb.policies import load_policy

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if enable_thinking %}<think>{% else %}<answer>{% endif %}"
)

SETTINGS = """
chat_template = "own.jinja"
template_arguments = { enable_thinking = false }
"""


@pytest.fixture
def templated(workplace):
    text = (workplace.path / "run.toml").read_text()
    workplace.write(
        "run.toml", text.replace("[task]", f"{SETTINGS}\n[task]", 1).replace("num_steps = 3", "num_steps = 1")
    )
    workplace.write("own.jinja", TEMPLATE)
    return workplace


def test_a_run_asks_in_its_own_template_and_its_model_keeps_it(templated):
    run = templated.klimb("train", "run.toml")
    assert run.status == 0, run.err
    folder = templated.path / "runs" / "run"
    sample = read_samples(folder / "rollouts" / "step-000001.parquet")[0]
    saved = load_policy(str(folder / "model"), dtype="float32", device="cpu")
    # The tiny model's tokenizer has one token a character, so what was drawn from can be read.
    text = saved.tokenizer.decode(list(sample.prompt_ids))
    assert text == f"<|im_start|>user: {sample.prompt[0]['content']}<|im_end|><answer>"
    assert saved.render(sample.prompt) == sample.prompt_ids
    assert saved.fingerprint == sample.tokenizer
    (templated.path / "own.jinja").unlink()
    evaluated = templated.klimb("eval", "runs/run", "--output", "result.json")
    assert evaluated.status == 0, evaluated.err
    line = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
    result = json.loads((templated.path / "result.json").read_text())
    assert [each["question"] for each in result["problems"]] == [each["question"] for each in line["problems"]]


def test_a_resume_with_another_argument_or_another_template_is_refused(templated):
    run = templated.klimb("train", "run.toml")
    assert run.status == 0, run.err
    longer = ("--set", "training.num_steps=2")
    other = templated.klimb(
        "train", "--resume", "runs/run", *longer, "model.template_arguments={enable_thinking = true}"
    )
    assert other.status == 2
    assert "model.template_arguments.enable_thinking: False in the checkpoint, True now" in other.err
    templated.write("own.jinja", TEMPLATE.replace("<answer>", "<final>"))
    changed = templated.klimb("train", "--resume", "runs/run", *longer)
    assert changed.status == 2 and "policy.tokenizer" in changed.err
    templated.write("elsewhere.jinja", TEMPLATE)
    moved = templated.klimb("train", "--resume", "runs/run", *longer, "model.chat_template=elsewhere.jinja")
    assert moved.status == 0, moved.err


def test_a_template_that_is_not_there_is_refused_by_its_key(templated):
    (templated.path / "own.jinja").unlink()
    run = templated.klimb("train", "run.toml")
    assert run.status == 2
    assert "model.chat_template = 'own.jinja'" in run.err
    assert not (templated.path / "runs").exists()
