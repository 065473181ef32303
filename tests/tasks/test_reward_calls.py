"""How a reward function is called: its parameters say whether for one response or for several, in whose words."""

import json
import time

import pytest

from klimb.tasks import (
    Problem,
    ProblemSet,
    Response,
    Score,
    Scorer,
    ScorerSettings,
    ScoringError,
    from_file,
    with_reward,
)

PROBLEMS = tuple(
    Problem(
        problem_id=f"p{number}",
        messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"say {number}"}),
        answer=str(number),
        metadata={"level": str(number * 10)},
    )
    for number in range(3)
)

FUNCTIONS = """
import asyncio, os, time

def lists(prompts, responses, answers, metadatas):
    assert prompts == ["say 1"] * len(responses) and answers == ["1"] * len(responses), (prompts, answers)
    assert metadatas == [{"level": "10"}] * len(responses)
    return [len(responses) + len(response) / 10 for response in responses]

def mixed(prompts, responses, answers, metadatas):
    return [True, {"style": 0.25, "length": 0.5}, "much", 3]

def short(prompts, responses, answers, metadatas):
    return [1.0]

def no_list(prompts, responses, answers, metadatas):
    return 0.5

def raises(prompts, responses, answers, metadatas):
    raise KeyError("column")

def hangs(prompts, responses, answers, metadatas):
    time.sleep(60)

def dies(prompts, responses, answers, metadatas):
    os._exit(7)

def dies_once(prompts, responses, answers, metadatas):
    if not os.path.exists("was here"):
        open("was here", "w").close()
        os._exit(1)
    return [1.0] * len(responses)

def with_messages(prompt, response, answer, metadata, messages):
    return messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]

def lists_with_messages(prompts, responses, answers, metadatas, messages):
    return [conversation[0]["role"] == "system" for conversation in messages]

def missing(prompts, responses):
    return [1.0]

waiting, most = 0, 0

async def waits(prompt, response, answer, metadata):
    global waiting, most
    waiting += 1
    most = max(most, waiting)
    await asyncio.sleep(0.05 if response != "slow" else 30)
    waiting -= 1
    if response == "raise":
        raise RuntimeError("no answer")
    return float(most)

async def waits_in_lists(prompts, responses, answers, metadatas):
    await asyncio.sleep(0.01)
    return [float(len(response)) for response in responses]

def trl_chat(prompts, completions, level, answer, **kwargs):
    assert prompts[0][0] == {"role": "system", "content": "Be brief."}, prompts
    return [
        float(int(place) + len(completion[0]["content"])) if place != "20" else None
        for completion, place in zip(completions, level, strict=True)
    ]

def trl_texts(completions: list[str], **kwargs):
    assert sorted(kwargs) == ["answer", "level", "prompts"], kwargs
    return [float(len(completion)) for completion in completions]

def trl_needs(completions, solution):
    return [0.0 for _ in completions]

def trl_columns(completions, solution, answer, tags, question=None, prompt="none"):
    assert (solution, tags, prompt) == ([3], [["a", "b"]], "none"), (solution, tags, prompt)
    return [10.0 * int(answer[0] == "3") + int(question == ["1+2"])]

def trl_cut(completions, solution, answer):
    return [float(solution == answer == ["3"])]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "calls.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reply(text: str) -> Response:
    return Response(text=text, num_tokens=1, finish_reason="stop")


def score_all(name: str, texts, *, asked=None, **settings) -> list[Score]:
    task = with_reward(ProblemSet(name="say", train=PROBLEMS, held_out=(), score=print), f"python:calls.{name}")
    with Scorer(task, ScorerSettings(max_error_fraction=1.0, **settings)) as scorer:
        return scorer.score_many(asked or [PROBLEMS[1]] * len(texts), [reply(text) for text in texts])


def rewards(name: str, texts, **settings) -> list[float | None]:
    return [score.reward for score in score_all(name, texts, **settings)]


def test_a_function_of_lists_gets_all_responses_to_a_problem_at_once():
    assert rewards("lists", ["a", "bb", "ccc"]) == [3.1, 3.2, 3.3]


def test_its_entries_are_scores_as_those_of_one_response_are():
    first, second, third, fourth = score_all("mixed", ["a", "b", "c", "d"])
    assert (first.reward, first.correct) == (1.0, True)
    assert (second.reward, second.parts) == (0.75, {"style": 0.25, "length": 0.5})
    assert (third.reward, third.reason[:36]) == (None, "python:calls.mixed returned str 'muc")
    assert fourth.reward == 3.0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("short", "ValueError: python:calls.short returned 1 rewards for 3 responses, expected one each"),
        (
            "no_list",
            "ValueError: python:calls.no_list returned float 0.5, expected a list of 3 rewards, one a response",
        ),
        ("raises", "KeyError: 'column'"),
        ("hangs", "timed out after 0.6 s, with the 3 responses that were scored together"),
        ("dies", "scoring ended its process 2 times (exit code 7), with the 3 responses that were scored together"),
    ],
)
def test_a_failing_batch_costs_each_of_its_responses_and_the_reason_is_named(name, reason):
    scores = score_all(name, ["a", "b", "c"], timeout_seconds=0.2)
    assert [(score.reward, score.reason) for score in scores] == [(None, reason)] * 3


def test_a_batch_whose_process_died_by_accident_is_tried_again():
    assert rewards("dies_once", ["a", "b"]) == [1.0, 1.0]


@pytest.mark.parametrize("name", ["with_messages", "lists_with_messages"])
def test_a_function_that_names_messages_gets_the_conversation(name):
    assert rewards(name, ["a", "b"]) == [1.0, 1.0]


def test_async_calls_wait_together_up_to_the_bound():
    started = time.monotonic()
    bounded = rewards("waits", ["x"] * 12, max_concurrent=4)
    assert max(bounded) == 4.0
    assert max(rewards("waits", ["x"] * 12, max_concurrent=12)) == 12.0
    assert time.monotonic() - started < 30


def test_an_async_call_that_raises_or_takes_too_long_costs_its_own_response():
    scores = score_all("waits", ["x", "raise", "slow", "x"], timeout_seconds=1.0)
    assert [score.reward is None for score in scores] == [False, True, True, False]
    assert [score.reason for score in scores[1:3]] == [
        "RuntimeError: no answer",
        "TimeoutError: timed out after 1 s",
    ]


def test_an_async_function_of_lists_is_awaited():
    assert rewards("waits_in_lists", ["a", "bb"]) == [1.0, 2.0]


def test_a_function_of_trls_gets_messages_and_the_columns_as_lists():
    asked = [PROBLEMS[1], PROBLEMS[1], PROBLEMS[2]]
    scores = score_all("trl_chat", ["a", "bb", "c"], asked=asked)
    assert [score.reward for score in scores] == [11.0, 12.0, None]
    assert "returned None" in scores[2].reason


def test_a_function_of_trls_for_texts_gets_texts():
    assert rewards("trl_texts", ["a", "bb"]) == [1.0, 2.0]


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    (score,) = score_all("trl_needs", ["a"])
    assert score.reason.startswith(
        "ValueError: python:calls.trl_needs: missing a required argument: 'solution'; there are"
    )
    assert "answer, completions, level, prompts" in score.reason


@pytest.mark.parametrize("name", ["solution", "extra.right"])
def test_a_function_of_trls_gets_the_columns_of_the_file_by_their_names_and_as_they_are(folder, name):
    row = {"question": "1+2", "prompt": "p", "solution": 3, "tags": ["a", "b"], "extra": {"right": 3}}
    (folder / "d.jsonl").write_text(json.dumps(row))
    task = from_file(folder / "d.jsonl", answer=name, reward="python:calls.trl_columns", held_out_fraction=0)
    with Scorer(task, ScorerSettings(max_error_fraction=1.0)) as scorer:
        (score,) = scorer.score_many(task.train, [reply("a")])
    assert score.reward == 11.0, score.reason


def test_a_function_of_trls_gets_of_a_cut_answer_what_is_left(folder):
    (folder / "d.jsonl").write_text(json.dumps({"question": "q", "solution": "1 and 2 #### 3", "tags": []}))
    task = from_file(
        folder / "d.jsonl", answer="solution", answer_after="####", reward="python:calls.trl_cut", held_out_fraction=0
    )
    with Scorer(task, ScorerSettings(max_error_fraction=1.0)) as scorer:
        (score,) = scorer.score_many(task.train, [reply("a")])
    assert score.reward == 1.0, score.reason


def test_a_function_of_lists_that_lacks_one_of_them_is_refused_at_the_start():
    with pytest.raises(ScoringError, match="must take the arguments prompts, responses, answers, metadatas by name"):
        score_all("missing", ["a"])
