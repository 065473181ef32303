"""Score functions that change the scores of another one take responses as that one does, and nothing of it is lost."""

import pickle
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from klimb.tasks import Problem, Response, Score
from klimb.tasks.batches import BatchLimits, batches_of, is_large, prepare, score_batch
from klimb.tasks.environment_reward import WithEnvironmentReward
from klimb.tasks.protocol import chat, without_score
from klimb.tasks.shaping import FormatReward, FormatSettings, ShapedScore
from klimb.tasks.truncation import WrongIfCut
from klimb.training.identity import describe_part

PROBLEM = Problem(problem_id="sum", messages=chat("3 + 4?"), answer="7")
REPLIES = [
    Response(text="7 <end>", num_tokens=2, finish_reason="stop"),
    Response(text="broken", num_tokens=1, finish_reason="stop"),
    Response(text="7", num_tokens=1, finish_reason="length"),
]
SHAPINGS = (FormatReward(settings=FormatSettings(pattern="<end>", weight=0.25)),)


@dataclass(frozen=True)
class OfGroups:
    """Takes the responses to one problem at once, and notes what it was given."""

    batches: ClassVar = "group"
    is_large: ClassVar = True
    seen: list[object] = field(default_factory=list, compare=False)

    def prepare(self):
        self.seen.append("prepared")

    def __call__(self, problem, response):
        return Score(reward=1.0, correct=True)

    def score_batch(self, problems, responses, limits):
        self.seen.append((len(problems), limits.timeout_seconds))
        return [RuntimeError("no") if each.text == "broken" else self(PROBLEM, each) for each in responses]


def one_at_a_time(problem, response):
    return Score(reward=1.0, correct=True)


WRAPPED = {
    "shaping": (lambda score: ShapedScore(score, SHAPINGS), [1.25, 1.0]),
    "truncation": (WrongIfCut, [1.0, 0.0]),
    "environment": (WithEnvironmentReward, [3.0, 3.0]),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_batch_is_passed_on_and_each_score_of_it_is_changed_as_that_of_one_response(name):
    wrap, rewards = WRAPPED[name]
    inner = OfGroups()
    outer = wrap(inner)
    replies = [replace(each, environment_reward=2.0) for each in REPLIES] if name == "environment" else REPLIES
    assert (batches_of(outer), is_large(outer)) == ("group", True)
    prepare(outer)
    first, failed, last = score_batch(outer, [PROBLEM] * 3, replies, BatchLimits(timeout_seconds=7))
    assert inner.seen == ["prepared", (3, 7)]
    assert isinstance(failed, RuntimeError)  # nothing is made of what was raised
    assert isinstance(first, Score) and isinstance(last, Score)
    assert [first.reward, last.reward] == rewards
    assert [outer(PROBLEM, replies[0]), outer(PROBLEM, replies[2])] == [first, last]


@pytest.mark.parametrize("name", WRAPPED)
def test_around_a_function_of_one_response_nothing_is_gathered(name):
    wrap, _ = WRAPPED[name]
    outer = wrap(one_at_a_time)
    assert (batches_of(outer), is_large(outer)) == ("one", False)
    prepare(outer)
    assert pickle.loads(pickle.dumps(outer)) == outer


def test_what_a_run_is_does_not_depend_on_how_batches_are_passed_on():
    told = describe_part(WithEnvironmentReward(ShapedScore(WrongIfCut(without_score), SHAPINGS)))
    shaping = {
        "kind": "klimb.tasks.shaping.FormatReward",
        "settings": {"kind": "klimb.tasks.shaping.FormatSettings", "pattern": "<end>", "weight": 0.25},
        "part": "format",
        "trusted": False,
    }
    cut = {"kind": "klimb.tasks.truncation.WrongIfCut", "score": "klimb.tasks.protocol.without_score"}
    shaped = {"kind": "klimb.tasks.shaping.ShapedScore", "score": cut, "shapings": [shaping]}
    assert told == {"kind": "klimb.tasks.environment_reward.WithEnvironmentReward", "score": shaped}
