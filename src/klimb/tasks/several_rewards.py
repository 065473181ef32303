"""Several rewards of one response: each with its weight, its own part of the reward, and its own failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from klimb.tasks.batches import Batches, BatchLimits, Scored, batches_of, is_large, prepare, score_batch
from klimb.tasks.protocol import Problem, Response, Score, ScoreFunction


class RewardFailed(Exception):
    """One of several rewards raised; its name is in the message, what it raised is the cause."""


@dataclass(frozen=True, kw_only=True)
class WeightedReward:
    """One reward of several.

    Attributes:
        name: of the part that it is of the whole.
        weight: its value is multiplied by it.
        score: the reward itself.
        is_of_task: whether it is the task's own, whose verdict counts before those of others.
    """

    name: str
    weight: float
    score: ScoreFunction
    is_of_task: bool = False


@dataclass(frozen=True)
class CombinedScore:
    """The weighted sum of several rewards: R = Σ_k w_k·r_k, each w_k·r_k being a part of it.

    A reward that fails leaves the response without one, and the reason names it. One that says itself that it does not
    apply is left out of the sum, if another one applies. Right or wrong is what the task's own reward says, else the
    first that says it.
    """

    rewards: tuple[WeightedReward, ...]

    @property
    def batches(self) -> Batches:
        """A group where one of them compares the responses to a problem; any number where none cares and one can."""
        asked = {batches_of(each.score) for each in self.rewards}
        return "group" if "group" in asked else "any" if "any" in asked else "one"

    @property
    def is_large(self) -> bool:
        """Whether one of them holds a model."""
        return any(is_large(each.score) for each in self.rewards)

    def with_each(self, change: Callable[[ScoreFunction], ScoreFunction]) -> CombinedScore:
        """Return the same sum of changed rewards."""
        return CombinedScore(tuple(replace(each, score=change(each.score)) for each in self.rewards))

    def prepare(self) -> None:
        """Prepare each of them."""
        for each in self.rewards:
            prepare(each.score)

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the sum for one response.

        Raises:
            RewardFailed: one of the rewards raised.
        """
        (scored,) = self.score_batch([problem], [response], BatchLimits())
        if isinstance(scored, Exception):
            raise scored
        return scored

    def score_batch(
        self, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
    ) -> list[Scored]:
        """Return the sum for each response; what one of the rewards raised in its place."""
        each_of = [_score_each(each.score, problems, responses, limits) for each in self.rewards]
        return [self._combine(scores) for scores in zip(*each_of, strict=True)]

    def _combine(self, scores: Sequence[Scored]) -> Scored:
        named = list(zip(self.rewards, scores, strict=True))
        applying: list[tuple[WeightedReward, Score]] = []
        for each, scored in named:
            if isinstance(scored, Exception):
                return _failed(each.name, scored)
            if scored.reward is None and scored.applies:
                return Score(reward=None, reason=f"rewards.{each.name}: {scored.reason}")
            if scored.reward is not None:
                applying.append((each, scored))
        if not applying:
            reasons = "; ".join(f"{each.name}: {scored.reason}" for each, scored in named if isinstance(scored, Score))
            return Score(reward=None, reason=f"none of the rewards applies: {reasons}", applies=False)
        return _sum(applying)


def _sum(applying: Sequence[tuple[WeightedReward, Score]]) -> Scored:
    values = {each.name: scored.reward for each, scored in applying if scored.reward is not None}
    parts = {each.name: each.weight * values[each.name] for each, _ in applying}
    in_order = sorted(applying, key=lambda pair: not pair[0].is_of_task)
    try:
        return Score(
            reward=math.fsum(parts.values()),
            correct=next((scored.correct for _, scored in in_order if scored.correct is not None), None),
            parts=parts,
            reason="; ".join(f"{each.name} {values[each.name]:g}: {scored.reason}" for each, scored in applying),
            values=values,
        )
    except ValueError as error:
        return Score(reward=None, reason=f"the weighted sum of {', '.join(parts)}: {error}")


def _score_each(
    score: ScoreFunction, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
) -> Sequence[Scored]:
    """Return the scores of one of the rewards; one of several tasks a group where it compares the responses to it."""
    if batches_of(score) != "group":
        return score_batch(score, problems, responses, limits)
    scores: list[Scored] = []
    for start, end in groups_of(problems):
        scores += score_batch(score, problems[start:end], responses[start:end], limits)
    return scores


def groups_of(problems: Sequence[Problem]) -> list[tuple[int, int]]:
    """Return the first and the last place (one behind) of each stretch of responses to the same problem."""
    starts = [
        number
        for number, problem in enumerate(problems)
        if number == 0 or problem.problem_id != problems[number - 1].problem_id
    ]
    return list(zip(starts, [*starts[1:], len(problems)], strict=True))


def _failed(name: str, error: Exception) -> RewardFailed:
    lines = str(error).strip().splitlines()
    failed = RewardFailed(f"rewards.{name} raised {type(error).__name__}{f': {lines[0]}' if lines else ''}")
    failed.__cause__ = error
    return failed
