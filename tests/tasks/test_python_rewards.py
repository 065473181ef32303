import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from klimb.tasks import PythonReward, Response, Scorer, ScoringError, arithmetic, from_file, with_reward
from klimb.tasks.python_rewards import as_score

LOCATION = "python:mine.reward"
RESPONSE = Response(text="an answer", num_tokens=2, finish_reason="stop")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "returned", [1, 1.0, Fraction(1), np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0), torch.tensor(1)]
)
def test_a_number_is_the_reward_and_says_nothing_of_correctness(returned):
    score = as_score(returned, LOCATION)
    assert (score.reward, score.correct, score.parts) == (1.0, None, {"reward": 1.0})


@pytest.mark.parametrize("returned", [True, False])
def test_a_bool_is_reward_and_correctness(returned):
    score = as_score(returned, LOCATION)
    assert (score.reward, score.correct, score.parts) == (float(returned), returned, {"correct": float(returned)})


def test_a_dict_of_parts_sums_to_the_reward():
    score = as_score({"style": 0.25, "length": -0.5}, LOCATION)
    assert (score.reward, score.correct) == (-0.25, None)
    assert score.parts == {"style": 0.25, "length": -0.5}


@pytest.mark.parametrize(("part", "correct"), [(True, True), (1.0, True), (0.5, True), (False, False), (-1, False)])
def test_the_part_named_correct_counts_and_decides(part, correct):
    score = as_score({"correct": part, "style": 0.25}, LOCATION)
    assert (score.reward, score.correct) == (part + 0.25, correct)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "1",
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        [1.0],
        {},
        {"a": math.nan},
        {"a": "1"},
        {1: 1.0},
        1j,
        object(),
        torch.tensor(math.nan),
    ],
)
def test_what_is_no_finite_number_gives_no_reward_and_names_the_function(returned):
    score = as_score(returned, LOCATION)
    assert (score.reward, score.correct) == (None, None)
    assert score.reason.startswith("python:mine.reward returned ")
    assert "expected" in score.reason


def test_the_function_gets_prompt_response_answer_and_metadata(folder):
    (folder / "seen_reward.py").write_text(
        "def reward(*, metadata, answer, response, prompt):\n"
        "    seen = (prompt, response, answer, metadata)\n"
        "    return seen == ('Where? Say it.', 'an answer', '', {'hint': 'there'})\n"
    )
    (folder / "d.jsonl").write_text('{"question": "Where?", "hint": "there"}\n')
    task = from_file(
        "d.jsonl",
        answer="",
        reward="python:seen_reward.reward",
        template="{question} Say it.",
        system_prompt="not the prompt",
        held_out_fraction=0,
    )
    with Scorer(task) as scorer:
        (score,) = scorer.score_many(task.train, [RESPONSE])
    assert score.correct is True


def test_the_reward_module_is_not_imported_by_the_training_process(folder):
    (folder / "fatal_reward.py").write_text("import os\nos._exit(3)\n")
    task = with_reward(arithmetic(), "python:fatal_reward.reward")
    with pytest.raises(ScoringError, match=r"ended \(exit code 3\)"), Scorer(task):
        pass


def test_a_module_in_the_working_directory_hides_one_of_the_same_name_but_not_from_klimb(folder):
    (folder / "json.py").write_text("def reward(prompt, response, answer, metadata):\n    return True\n")
    (folder / "own_reward.py").write_text(
        "def reward(prompt, response, answer, metadata):\n    return {'correct': 1.0}\n"
    )
    task = with_reward(arithmetic(), "python:own_reward.reward")
    with Scorer(task) as scorer:
        assert scorer.score_many(task.train[:1], [RESPONSE])[0].reward == 1.0


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("python:capital_rewards.reward", "no module 'capital_rewards' in .*; did you mean 'capital_reward'"),
        ("python:capital_reward.rewrad", "module 'capital_reward' has no function 'rewrad'; did you mean 'reward'"),
        ("python:capital_reward.NUMBER", "has no function 'NUMBER'"),
        ("python:capital_reward.short", r"must take the arguments prompt, response, answer, metadata .* \(response\)"),
        ("python:broken_reward.reward", "(?s)cannot be loaded: ZeroDivisionError: .*broken_reward.py.*1 / 0"),
        ("python:needy_reward.reward", "(?s)cannot be loaded: ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_a_reward_that_cannot_be_loaded_stops_before_training(folder, location, message):
    (folder / "capital_reward.py").write_text(
        "NUMBER = 1\n"
        "def reward(prompt, response, answer, metadata):\n    return 1.0\n"
        "def short(response):\n    return 1.0\n"
    )
    (folder / "broken_reward.py").write_text("1 / 0\n")
    (folder / "needy_reward.py").write_text("import not_there\n")
    with pytest.raises(ScoringError, match=message), Scorer(with_reward(arithmetic(), location)):
        pass


@pytest.mark.parametrize(
    "location", ["mine.reward", "python:reward", "python:", "python:a b.c", "python:mine.reward()"]
)
def test_a_location_of_another_form_is_refused(location):
    with pytest.raises(ValueError, match=r"written python:module\.function"):
        PythonReward(location)


def test_a_function_at_the_top_of_a_module_is_named_by_its_location():
    assert with_reward(arithmetic(), math.isqrt).score == PythonReward("python:math.isqrt")
    assert arithmetic(reward=math.isqrt) == with_reward(arithmetic(), math.isqrt)


def test_the_tasks_own_reward_leaves_the_task_as_it_is():
    assert with_reward(arithmetic(), "task") == arithmetic()


def test_a_function_of_the_script_or_within_another_is_refused():
    def inner():
        """A nested function."""

    with pytest.raises(ValueError, match="top of a module of its own"):
        with_reward(arithmetic(), inner)
