"""Answers that were cut off at the token limit: right or wrong is said of finished ones.

A number at the very end of a cut answer may be the first half of another one, so that what stands there is no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from klimb.tasks.batches import passes_batches_on
from klimb.tasks.protocol import Problem, Response, Score, ScoreFunction

Truncated = Literal["wrong", "as-written"]
"""What an answer that was cut off counts as, where a score says right or wrong."""


VERDICT_PART = "correct"
"""The part of a reward that stands for being right."""


@passes_batches_on
@dataclass(frozen=True)
class WrongIfCut:
    """A score function whose verdict on an answer that was cut off is: wrong."""

    score: ScoreFunction

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score, that of a wrong answer where the response was cut off."""
        return self.change(self.score(problem, response), response)

    def change(self, score: Score, response: Response) -> Score:
        """Return the inner score, as that of a wrong answer where the response was cut off."""
        return as_wrong(score) if response.finish_reason == "length" else score


def as_wrong(score: Score) -> Score:
    """Return the score as that of a wrong answer: `correct` is False, and nothing is earned for being right.

    The part named `correct` becomes 0 (or stays below it) and the other parts stay. Without such a part the whole
    reward becomes 0, or stays below it: it was one for being right. A score without a verdict (of style, of length)
    says nothing of right and wrong and is returned as it is, and so is one without a reward.
    """
    if score.correct is None or score.reward is None:
        return score
    earned = max(0.0, score.parts.get(VERDICT_PART, score.reward))
    if VERDICT_PART in score.parts:
        parts = {**score.parts, VERDICT_PART: score.parts[VERDICT_PART] - earned}
    elif len(score.parts) == 1:
        parts = {name: value - earned for name, value in score.parts.items()}
    else:
        parts = {**score.parts, "truncated": -earned} if score.parts and earned else score.parts
    reason = f"cut off at the token limit, so wrong: {score.reason}".removesuffix(": ")
    return replace(score, reward=score.reward - earned, correct=False, parts=parts, reason=reason)
