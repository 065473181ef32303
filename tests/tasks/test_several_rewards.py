"""The weighted sum of several rewards, each with a part, a verdict and failures of its own."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from klimb.tasks import (
    Problem,
    ProblemSet,
    Response,
    RewardSettings,
    Score,
    Scorer,
    ScorerSettings,
    with_rewards,
    with_shaping,
)
from klimb.tasks.python_rewards import as_score
from klimb.tasks.shaping import FormatReward, FormatSettings

PROBLEMS = tuple(
    Problem(problem_id=f"p{number}", messages=({"role": "user", "content": f"say {number}"},), answer=str(number))
    for number in range(4)
)

REWARDS = """
def length(prompt, response, answer, metadata):
    return float(len(response))

def on_even(prompt, response, answer, metadata):
    return 1.0 if int(answer) % 2 == 0 else None

def nothing(prompt, response, answer, metadata):
    return None

def breaks(prompt, response, answer, metadata):
    if response == "bad":
        raise ZeroDivisionError("by \\x1b[31m zero")
    return 2.0

def no_number(prompt, response, answer, metadata):
    return "much"

def verdict(prompt, response, answer, metadata):
    return len(response) > 3

def huge(prompt, response, answer, metadata):
    return float(response)

def in_group(prompts, responses, answers, metadatas):
    longest = max(map(len, responses))
    return [len(response) / longest for response in responses]
"""


def says_number(problem: Problem, response: Response) -> Score:
    is_right = response.text == problem.answer
    return Score(reward=float(is_right), correct=is_right, parts={"correct": float(is_right)}, reason="compared")


TASK = ProblemSet(name="numbers", train=PROBLEMS, held_out=(), score=says_number)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "several.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(name: str, weight: float = 1.0) -> RewardSettings:
    return RewardSettings(reward=f"python:several.{name}", weight=weight)


def reply(text: str, finish: str = "stop") -> Response:
    return Response(text=text, num_tokens=len(text), finish_reason=finish)


def score_all(rewards, texts, *, problem=PROBLEMS[1], settings=None, shapings=()):
    task = with_rewards(TASK, rewards)
    task = with_shaping(task, shapings) if shapings else task
    with Scorer(task, settings or ScorerSettings()) as scorer:
        return scorer.score_many([problem] * len(texts), [reply(text) for text in texts])


def test_the_reward_is_the_weighted_sum_and_each_part_is_weight_times_value():
    (score,) = score_all({"right": RewardSettings(reward="task"), "brief": own("length", -0.25)}, ["1"])
    assert (score.reward, score.correct) == (0.75, True)
    assert score.parts == {"right": 1.0, "brief": -0.25}
    assert score.values == {"right": 1.0, "brief": 1.0}
    assert score.reason == "right 1: compared; brief 1: python:several.length gives 1"


def test_a_weight_of_0_logs_a_reward_and_does_not_pay_it():
    (score,) = score_all({"right": RewardSettings(reward="task"), "brief": own("length", 0.0)}, ["wrong"])
    assert (score.reward, score.parts["brief"], score.values["brief"]) == (0.0, 0.0, 5.0)


def test_the_tasks_verdict_counts_before_one_that_is_listed_first():
    rewards = {"long": own("verdict"), "right": RewardSettings(reward="task")}
    short_right, long_wrong = score_all(rewards, ["1", "wrong"])
    assert (short_right.correct, long_wrong.correct) == (True, False)
    (without_task,) = score_all({"brief": own("length"), "long": own("verdict")}, ["wrong"])
    assert without_task.correct is True


def test_a_reward_that_returns_none_does_not_apply_and_the_others_count():
    rewards = {"brief": own("length"), "even": own("on_even", 10.0)}
    (odd,) = score_all(rewards, ["ab"], problem=PROBLEMS[1])
    (even,) = score_all(rewards, ["ab"], problem=PROBLEMS[2])
    assert (odd.reward, odd.parts, odd.values) == (2.0, {"brief": 2.0}, {"brief": 2.0})
    assert (even.reward, even.parts) == (12.0, {"brief": 2.0, "even": 10.0})


def test_a_response_to_which_no_reward_applies_has_none():
    (score,) = score_all({"a": own("nothing"), "b": own("nothing")}, ["x"])
    assert score.reward is None
    assert score.reason.startswith("none of the rewards applies: a: python:several.nothing returned None")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("breaks", "bad", "RewardFailed: rewards.odd raised ZeroDivisionError: by \\x1b[31m zero"),
        ("no_number", "x", "rewards.odd: python:several.no_number returned str 'much', expected a finite number"),
    ],
)
def test_a_failing_reward_leaves_the_response_without_one_and_is_named(name, text, reason):
    failed, after = score_all({"brief": own("length"), "odd": own(name)}, [text, "1"])
    assert (failed.reward, failed.reason[: len(reason)]) == (None, reason)
    assert after.reward == (3.0 if name == "breaks" else None)


def test_a_sum_beyond_the_bound_has_no_reward_and_names_the_bound():
    rewards = {"a": own("huge", 1000.0), "b": own("huge")}
    over, under = score_all(rewards, ["9e14", "1e11"])
    assert over.reward is None
    assert over.reason.startswith("the weighted sum of a, b: ")
    assert "within ±1e+15" in over.reason
    assert under.reward == 1.001e14


def test_a_cut_answer_is_wrong_in_the_reward_that_says_so_alone():
    task = with_rewards(TASK, {"right": RewardSettings(reward="task", weight=2.0), "brief": own("length", 0.5)})
    with Scorer(task, ScorerSettings(truncated="wrong")) as scorer:
        (score,) = scorer.score_many(PROBLEMS[1:2], [reply("1", "length")])
    assert (score.reward, score.correct) == (0.5, False)
    assert score.parts == {"right": 0.0, "brief": 0.5}


def test_a_shaping_is_one_more_part_of_the_sum():
    shaping = FormatReward(settings=FormatSettings(pattern="^1$", weight=0.125))
    (score,) = score_all({"right": RewardSettings(reward="task", weight=4.0)}, ["1"], shapings=(shaping,))
    assert (score.reward, score.parts) == (4.125, {"right": 4.0, "format": 0.125})


def test_beside_a_reward_of_lists_each_group_is_scored_by_itself():
    task = with_rewards(TASK, {"brief": own("length", -1.0), "longest": own("in_group", 8.0)})
    asked = [PROBLEMS[0], PROBLEMS[0], PROBLEMS[1], PROBLEMS[1]]
    with Scorer(task) as scorer:
        scores = scorer.score_many(asked, [reply(text) for text in ("a", "bb", "cccc", "cc")])
    assert [score.reward for score in scores] == [-1 + 4, -2 + 8, -4 + 8, -2 + 4]


def test_two_trusted_rewards_of_the_task_need_no_process():
    trusted = ProblemSet(name="numbers", train=PROBLEMS, held_out=(), score=says_number, trusted=True)
    task = with_rewards(trusted, {"once": RewardSettings(reward="task"), "again": RewardSettings(reward="task")})
    with Scorer(task) as scorer:
        (score,) = scorer.score_many(PROBLEMS[1:2], [reply("1")])
    assert (task.trusted, score.reward) == (True, 2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": math.inf}, "weight must be finite"),
        ({"scale": "all"}, "unknown scale 'all'"),
        ({"device": "cpu"}, "is that of a reward model"),
        ({"weight": 0.0, "scale": "group"}, "does nothing with weight = 0"),
    ],
)
def test_a_setting_that_cannot_act_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RewardSettings(reward="python:several.length", **settings)


@pytest.mark.parametrize("returned", [np.bool_(True), np.True_, np.array(True), torch.tensor(True)])
def test_a_bool_of_numpy_or_torch_is_a_bool(returned):
    score = as_score(returned, "python:mine.reward")
    assert (score.reward, score.correct, score.parts) == (1.0, True, {"correct": 1.0})


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), Decimal("0.5")])
def test_a_number_of_another_type_is_a_reward(number):
    assert as_score(number, "python:mine.reward").reward == 0.5
    assert as_score(Decimal("sNaN"), "python:mine.reward").reward is None


@pytest.mark.parametrize("number", [1e308, -1e308, 1.0000001e15, 10**400])
def test_a_reward_beyond_the_bound_is_none_and_the_bound_is_named(number):
    for returned in (number, {"part": number}):
        score = as_score(returned, "python:mine.reward")
        assert score.reward is None
        assert "within ±1e+15" in score.reason


@pytest.mark.parametrize("number", [1e308, -1e308, 1.0000001e15])
def test_a_score_beyond_the_bound_cannot_be_made(number):
    with pytest.raises(ValueError, match=r"reward must be within ±1e\+15"):
        Score(reward=number)
    with pytest.raises(ValueError, match=r"part 'style' of the reward must be within ±1e\+15"):
        Score(reward=0.0, parts={"style": number, "other": -number})
