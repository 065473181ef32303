"""What an answer that was cut off at the token limit counts as."""

import json
import pickle

import pytest

from klimb.tasks import (
    FormatReward,
    FormatSettings,
    OverlongSettings,
    OverlongShaping,
    ProblemSet,
    Response,
    Score,
    Scorer,
    ScorerSettings,
    WrongIfCut,
    apply_truncation,
    arithmetic,
    chat,
    from_file,
    with_reward,
    with_shaping,
)
from klimb.tasks.protocol import Problem

PROBLEM = Problem(problem_id="p", messages=chat("How many legs has a spider?"), answer="8")

REWARDS = """
def verdict(prompt, response, answer, metadata):
    return response.endswith(answer)

def parts(prompt, response, answer, metadata):
    return {"correct": 2.0 * response.endswith(answer) - 0.5, "style": 0.25}

def vowels(prompt, response, answer, metadata):
    return sum(letter in "aeiou" for letter in response) / 4
"""


def reply(text: str, finish_reason: str = "stop") -> Response:
    return Response(text=text, num_tokens=3, finish_reason=finish_reason)  # pyright: ignore[reportArgumentType]


def scores_of(task, *texts, settings=None):
    """Scores of answers to the first problem, each as one that ended and as one that was cut."""
    responses = [reply(text, reason) for text in texts for reason in ("stop", "length")]
    with Scorer(task, settings or ScorerSettings(timeout_seconds=60)) as scorer:
        return scorer.score_many([task.train[0]] * len(responses), responses)


@pytest.mark.parametrize("verifier", ["math-verify", "exact", "integer"])
def test_a_cut_answer_is_wrong_whatever_checks_it(verifier, tmp_path):
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({"question": f"q{n}", "answer": "8"}) + "\n" for n in range(4))
    )
    task = from_file(tmp_path / "q.jsonl", reward=verifier, held_out_fraction=0.25)
    ended, cut = scores_of(task, "8")
    assert (ended.reward, ended.correct) == (1.0, True)
    assert (cut.reward, cut.correct, cut.parts) == (0.0, False, {"correct": 0.0})
    assert cut.reason.startswith("cut off at the token limit, so wrong: ")
    _, written = scores_of(task, "8", settings=ScorerSettings(truncated="as-written", timeout_seconds=60))
    assert (written.reward, written.correct) == (1.0, True)


def test_half_a_number_is_no_answer():
    task = arithmetic(digits=1)
    problem = next(each for each in (*task.train, *task.held_out) if each.answer == "1")
    assert task.score(problem, reply("The sum is 1")).correct
    assert not task.score(problem, reply("The sum is 1", "length")).correct
    assert task.score(problem, reply("The sum is 1", "length")).reward == 0
    assert task.score(problem, reply("The sum is 1", "unknown")).correct  # nobody says that it was cut


def test_rewards_of_ones_own_lose_what_they_give_for_being_right_and_no_more(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    task = ProblemSet(name="legs", train=(PROBLEM,), held_out=(), score=WrongIfCut(lambda *_: Score(reward=0.0)))

    def pairs(name, *texts):
        found = scores_of(with_reward(task, f"python:own_rewards.{name}"), *texts)
        return [(score.reward, score.correct) for score in found]

    assert pairs("verdict", "8", "9") == [(1.0, True), (0.0, False), (0.0, False), (0.0, False)]
    assert pairs("parts", "8", "9") == [(1.75, True), (0.25, False), (-0.25, False), (-0.25, False)]
    assert pairs("vowels", "eight") == [(0.5, None), (0.5, None)]  # says nothing of right and wrong


@pytest.mark.parametrize(
    ("score", "reward", "parts"),
    [
        (Score(reward=2.0, correct=True), 0.0, {}),
        (Score(reward=-2.0, correct=False), -2.0, {}),
        (Score(reward=0.75, correct=False, parts={"score": 0.75}), 0.0, {"score": 0.0}),
        (Score(reward=0.75, correct=True, parts={"a": 0.5, "b": 0.25}), 0.0, {"a": 0.5, "b": 0.25, "truncated": -0.75}),
        (Score(reward=4.5, correct=True, parts={"correct": 0.5, "b": 4.0}), 4.0, {"correct": 0.0, "b": 4.0}),
    ],
)
def test_the_parts_of_a_cut_answer_still_add_up_to_its_reward(score, reward, parts):
    cut = WrongIfCut(lambda *_: score)(PROBLEM, reply("8", "length"))
    assert (cut.reward, cut.correct, cut.parts) == (reward, False, parts)
    assert sum(cut.parts.values()) == (cut.reward if cut.parts else 0)


@pytest.mark.parametrize("score", [Score(reward=0.3), Score(reward=None, reason="x"), Score(reward=None, correct=True)])
def test_without_a_verdict_or_a_reward_nothing_is_changed(score):
    assert WrongIfCut(lambda *_: score)(PROBLEM, reply("8", "length")) == score


def test_shaping_comes_after_the_verdict_and_is_kept():
    shapings = [
        OverlongShaping(settings=OverlongSettings(buffer_tokens=2, factor=0.5), max_tokens=3),
        FormatReward(settings=FormatSettings(pattern="sum", weight=0.25)),
    ]
    task = with_shaping(arithmetic(digits=1), shapings)
    problem = next(each for each in task.train if each.answer == "7")
    for rule, reward, correct in (("wrong", -0.25, False), ("as-written", 0.75, True)):
        ruled = apply_truncation(task.score, rule)  # pyright: ignore[reportArgumentType]
        score = ruled(problem, reply("The sum is 7", "length"))
        assert (score.reward, score.correct) == (pytest.approx(reward), correct)


def test_the_rule_is_applied_once_and_can_be_taken_off():
    score = arithmetic(digits=1).score
    assert apply_truncation(score, "wrong") == score
    assert apply_truncation(apply_truncation(score, "as-written"), "wrong") == score
    assert not isinstance(apply_truncation(score, "as-written"), WrongIfCut)
    assert pickle.loads(pickle.dumps(score)) == score


def test_an_unknown_rule_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match="unknown truncated 'as-writen'; did you mean 'as-written'"):
        ScorerSettings(truncated="as-writen")  # pyright: ignore[reportArgumentType]
