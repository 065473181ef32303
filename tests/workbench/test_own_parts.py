"""Parts from the user's own file, in a run file, and their source in the settings of the run."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from klimb.errors import ConfigError
from klimb.experience import compute_advantages
from klimb.losses import Inputs, Objective
from klimb.own_parts import source_hash
from klimb.training import Optimizer, OptimizerSettings, read_metrics
from klimb.workbench.config import build_config
from klimb.workbench.session import make_loop_settings, make_objective

PARTS = """
import torch

from klimb.losses import Clipped
from klimb.samplers import LocalSampler

def huber_clip(w, is_good, log_pi=None):
    never = is_good & False
    bounded = w.clamp(max=2.0)
    return Clipped(bounded, ~never, bounded / w, never, w > 2, never)

class Half:
    def __call__(self, w, is_good, log_pi=None):
        return huber_clip(w / 2, is_good, log_pi)

def doubled(rewards, group_ids):
    return 2 * rewards

def plain_sgd(groups, settings):
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.beta1)

def every_third_step(standing):
    return standing.steps_since_refresh >= 3

class Counted(LocalSampler):
    num_calls = 0

    def stream(self, *arguments, **keywords):
        Counted.num_calls += 1
        return super().stream(*arguments, **keywords)

def counted(policy, max_batch):
    return Counted(policy, max_batch=max_batch)

class Steep:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, w, is_good, log_pi=None):
        return huber_clip(w, is_good, log_pi)

def weight_alone(w, is_good, log_pi=None):
    return w.clamp(max=2.0)

def first_alone(rewards, group_ids):
    return rewards[:1]

def as_list(rewards, group_ids):
    return rewards.tolist()

number = 3
"""


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_parts.py").write_text(PARTS, encoding="utf-8")
    importlib.invalidate_caches()
    sys.modules.pop("my_parts", None)
    yield tmp_path / "my_parts.py"
    sys.modules.pop("my_parts", None)


def run_with(**objective: str):
    return build_config({"objective": objective}, source="run.toml")


@pytest.mark.parametrize("name", ["huber_clip", "Half"])
def test_a_clip_of_ones_own_is_the_objectives(name):
    objective = make_objective(run_with(clip=f"python:my_parts.{name}"))
    assert isinstance(objective, Objective) and not isinstance(objective.clip, str)
    factor = 1.0 if name == "huber_clip" else 0.5
    used = objective.clip(torch.tensor([[1.0, 8.0]]), torch.tensor([[True, True]]))
    assert used.w.tolist() == [[factor, 2.0]]


def test_advantages_of_ones_own_are_computed_by_their_function():
    config = build_config({"advantages": {"kind": "python:my_parts.doubled"}}, source="run.toml")
    kind = make_loop_settings(config).advantages.kind
    assert compute_advantages(torch.tensor([1.0, 3.0]), ["a", "b"], kind=kind).tolist() == [2.0, 6.0]


@pytest.mark.parametrize(("name", "got"), [("first_alone", r"one of shape \(1,\)"), ("as_list", r"\[1.0, 3.0\]")])
def test_advantages_of_ones_own_are_one_number_a_reward(name: str, got: str):
    kind = f"python:my_parts.{name}"
    with pytest.raises(ConfigError, match=f"advantages.kind = '{kind}': expected a tensor of 2 numbers, .* got {got}"):
        compute_advantages(torch.tensor([1.0, 3.0]), ["a", "b"], kind=kind)


@pytest.mark.parametrize("estimator", ["reinforce", "differentiable"])
def test_a_clip_of_ones_own_that_returns_no_clipped_weights_is_told(estimator: str):
    objective = make_objective(run_with(clip="python:my_parts.weight_alone", estimator=estimator))
    log_pi = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    with pytest.raises(ConfigError, match=r"weight_alone .* must return a klimb\.losses\.Clipped, got Tensor"):
        objective(
            Inputs(
                log_pi=log_pi,
                log_mu=log_pi.detach(),
                log_ref=log_pi.detach(),
                advantages=torch.ones(1),
                mask=torch.ones(1, 2, dtype=torch.bool),
            )
        )


def test_the_source_of_own_parts_is_in_the_settings_and_an_edit_changes_it(parts):
    config = run_with(clip="python:my_parts.huber_clip")
    before = make_loop_settings(config).own_parts
    assert before == {"python:my_parts.huber_clip": source_hash("python:my_parts.huber_clip")}
    parts.write_text(PARTS + "# another\n", encoding="utf-8")
    assert make_loop_settings(config).own_parts != before


def test_the_source_of_a_part_is_that_of_the_users_files_which_it_imports_too(parts, tmp_path: Path):
    package = tmp_path / "my_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "reward.py").write_text("import json\nfrom .deep import grade\nimport my_parts\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "grade.py").write_text("def mark():\n    from my_package import late\n")
    (package / "late.py").write_text("import my_package.reward\n")
    (package / "apart.py").write_text("")

    def digits() -> str:
        return source_hash("python:my_package.reward.mark")

    seen = [digits()]
    for file in (package / "reward.py", package / "deep" / "grade.py", package / "late.py", parts):
        file.write_text(file.read_text() + "# edited\n")
        seen.append(digits())
    assert len(set(seen)) == 5
    (package / "apart.py").write_text("# edited")
    assert digits() == seen[-1] and digits() != source_hash("python:my_package.apart.mark")


def test_a_run_without_own_parts_has_none_in_its_settings():
    assert make_loop_settings(run_with()).own_parts == {}


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("python:no_such_file.clip", "objective.clip = 'python:no_such_file.clip': there is no module 'no_such_file'"),
        ("python:my_parts.hubert", "the module my_parts has no 'hubert'"),
        ("python:my_parts.number", "expected a function of .* got int"),
        ("python:my_parts.Steep", "Steep': the class cannot be made without arguments: .* 'slope'"),
    ],
)
def test_an_own_clip_that_cannot_be_is_told(clip, message):
    with pytest.raises(ConfigError, match=message):
        make_objective(run_with(clip=clip))


def test_an_own_clip_is_written_with_its_module():
    with pytest.raises(ConfigError, match=r"objective.clip.kind = 'python:': expected one of .*'python:module.name'"):
        run_with(clip="python:")


def test_soft_values_without_a_temperature_are_refused():
    with pytest.raises(ConfigError, match=r"takes objective\.beta as its temperature, and it is 0"):
        build_config({"objective": {"beta": 0.0}, "advantages": {"kind": "group-soft-value"}}, source="run.toml")


def test_a_resume_refuses_a_part_of_ones_own_that_was_edited(workplace):
    workplace.write("my_parts.py", PARTS)
    own = ("objective.clip=python:my_parts.huber_clip", "advantages.kind=python:my_parts.doubled")
    ended = workplace.klimb("train", "run.toml", "--folder", "own", "--set", *own, "training.num_steps=1")
    assert ended.status == 0, ended.err
    sys.modules.pop("my_parts", None)
    workplace.write("my_parts.py", PARTS.replace("max=2.0", "max=3.0"))
    resumed = workplace.klimb("train", "--resume", "own", "--set", "training.num_steps=2")
    assert resumed.status == 2 and "own_parts" in resumed.err and "huber_clip" in resumed.err
    sys.modules.pop("my_parts", None)
    workplace.write("my_parts.py", PARTS)
    assert workplace.klimb("train", "--resume", "own", "--set", "training.num_steps=2").status == 0


OWN_RUN = (
    "optimizer.kind=python:my_parts.plain_sgd",
    "reference=python:my_parts.every_third_step",
    "sampling.sampler=python:my_parts.counted",
    "training.num_minibatches=2",
)


def test_a_run_with_optimizer_reference_rule_and_sampler_of_ones_own_resumes_bit_for_bit(workplace):
    workplace.write("my_parts.py", PARTS)
    straight = workplace.klimb("train", "run.toml", "--folder", "straight", "--set", *OWN_RUN, "training.num_steps=4")
    assert straight.status == 0, straight.err
    assert "drawn by python:my_parts.counted" in " ".join(straight.out.split())
    assert sys.modules["my_parts"].Counted.num_calls >= 4
    rows = list(read_metrics(workplace.path / "straight" / "metrics.jsonl"))
    # Two optimiser steps a collection: a rule that waits for three acts before every second one.
    assert [row["num_reference_refreshes"] for row in rows] == [0, 0, 1, 1]
    assert [row["reference_age"] for row in rows] == [2, 4, 2, 4]
    begun = workplace.klimb("train", "run.toml", "--folder", "torn", "--set", *OWN_RUN, "training.num_steps=2")
    assert begun.status == 0, begun.err
    assert workplace.klimb("train", "--resume", "torn", "--set", "training.num_steps=4").status == 0
    whole, torn = (
        load_file(workplace.path / folder / "model" / "model.safetensors") for folder in ("straight", "torn")
    )
    assert all(torch.equal(whole[name], torn[name]) for name in whole)


def test_sgd_of_ones_own_takes_the_steps_of_sgd_with_the_warm_up_of_the_settings():
    weight = torch.nn.Parameter(torch.ones(2))
    settings = OptimizerSettings(
        kind="python:my_parts.plain_sgd", learning_rate=0.5, beta1=0.0, weight_decay=0.0, warmup_steps=2
    )
    optimizer = Optimizer({"weight": weight}, settings)
    for _ in range(2):
        weight.grad = torch.tensor([1.0, -2.0])
        with optimizer.gradient_point():
            optimizer.step()
    # The first step has half of the learning rate: 1 - 0.25 - 0.5 and 1 + 0.5 + 1.
    assert weight.tolist() == [0.25, 2.5]


@pytest.mark.parametrize(
    ("key", "part", "message"),
    [
        ("optimizer.kind", "number", "expected a function of .* returns a torch.optim.Optimizer, got int"),
        ("reference.kind", "number", "expected a function of a klimb.training.ReferenceStanding .* got int"),
        ("sampling.sampler", "number", "returns a klimb.samplers.Sampler, got int"),
        ("sampling.sampler", "nobody", "the module my_parts has no 'nobody'"),
    ],
)
def test_another_own_part_that_cannot_be_is_told(key, part, message, workplace):
    workplace.write("my_parts.py", PARTS)
    sys.modules.pop("my_parts", None)
    ended = workplace.klimb("train", "run.toml", "--set", f"{key}=python:my_parts.{part}")
    assert ended.status == 2
    assert re.search(f"{key} = 'python:my_parts.{part}': .*({message})", " ".join(ended.err.split()))
