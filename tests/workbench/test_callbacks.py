"""`run.callbacks` in a run file, and a source of samples of one's own."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from tests.workbench.logged import drawn

import klimb
from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.experience.samples_in_memory import store_in_memory
from klimb.policies import load_policy
from klimb.training import read_metrics, without_wall_clock

CALLBACKS = """
class StopAtTwo:
    def on_step(self, run, metrics, samples):
        if run.step == 2:
            run.stop("two are enough")


class Raising:
    def on_step(self, run, metrics, samples):
        if run.step == 2:
            raise ZeroDivisionError("of the callback")


class Needy:
    def __init__(self, file):
        pass


def plain(run):
    pass
"""

SOURCE = """
import json
from klimb.experience import Sample, SamplingSettings


def samples(seed):
    made = []
    for number in range(4):
        for index in range(2):
            made.append(
                Sample(
                    sample_id=f"s{number}-{index}",
                    group_id=f"g{number}",
                    prompt=({"role": "user", "content": f"say {number}"},),
                    prompt_ids=(),
                    response="ab"[index] * 3,
                    response_ids=(),
                    finish_reason="stop",
                    reward=float(index),
                    sampling=SamplingSettings(max_new_tokens=5),
                )
            )
    return made


def for_policy(seed, policy):
    assert policy.num_vocab > 0
    return iter(samples(seed))


def nothing(seed):
    return []


def texts(seed):
    return ["a", "b"]
"""

LOG = ("sources.log=1.0", "objective.recipe=bc", "sampling.num_prompts=2", "evaluation.at_ends=false")


@pytest.fixture
def own(workplace, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    workplace.write("my_callbacks.py", CALLBACKS)
    workplace.write("my_source.py", SOURCE)
    yield workplace
    for name in ("my_callbacks", "my_source"):
        sys.modules.pop(name, None)


def test_a_callback_of_a_run_file_ends_the_run_with_its_reason_and_the_run_is_finished(own):
    outcome = own.klimb("train", "run.toml", "--set", "run.callbacks=['python:my_callbacks.StopAtTwo']")
    assert outcome.status == 0, outcome.err
    assert "stopped after step 2 of 3: two are enough" in outcome.out
    assert json.loads(Path("runs/run/summary.json").read_text())["num_steps"] == 2
    assert list(Path("runs/run/checkpoints").glob("*2"))


def test_another_callback_is_another_run_and_loggers_are_not(own):
    one = "run.callbacks=['python:my_callbacks.StopAtTwo']"
    assert own.klimb("train", "run.toml", "--set", one).status == 0
    own.write("my_callbacks.py", CALLBACKS.replace("== 2", "== 1"))
    refused = own.klimb("train", "--resume", "runs/run")
    assert refused.status == 2 and "own_parts.python:my_callbacks.StopAtTwo" in refused.err
    refused = own.klimb("train", "--resume", "runs/run", "--set", "run.callbacks=[]")
    assert refused.status == 2 and "own_parts.python:my_callbacks.StopAtTwo" in refused.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_callbacks.Needy", "the class cannot be made without arguments"),
        ("my_callbacks.plain", "plain is no callback"),
        ("my_callbacks.absent", "has no 'absent'"),
        ("no_such_file.Callback", "run.callbacks = 'python:no_such_file.Callback'"),
    ],
)
def test_a_callback_that_cannot_be_is_refused_before_anything_is_made(own, name: str, message: str):
    outcome = own.klimb("train", "run.toml", "--set", f"run.callbacks=['python:{name}']")
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["samples", "for_policy"])
def test_a_source_of_ones_own_is_trained_on_as_the_same_samples_in_a_store_are(own, name: str):
    mine = own.klimb("train", "run.toml", "--folder", "mine", "--set", *LOG, f"log.path=python:my_source.{name}")
    assert mine.status == 0, mine.err
    from klimb.experience.store import Store

    sys.path.insert(0, str(own.path))
    Store(own.path / "stored").append(importlib.import_module("my_source").samples(1))
    stored = own.klimb("train", "run.toml", "--folder", "theirs", "--set", *LOG, "log.path=stored")
    assert stored.status == 0, stored.err
    first, second = (
        [without_wall_clock(row) for row in read_metrics(Path(folder, "metrics.jsonl"))]
        for folder in ("mine", "theirs")
    )
    assert first == second
    named = [json.loads(Path(folder, "identity.json").read_text())["identity"] for folder in ("mine", "theirs")]
    assert named[0]["logs.log"] == named[1]["logs.log"], "the content is in the identity"


def test_a_source_with_a_condition_gives_what_fits_it(own):
    where = 'log.where="reward > 0.5"'
    outcome = own.klimb("train", "run.toml", "--set", *LOG, "log.path=python:my_source.samples", where)
    assert outcome.status == 0, outcome.err
    rows = read_metrics(Path("runs/run/metrics.jsonl"))
    assert {row["log/reward_mean"] for row in rows} == {1.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "log.path = 'python:my_source.nothing': expected klimb.experience.Samples, one at least"),
        ("texts", "log.path = 'python:my_source.texts': expected klimb.experience.Samples, one at least"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_source_without_samples_is_refused(own, name: str, message: str):
    outcome = own.klimb("train", "run.toml", "--set", *LOG, f"log.path=python:my_source.{name}")
    assert (outcome.status, message in outcome.err) == (2, True), outcome.err
    assert not Path("runs").exists()


def test_samples_are_handed_over_in_python_and_another_content_is_another_run(own):
    policy = load_policy(str(own.model), dtype="float32", device="cpu")
    samples = drawn(policy)
    settings = {
        "objective": {"recipe": "topr"},
        "sampling": {"num_prompts": 2, "max_new_tokens": 6},
        "training": {"num_steps": 2},
        "evaluation": {"at_ends": False},
        "run": {"loggers": [], "report": False},
    }
    run = klimb.train(settings, model=own.model, source=samples, folder="run", show=False)
    assert run.num_steps == 2
    assert run.metrics["log/reward_mean"] is not None
    settings["training"] = {"num_steps": 3}
    settings["optimizer"] = {"warmup_steps": 1}
    with pytest.raises(ValueError, match=r"logs\.log"):
        klimb.train(settings, model=own.model, source=samples[:12], folder="run", resume=True, show=False)
    again = klimb.train(
        settings, model=own.model, source=store_in_memory(samples), folder="run", resume=True, show=False
    )
    assert again.num_steps == 3


def test_two_samples_of_one_id_are_refused():
    one = Sample(
        sample_id="a",
        group_id="g",
        prompt=({"role": "user", "content": "say"},),
        prompt_ids=(),
        response="x",
        response_ids=(),
        finish_reason="stop",
    )
    from dataclasses import replace

    with pytest.raises(ValueError, match="sample_id of another that differs, such as 'a'"):
        store_in_memory([one, replace(one, response="y")])
    with pytest.raises(ValueError, match="there are no samples"):
        store_in_memory([])


def test_the_number_of_completions_is_refused_below_zero():
    from klimb.workbench.config import build_config

    with pytest.raises(ConfigError, match=r"run\.log_completions"):
        build_config({"run": {"log_completions": -1}}, source="")
