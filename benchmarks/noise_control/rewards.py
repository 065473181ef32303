"""Rewards that are computed in the training process: one that nothing can be learnt from, and one that can."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from klimb.tasks import Problem, Response, Score

RewardFunction = Callable[[str, str], float]
"""From question and response to the reward."""

VOWELS = frozenset("aeiouAEIOU")


def noise(question: str, response: str) -> float:
    """Return a hash of the two in [0, 1): a reward without any pattern."""
    return zlib.crc32((question + response).encode()) % 1000 / 1000


def vowels(question: str, response: str) -> float:
    """Return the vowels in eighths, and a little for length."""
    return sum(letter in VOWELS for letter in response) / 8 + 0.01 * len(response)


@dataclass(frozen=True)
class InProcessScorer:
    """Scores without a process of its own, which would take longer than the runs do."""

    reward: RewardFunction

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """One score a response."""
        return [
            Score(reward=self.reward(problem.messages[-1]["content"], response.text))
            for problem, response in zip(problems, responses, strict=True)
        ]
