"""Scoring in the training process, for score functions that no other process can import.

A function of the program that is running, a lambda or a closure cannot be sent to a scoring process. It is called here:
what it raises costs that response alone, as there, but nothing can end it when it hangs.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, ScoreFunction

LONGEST_REASON = 300


@dataclass(frozen=True)
class ScoreHere:
    """Calls a score function that may raise."""

    score: ScoreFunction

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score; without a reward, and with the reason, where the function raised or gave something else."""
        try:
            made: object = self.score(problem, response)
        # The user's own code, which may raise anything.
        except Exception as error:
            return Score(reward=None, reason=f"{type(error).__name__}: {error}"[:LONGEST_REASON])
        if isinstance(made, Score):
            return made
        what = f"{type(made).__name__} {made!r}"
        return Score(reward=None, reason=f"the task's score function returned {what}"[:LONGEST_REASON])


def scored_where_it_can(task: ProblemSet) -> ProblemSet:
    """Return the task, scored in this process where its score function cannot be sent to another."""
    return (
        task if task.trusted or _can_be_sent(task.score) else replace(task, score=ScoreHere(task.score), trusted=True)
    )


def _can_be_sent(score: ScoreFunction) -> bool:
    try:
        return b"__main__" not in pickle.dumps(score)
    # Whatever pickle says of an object that it cannot take.
    except Exception:
        return False
