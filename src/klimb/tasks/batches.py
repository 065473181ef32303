"""Scoring many responses at once: what a score function takes, and what of it its wrappers pass on.

A batch is never cut from what happened to wait: it is all responses to one problem that are scored together, or its
composition is said to be of no effect. So a run that is killed and resumed gets the rewards that it had got.

A score function that takes several has `batches`, which is not "one", and `score_batch(problems, responses, limits)`,
which returns a list of `Scored`. It can also be called for one response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from klimb.tasks.protocol import Problem, Response, Score, ScoreFunction

Batches = Literal["one", "group", "any"]
"""What a score function is given at once: one response, all to one problem, or any number of them."""


Scored = Score | Exception
"""What came of one response of a batch: the score, or what was raised for this response alone."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one call for several responses may take.

    Attributes:
        timeout_seconds: for each response.
        max_concurrent: responses of one reward that wait at the same time, where it is `async`.
    """

    timeout_seconds: float = 5.0
    max_concurrent: int = 16


DEFAULTS = BatchLimits()


@runtime_checkable
class ChangesScores(Protocol):
    """A score function that changes each score of another one."""

    @property
    def score(self) -> ScoreFunction:
        """The inner score function."""
        ...

    def change(self, score: Score, response: Response) -> Score:
        """Return what the inner score of this response becomes."""
        ...


Kind = TypeVar("Kind", bound=type)


def passes_batches_on(kind: Kind) -> Kind:
    """Give a class that changes the scores of another function that one's batches: `prepare`, `score_batch` and so on.

    A class decorator, so that a change of scores is written down once, for one response.

    Args:
        kind: a class of `ChangesScores`.
    """

    def prepare_inner(self: ChangesScores) -> None:
        """Prepare the inner score function, if it wants that."""
        prepare(self.score)

    def change_batch(
        self: ChangesScores, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits
    ) -> list[Scored]:
        """Return the changed scores; what was raised for a response stays in its place."""
        scores = score_batch(self.score, problems, responses, limits)
        return [
            scored if isinstance(scored, Exception) else self.change(scored, response)
            for scored, response in zip(scores, responses, strict=True)
        ]

    members = {
        "batches": property(lambda self: batches_of(self.score)),
        "is_large": property(lambda self: is_large(self.score)),
        "prepare": prepare_inner,
        "score_batch": change_batch,
    }
    for name, member in members.items():
        setattr(kind, name, member)
    return kind


def prepare(score: ScoreFunction) -> None:
    """Let the score function import what it needs, if it wants that."""
    own = getattr(score, "prepare", None)
    if own is not None:
        own()


def batches_of(score: ScoreFunction) -> Batches:
    """Return what the score function is given at once; known once it is prepared."""
    return getattr(score, "batches", "one")


def is_large(score: ScoreFunction) -> bool:
    """Return whether it holds a model: it then loads slowly, and no limit is put on its memory."""
    return getattr(score, "is_large", False)


def score_batch(
    score: ScoreFunction, problems: Sequence[Problem], responses: Sequence[Response], limits: BatchLimits = DEFAULTS
) -> list[Scored]:
    """Return one score a response, or what was raised for it; a function that takes one is called for each."""
    if batches_of(score) == "one":
        return [_score_one(score, *pair) for pair in zip(problems, responses, strict=True)]
    try:
        return _of_several(score).score_batch(problems, responses, limits)
    # Code of others, which may raise anything: it costs this batch.
    except Exception as error:
        return [error] * len(responses)


def score_alone(score: ScoreFunction, problem: Problem, response: Response) -> Score:
    """Return the score of one response from a function of several; raises what was raised for it."""
    (scored,) = _of_several(score).score_batch([problem], [response], DEFAULTS)
    if isinstance(scored, Exception):
        raise scored
    return scored


def _of_several(score: ScoreFunction) -> Any:
    """Return the same; that it has `score_batch` is not in the type, which is that of a plain function."""
    return score


def _score_one(score: ScoreFunction, problem: Problem, response: Response) -> Scored:
    try:
        return score(problem, response)
    # Code of others, which may raise anything: it costs this response.
    except Exception as error:
        return error
