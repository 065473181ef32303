import subprocess
import sys

import pytest

from klimb.tasks import arithmetic, make_task, reasoning_gym


def test_a_task_by_name_is_the_task_of_the_function():
    assert make_task("arithmetic", operators="*", seed=3) == arithmetic(operators="*", seed=3)


def test_what_follows_the_colon_is_the_first_parameter(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    task = make_task(f"file:{tmp_path / 'data.jsonl'}", held_out_fraction=0, reward="integer")
    assert task == make_task("file", path=tmp_path / "data.jsonl", held_out_fraction=0, reward="integer")
    assert [problem.answer for problem in task.train] == ["2"]


def test_a_task_of_ones_own_is_made_by_its_name():
    assert make_task(f"python:{__name__}.small", parameters={"digits": 2}, seed=3) == arithmetic(digits=2, seed=3)


def small(seed, digits):
    return arithmetic(seed=seed, digits=digits)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("arithmetics", {}, "got 'arithmetics'; did you mean 'arithmetic'?"),
        ("arithmetic", {"digit": 2}, "got 'digit'; did you mean 'digits'?"),
        (
            "arithmetic:x",
            {},
            "'arithmetic' takes nothing behind a colon; use arithmetic, reasoning-gym:DATASET, file:PATH",
        ),
        (
            "python",
            {},
            "tasks are arithmetic, reasoning-gym, file, calculator, guessing, sql, environment, "
            "python:module.name; got 'python'",
        ),
        ("file", {}, "missing a required argument: 'path'; write it as file:PATH"),
        ("reasoning-gym", {}, "missing a required argument: 'dataset'; write it as reasoning-gym:DATASET"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest_known_one(kind, parameters, message):
    with pytest.raises(ValueError) as error:
        make_task(kind, **parameters)
    assert message in str(error.value)


def test_tasks_import_no_heavy_package():
    heavy = {"torch", "transformers", "sympy", "math_verify", "reasoning_gym", "pyarrow", "numpy"}
    program = f"import sys, klimb.tasks; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "klimb.tasks.gym_problems", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install 'klimb\[reasoning-gym\]'.*C compiler.*pycosat"):
        reasoning_gym("chain_sum")
