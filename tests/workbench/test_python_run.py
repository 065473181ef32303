"""`klimb.train`: the same folder as `klimb train FILE`, with objects where a file has names."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.workbench.words import score, words

import klimb
from klimb.divergences import Divergence
from klimb.errors import ConfigError
from klimb.experience import read_samples
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import ProblemSet
from klimb.training import read_metrics, without_wall_clock
from klimb.training.checkpoints import CheckpointError

SETTINGS: dict[str, Any] = {
    "seed": 1,
    "sampling": {"num_prompts": 2, "num_samples": 4, "max_new_tokens": 6},
    "advantages": {"group_filter": False},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 0},
    "training": {"num_steps": 3},
    "checkpoints": {"every_steps": 1},
    "evaluation": {"num_problems": 2, "num_samples": 4},
    "run": {"loggers": [], "report": False},
}


def with_settings(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**SETTINGS, **{name: {**SETTINGS.get(name, {}), **given} for name, given in sections.items()}}


def train(workplace, settings=SETTINGS, **given):
    return klimb.train(settings, **{"model": workplace.model, "show": False, **given})


def rows_of(folder: Path) -> list[Any]:
    return [without_wall_clock(row) for row in read_metrics(folder / "metrics.jsonl")]


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_a_run_from_python_leaves_what_the_file_leaves(workplace):
    outcome = workplace.klimb("train", "run.toml", "--folder", "from-file")
    assert outcome.status == 0, outcome.err
    run = klimb.train("run.toml", folder="from-python", show=False)
    file, python = Path("from-file"), Path("from-python")
    assert {path.name for path in python.iterdir()} == {path.name for path in file.iterdir()}
    assert json.loads((python / "config.json").read_text()) == json.loads((file / "config.json").read_text()) | {
        "run": json.loads((python / "config.json").read_text())["run"]
    }
    assert rows_of(python) == rows_of(file)
    assert (python / "identity.json").exists() and (python / "provenance.json").exists()
    first, second = weights_of(file), weights_of(python)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert run.folder == python and run.num_steps == 3 and run.metrics["step"] == 3
    assert run.before is not None and run.after is not None and run.after.when == "after"


def test_objects_stand_where_a_file_has_names(workplace):
    seen = []

    class Listener:
        def on_step(self, run, metrics, samples):
            seen.append((run.step, metrics["step"], len(samples)))

    policy = load_policy(str(workplace.model), dtype="float32", device="cpu")
    before = [parameter.clone() for parameter in policy.model.parameters()]
    run = klimb.train(
        SETTINGS,
        task=words(),
        reward=lambda prompt, response, answer, metadata: len(response) / 10,
        model=policy,
        sampler=LocalSampler(policy),
        optimizer=lambda groups, settings: torch.optim.SGD(groups, lr=settings.learning_rate),
        divergence=Divergence("mine", f=lambda r: (1 - r) ** 2 / r, df=lambda r: 1 - 1 / r**2),
        callbacks=[Listener()],
        show=False,
    )
    assert seen == [(step, step, 8) for step in (1, 2, 3)]
    assert run.policy is policy
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.model.parameters(), strict=True))
    drawn = read_samples(run.folder / "rollouts" / "step-000001.parquet")
    assert all(sample.reward == len(sample.response) / 10 for sample in drawn)
    config = json.loads((run.folder / "config.json").read_text())
    assert config["task"]["kind"] == "python:__object__.ProblemSet"
    assert config["sampling"]["sampler"] == "python:__object__.LocalSampler"
    assert config["run"]["callbacks"] == ["python:__object__.Listener"]
    own = json.loads((run.folder / "provenance.json").read_text())["own_parts"]
    assert own.keys() == {
        f"python:__object__.{name}"
        for name in ("ProblemSet", "lambda", "policy", "LocalSampler", "lambda_2", "Divergence", "Listener")
    }


def test_the_commands_read_a_run_of_objects_and_refuse_what_they_cannot_make(workplace):
    run = train(workplace, task=words(), reward=lambda prompt, response, answer, metadata: len(response) / 10)
    folder = str(run.folder)
    for command in (("report", folder), ("report", folder, "--csv", "tables"), ("experience", "ls", folder)):
        outcome = workplace.klimb(*command)
        assert outcome.status == 0, outcome.err
    resumed = workplace.klimb("train", "--resume", folder)
    assert resumed.status == 2
    assert "klimb.train(..., folder=..., resume=True)" in resumed.err and "task.kind" in resumed.err
    assert len(resumed.err.strip().splitlines()) == 1
    evaluated = workplace.klimb("eval", folder)
    assert evaluated.status == 2
    assert "--task" in evaluated.err and "task.kind" in evaluated.err
    assert workplace.klimb("eval", folder, "--task", "arithmetic", "--set", "evaluation.num_problems=2").status == 0


def test_an_evaluation_needs_no_object_that_only_the_training_needed(workplace):
    class Quiet:
        def on_end(self, run, metrics):
            pass

    mine = Divergence("mine", f=lambda r: (1 - r) ** 2 / r, df=lambda r: 1 - 1 / r**2)
    run = train(workplace, divergence=mine, callbacks=[Quiet()])
    outcome = workplace.klimb("eval", str(run.folder))
    assert outcome.status == 0, outcome.err


def test_what_can_be_imported_stands_by_name_and_the_command_goes_on_with_it(workplace):
    workplace.write("own_words.py", OWN_WORDS)
    workplace.write("own_sampler.py", OWN_SAMPLER)
    sys.path.insert(0, str(workplace.path))
    own_words, own_sampler = (importlib.import_module(name) for name in ("own_words", "own_sampler"))
    try:
        run = train(
            workplace,
            with_settings(training={"num_steps": 2}),
            task=own_words.words,
            reward=own_words.length,
            sampler=own_sampler.Mine,
            callbacks=[own_words.Counting],
        )
    finally:
        sys.path.remove(str(workplace.path))
    config = json.loads((run.folder / "config.json").read_text())
    assert config["task"]["kind"] == "python:own_words.words"
    assert config["task"]["reward"] == "python:own_words.length"
    assert config["sampling"]["sampler"] == "python:own_sampler.Mine"
    assert config["run"]["callbacks"] == ["python:own_words.Counting"]
    outcome = workplace.klimb("train", "--resume", str(run.folder), "--set", "training.num_steps=3")
    for name in ("own_words", "own_sampler"):
        sys.modules.pop(name)
    assert outcome.status == 0, outcome.err
    whole = train(workplace, with_settings(training={"num_steps": 3}), task=own_words.words, reward=own_words.length)
    for one, other in zip(rows_of(run.folder), rows_of(whole.folder), strict=True):
        assert one["reward_mean"] == other["reward_mean"] and one.get("loss") == other.get("loss")


OWN_SAMPLER = """
from klimb.samplers import LocalSampler


class Mine(LocalSampler):
    def __init__(self, policy, max_batch):
        super().__init__(policy, max_batch=max_batch)
"""

OWN_WORDS = """
from klimb.tasks import Problem, ProblemSet, Score, chat


def length(prompt, response, answer, metadata):
    return len(response) / 10


def score(problem, response):
    return Score(reward=0.0)


def words(seed):
    problems = tuple(
        Problem(problem_id=word, messages=chat(f"Write {word}."), answer=word) for word in ("one", "two", "six", "ten")
    )
    return ProblemSet(name="words", train=problems[:3], held_out=problems[3:], score=score)


class Counting:
    def on_step(self, run, metrics, samples):
        with open(run.folder / "counted.txt", "a") as file:
            file.write(f"{run.step}\\n")
"""


class StopAt:
    """Ask for a stop after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run, metrics, samples):
        if run.step == self.step:
            run.stop(f"it is step {self.step}")


def test_a_stopped_run_goes_on_from_python_as_if_it_had_not_been_stopped(workplace):
    def reward(prompt, response, answer, metadata):
        return len(response) / 10

    stop_at = StopAt(1)
    run = train(workplace, task=words(), reward=reward, callbacks=[stop_at], folder="runs/stopped")
    assert run.num_steps == 1
    stop_at.step = 100
    again = train(workplace, task=words(), reward=reward, callbacks=[stop_at], folder="runs/stopped", resume=True)
    whole = train(workplace, task=words(), reward=reward, callbacks=[stop_at], folder="runs/whole")
    assert again.num_steps == 3
    assert rows_of(again.folder) == rows_of(whole.folder)
    first, second = weights_of(again.folder), weights_of(whole.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resume_takes_the_settings_of_the_folder_and_refuses_another_object(workplace):
    def shorter(prompt, response, answer, metadata):
        return -float(len(response))

    def factory(weight):
        def reward(prompt, response, answer, metadata):
            return weight * len(response)

        return reward

    train(workplace, with_settings(training={"num_steps": 1}), task=words(), reward=factory(0.1), folder="runs/a")
    for other in (factory(0.2), shorter):
        with pytest.raises((CheckpointError, ConfigError), match="reward"):
            klimb.train(task=words(), reward=other, folder="runs/a", resume=True, show=False)
    other_words = ProblemSet(name="words", train=words().train[:2], held_out=words().held_out, score=score)
    with pytest.raises(CheckpointError, match="problems"):
        klimb.train(task=other_words, reward=factory(0.1), folder="runs/a", resume=True, show=False)
    again = klimb.train(task=words(), reward=factory(0.1), folder="runs/a", resume=True, show=False)
    assert again.num_steps == 1


scale = 0.1


def test_a_resume_refuses_another_value_of_a_global_that_the_reward_reads(workplace, monkeypatch):
    def reward(prompt, response, answer, metadata):
        return scale * len(response)

    train(workplace, with_settings(training={"num_steps": 1}), task=words(), reward=reward, folder="runs/scaled")
    monkeypatch.setattr(sys.modules[__name__], "scale", 0.2)
    with pytest.raises(CheckpointError, match=r"reward\.scale: '0\.1' in the checkpoint, '0\.2' now"):
        klimb.train(task=words(), reward=reward, folder="runs/scaled", resume=True, show=False)
    monkeypatch.setattr(sys.modules[__name__], "scale", 0.1)
    assert klimb.train(task=words(), reward=reward, folder="runs/scaled", resume=True, show=False).num_steps == 1


def test_a_reward_that_raises_in_the_program_costs_that_answer_alone(workplace):
    def reward(prompt, response, answer, metadata):
        if len(response) % 2:
            raise ZeroDivisionError("an odd answer")
        return 1.0

    run = train(workplace, with_settings(scoring={"max_error_fraction": 1.0}), task=words(), reward=reward)
    drawn = [sample for path in sorted((run.folder / "rollouts").glob("*")) for sample in read_samples(path)]
    odd = [sample for sample in drawn if len(sample.response) % 2]
    assert odd and all(sample.reward is None for sample in odd)
    assert {sample.reward_reason for sample in odd} == {"ZeroDivisionError: an odd answer"}
    assert {sample.reward for sample in drawn if not len(sample.response) % 2} == {1.0}


def test_an_object_may_stand_anywhere_in_the_tables(workplace):
    calls = []

    def centred(rewards, group_ids):
        calls.append(len(rewards))
        return rewards - rewards.mean()

    settings = with_settings(advantages={"kind": centred}, training={"num_steps": 1}, task={"reward": lambda **_: 1.0})
    run = train(workplace, settings, task=words())
    assert calls == [8]
    config = json.loads((run.folder / "config.json").read_text())
    assert config["advantages"]["kind"] == "python:__object__.centred"
    assert config["task"]["reward"] == "python:__object__.lambda"


def test_a_restart_moves_the_run_aside_and_begins_anew(workplace):
    settings = with_settings(training={"num_steps": 1})
    first = train(workplace, settings, task="arithmetic", folder="runs/a")
    with pytest.raises(ConfigError, match="not empty"):
        train(workplace, settings, task="arithmetic", folder="runs/a")
    second = train(workplace, settings, task="arithmetic", folder="runs/a", restart=True)
    assert first.folder == second.folder
    assert rows_of(Path("runs/a-1")) == rows_of(Path("runs/a"))


def test_a_reward_of_lists_that_the_program_holds_sees_all_responses_to_a_problem(workplace):
    def size_of_group(prompts, responses, answers, metadatas):
        return [float(len(responses))] * len(responses)

    def in_trls_form(completions, **columns):
        return [float(len(completions))] * len(completions)

    once, size = {"num_steps": 1}, SETTINGS["sampling"]["num_samples"]
    for reward in (size_of_group, in_trls_form):
        run = train(workplace, with_settings(training=once), task=words(), reward=reward)
        assert run.metrics["reward_mean"] == size
    rewards = {"both": {"reward": size_of_group}, "half": {"reward": in_trls_form, "weight": 0.5}}
    run = train(workplace, with_settings(training=once, rewards=rewards), task=words())
    assert (run.metrics["reward_mean"], run.metrics["rewards/half/mean"]) == (1.5 * size, size)


def test_a_run_goes_on_from_python_in_another_directory(workplace, monkeypatch, tmp_path_factory):
    (workplace.path / "models").mkdir()
    shutil.copytree(workplace.model, workplace.path / "models" / "own")
    stop_at = StopAt(1)
    run = train(workplace, task=words(), model="models/own", callbacks=[stop_at], folder="runs/moved")
    stop_at.step, folder = 100, run.folder.absolute()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = klimb.train(task=words(), callbacks=[stop_at], folder=folder, resume=True, show=False)
    assert (run.num_steps, again.num_steps, again.folder) == (1, 3, folder)


def test_what_is_printed_says_how_a_run_of_objects_goes_on(workplace):
    import os
    import signal

    from klimb.errors import Interrupted

    class Ending:
        def on_step(self, run, metrics, samples):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(workplace, task=words(), callbacks=[Ending()], folder="runs/a", show=True)
    assert "klimb.train(..., folder='runs/a', resume=True)" in workplace.capture.readouterr().out


REFUSED = {
    "a resume without a folder": ({"resume": True}, "resume = True needs the folder"),
    "a restart without a folder": ({"restart": True}, "restart = True needs the folder"),
    "both": ({"resume": True, "restart": True, "folder": "a"}, "say one"),
    "a resume of nothing": ({"resume": True, "folder": "nothing"}, "nothing holds no run"),
    "an unknown task": ({"task": "arithmetics"}, "did you mean 'arithmetic'"),
    "another signature": ({"task": words(), "reward": lambda prompt: 1.0}, "must take the arguments prompt, response"),
    "a task that takes no seed": ({"task": words}, "is called with seed"),
    "no callback": ({"callbacks": [3.5]}, "run.callbacks"),
    "an object without methods": ({"callbacks": [object()]}, "object is no callback"),
    "no task": ({"task": lambda seed: 3}, "expected a klimb.tasks.ProblemSet"),
    "problems without a score": (
        {"task": ProblemSet(name="bare", train=words().train, held_out=())},
        "the task has no score of its own",
    ),
    "no optimizer": ({"optimizer": lambda groups, settings: 3}, "expected a function of .parameter groups"),
    "a path that is not there": ({"source": "nowhere"}, "log.path = 'nowhere'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_line_and_leaves_nothing(workplace, case: str):
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        train(workplace, **given)
    if case != "no optimizer":  # it is made when the first step begins
        assert not Path("runs").exists()


def test_a_policy_is_loaded_already(workplace):
    policy = load_policy(str(workplace.model), dtype="float32", device="cpu")
    with pytest.raises(ConfigError, match=r"model\.lora says how to load a model"):
        train(workplace, with_settings(model={"lora": {"rank": 2}}), model=policy)
