"""Reward functions that look at a conversation and its environment, in the scoring process and in this one."""

import dataclasses
import threading

import pytest

from klimb.tasks import Problem, ProblemSet, Response, Score, Scorer, with_reward, with_shaping
from klimb.tasks.batches import BatchLimits
from klimb.tasks.environments.view import view_of
from klimb.tasks.protocol import chat
from klimb.tasks.reward_calls import read_call
from tests.tasks.environments.games import Guess

REWARDS = """
def trl(prompts, completions, environments, answer, **kwargs):
    assert prompts[0] == [{"role": "user", "content": "Play."}]
    return [
        len(completion) + environment.tries + 100 * environment.reward + 1000 * (answer == "7")
        for completion, environment, answer in zip(completions, environments, answer)
    ]

def trl_roles(completions, **kwargs):
    assert ("environments" in kwargs) == (len(completions[0]) > 1)
    return [float(sum(message["role"] == "tool" for message in completion)) for completion in completions]

def one(prompt, response, answer, metadata, completion, environment):
    return {"tries": environment.tries, "turns": len(completion), "last": float(response == "Done.")}

def lists(prompts, responses, answers, metadatas, environments):
    return [environment.tries for environment in environments]

def lock(prompt, response, answer, metadata, environment):
    return environment.lock
"""

MESSAGES = (
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "guess"}}]},
    {"role": "tool", "name": "guess", "content": "right"},
    {"role": "assistant", "content": "Done."},
)

PROBLEM = Problem(problem_id="p1", messages=chat("Play."), answer="7")


def played(*guesses, **attributes):
    game = Guess()
    game.reset(answer="7")
    for number in guesses:
        game.guess(number)
    vars(game).update(attributes)
    return Response(text="Done.", num_tokens=9, finish_reason="stop", messages=MESSAGES, environment=view_of(game))


def score_own(problem, response):
    return Score(reward=float(response.environment.tries), parts={}, reason=response.messages[1]["content"])


@pytest.fixture
def scores(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_games.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)

    def score(name, *responses):
        task = ProblemSet(name="games", train=(PROBLEM,), held_out=())
        with Scorer(with_reward(task, f"python:rewards_of_games.{name}")) as scorer:
            return scorer.score_many([PROBLEM] * len(responses), responses)

    return score


def test_trls_functions_get_whole_conversations_and_their_environments(scores):
    found = scores("trl", played(3, 7), played(3))
    assert [score.reward for score in found] == [3 + 2 + 100 + 1000, 3 + 1 + 1000]


def test_trls_functions_that_ask_for_everything_get_environments_only_where_there_are_some(scores):
    plain = Response(text="Done.", num_tokens=1, finish_reason="stop")
    assert [score.reward for score in scores("trl_roles", played(3))] == [1.0]
    assert [score.reward for score in scores("trl_roles", plain)] == [0.0]


def test_klimbs_forms_get_them_by_name(scores):
    (found,) = scores("one", played(3, 7))
    assert (found.reward, found.parts) == (6.0, {"tries": 2.0, "turns": 3.0, "last": 1.0})
    assert [score.reward for score in scores("lists", played(3, 7), played())] == [2.0, 0.0]


def test_an_attribute_that_could_not_be_sent_is_named_where_it_is_read(scores):
    (found,) = scores("lock", played(lock=threading.Lock()))
    assert found.reward is None
    assert found.reason.startswith("AttributeError: 'lock' of the environment Guess cannot be sent")


@pytest.mark.parametrize("trusted", [True, False])
def test_a_score_function_reads_the_environment_and_the_messages(trusted):
    task = ProblemSet(name="games", train=(PROBLEM,), held_out=(), score=score_own, trusted=trusted)
    with Scorer(task) as scorer:
        (found,) = scorer.score_many([PROBLEM], [played(1, 2, 3)])
    assert (found.reward, found.reason) == (3.0, "right")


def test_without_an_environment_functions_are_called_as_ever():
    def own(prompt, response, answer, metadata, environment="default", completion="default"):
        return f"{environment} {completion}"

    def trl(completions, answer, **kwargs):
        return [(completions[0], sorted(kwargs))]

    plain = Response(text="x", num_tokens=1, finish_reason="stop")
    assert plain.unsealed() is plain
    assert read_call(own, "own")([PROBLEM], [plain], BatchLimits()) == ["default default"]
    assert read_call(trl, "trl")([PROBLEM], [plain], BatchLimits()) == [
        ([{"role": "assistant", "content": "x"}], ["prompts"])
    ]


def test_an_environment_stays_with_its_task_whatever_the_reward():
    task = ProblemSet(name="games", train=(PROBLEM,), held_out=(), score=score_own, environment=Guess)
    assert with_reward(task, "task").environment is Guess
    assert with_shaping(task, ()).environment is Guess
    assert with_reward(task, "python:rewards_of_games.one").environment is Guess
    assert dataclasses.replace(task, name="other").environment is Guess
