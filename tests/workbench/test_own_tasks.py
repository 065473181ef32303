"""A task from the user's own file: it is trained on as klimb's are, from a run file, `--set`, `eval` and in studies."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from tests.workbench.study.tiny_study import tiny_plan

from klimb.errors import ConfigError
from klimb.experience import read_samples
from klimb.own_parts import source_hash
from klimb.workbench.config import build_config
from klimb.workbench.session import make_loop_settings, make_task
from klimb.workbench.study.compare import check_can_begin
from klimb.workbench.study.worker import start_key

TASK = '''
"""Numbers to repeat."""
import os, random, time

from klimb.tasks import Problem, ProblemSet, Score, chat

def score(problem, response):
    """Share of digits; says which process this is."""
    if os.environ.get("SLOW") and len(response.text) % 2:
        time.sleep(60)
    reward = sum(character.isdigit() for character in response.text) / max(1, len(response.text))
    return Score(reward=reward, parts={"digits": reward}, reason=f"process {os.getpid()}")

def numbers(seed, num=4, words=("say",)):
    drawn = random.Random(seed).sample(range(100), num)
    problems = [Problem(problem_id=f"n{n}", messages=chat(f"{words[0]} {n}"), answer=str(n)) for n in drawn]
    return ProblemSet(name="numbers", train=tuple(problems[2:]), held_out=tuple(problems[:2]), score=score)

def of_another_kind(seed):
    return ["1", "2"]

def that_fails(seed):
    return {}["absent"]

def the_same_twice(seed):
    task = numbers(seed)
    return ProblemSet(name="twice", train=task.train, held_out=task.train, score=score)

constant = 3
'''

OWN = "python:my_tasks.numbers"


@pytest.fixture(autouse=True)
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_tasks.py").write_text(TASK, encoding="utf-8")
    importlib.invalidate_caches()
    sys.modules.pop("my_tasks", None)  # an example of that name may have been imported before
    yield tmp_path / "my_tasks.py"
    sys.modules.pop("my_tasks", None)


def task_of(**table: object):
    return make_task(build_config({"task": table}, source="run.toml"))


def samples_of(run: Path):
    return [sample for path in sorted((run / "rollouts").iterdir()) for sample in read_samples(path)]


def test_a_run_trains_on_a_task_of_ones_own_and_scores_it_in_a_process_apart(workplace):
    ended = workplace.klimb("train", "run.toml", "--set", f"task={OWN}", "task.parameters.words=['repeat']")
    assert ended.status == 0, ended.err
    run = workplace.path / "runs" / "run"
    samples = samples_of(run)
    assert len(samples) == 3 * 2 * 4
    assert all(sample.prompt[-1]["content"].startswith("repeat ") for sample in samples)
    processes = {sample.reward_reason for sample in samples}
    assert len(processes) == 1 and f"process {os.getpid()}" not in processes
    assert json.loads((run / "config.json").read_text())["task"] == {
        "kind": OWN,
        "parameters": {"words": ["repeat"]},
        "seed": 0,
        "reward": "task",
        "max_unusable_fraction": 0.1,
    }


def test_a_score_function_of_ones_own_that_hangs_costs_its_samples_alone(workplace, monkeypatch):
    monkeypatch.setenv("SLOW", "yes")
    settings = ("scoring.timeout_seconds=0.5", "scoring.max_error_fraction=1.0", "evaluation.at_ends=false")
    ended = workplace.klimb("train", "run.toml", "--set", f"task={OWN}", *settings, "training.num_steps=1")
    assert ended.status == 0, ended.err
    late = [sample for sample in samples_of(workplace.path / "runs" / "run") if sample.reward is None]
    assert late and all("timed out" in sample.reward_reason for sample in late)


def test_a_resume_refuses_a_task_of_ones_own_that_was_edited(workplace):
    ended = workplace.klimb("train", "run.toml", "--folder", "own", "--set", f"task={OWN}", "training.num_steps=1")
    assert ended.status == 0, ended.err
    sys.modules.pop("my_tasks", None)
    workplace.write("my_tasks.py", TASK.replace("isdigit", "isalpha"))
    resumed = workplace.klimb("train", "--resume", "own", "--set", "training.num_steps=2")
    assert resumed.status == 2 and "own_parts" in resumed.err and OWN in resumed.err
    sys.modules.pop("my_tasks", None)
    workplace.write("my_tasks.py", TASK)
    assert workplace.klimb("train", "--resume", "own", "--set", "training.num_steps=2").status == 0


def test_eval_takes_a_task_of_ones_own_by_name(workplace):
    small = ("evaluation.num_samples=2", "sampling.max_new_tokens=4", "scoring.max_error_fraction=1.0")
    ended = workplace.klimb("eval", str(workplace.model), "--task", OWN, "--set", *small)
    assert ended.status == 0, ended.err
    assert "2 problems, 4 answers scored" in ended.out


def test_the_function_gets_the_seed_and_the_parameters():
    assert task_of(kind=OWN, parameters={"num": 7}, seed=3) == task_of(kind=OWN, parameters={"num": 7}, seed=3)
    assert task_of(kind=OWN, seed=3).train != task_of(kind=OWN).train
    assert len(task_of(kind=OWN, parameters={"num": 7}).train) == 5


def test_a_task_of_ones_own_takes_another_reward_and_the_shapings():
    config = {"task": {"kind": OWN, "reward": "python:my_rewards.short"}, "scoring": {"format": {"pattern": "a"}}}
    task = make_task(build_config(config, source="run.toml"))
    assert task.name == "numbers with python:my_rewards.short" and not task.trusted


def test_its_source_is_in_the_settings_of_the_run():
    config = build_config({"task": {"kind": OWN}}, source="run.toml")
    assert make_loop_settings(config).own_parts == {OWN: source_hash(OWN)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "python:no_such_file.task"}, "task.kind = 'python:no_such_file.task': there is no module"),
        ({"kind": "python:my_tasks.number"}, "the module my_tasks has no 'number'"),
        ({"kind": "python:my_tasks.constant"}, "expected a function that returns a klimb.tasks.ProblemSet, got int"),
        ({"kind": "python:my_tasks.of_another_kind"}, "the function returned list, expected a klimb.tasks.ProblemSet"),
        ({"kind": "python:my_tasks.that_fails"}, "the function raised KeyError: 'absent' (my_tasks.py, line "),
        ({"kind": "python:my_tasks.the_same_twice"}, "2 problems have the problem_id 'n"),
        ({"kind": OWN, "parameters": {"nums": 3}}, "is called with seed, nums (task.seed and task.parameters) by name"),
        ({"kind": OWN, "parameters": {"seed": 3}}, "task.parameters.seed: write it as task.seed"),
    ],
)
def test_an_own_task_that_cannot_be_is_told(table, message):
    with pytest.raises(ValueError) as error:
        task_of(**table)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "python:my_tasks"}, "task.kind = 'python:my_tasks': expected one of 'arithmetic', "),
        ({"kind": OWN, "digits": 2}, "task.digits = 2: unknown key; known keys here: kind, parameters, seed, reward"),
        ({"kind": OWN, "parameter": {}}, "unknown key; did you mean task.parameters?"),
        ({"kind": OWN, "parameters": {"num": {"a": 1}}}, "task.parameters.num = {…}: expected true, false, a number"),
    ],
)
def test_a_wrong_table_of_an_own_task_is_told_by_key(table, message):
    with pytest.raises(ConfigError) as error:
        build_config({"task": table}, source="run.toml")
    assert message in str(error.value)


def test_a_study_takes_a_task_of_ones_own_and_an_edit_is_measured_apart(tmp_path, own_tasks):
    change = ('kind = "arithmetic"', f'kind = "{OWN}"\nparameters = {{num = 6}}')
    plan = tiny_plan(tmp_path, tmp_path, change=change)
    check_can_begin(plan.cells)
    assert len(make_task(plan.cells[0].config).train) == 4
    before = {start_key(cell.config) for cell in plan.cells}
    own_tasks.write_text(TASK + "# another\n", encoding="utf-8")
    after = {start_key(cell.config) for cell in plan.cells}
    assert len(before) == len(after) == 1 and before != after


def test_a_study_with_an_own_task_that_cannot_be_does_not_begin(tmp_path):
    plan = tiny_plan(tmp_path, tmp_path, change=('"arithmetic"', '"python:my_tasks.constant"'))
    with pytest.raises(ConfigError, match=r"sums/grpo: task\.kind = 'python:my_tasks\.constant': expected a function"):
        check_can_begin(plan.cells)
