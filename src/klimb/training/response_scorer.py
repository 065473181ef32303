"""What training needs of whoever scores responses."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from klimb.tasks import Problem, Response, Score


@runtime_checkable
class ResponseScorer(Protocol):
    """What the loop needs of `klimb.tasks.Scorer`.

    A resume must not take another one: a method `identity()`, which returns tables of plain values, settings and
    functions, says what the rewards depend on. Without it, the scorer's class and its source stand for it.
    """

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """One score a response; a reward of None where none could be computed."""
        ...


@runtime_checkable
class CountingScorer(Protocol):
    """A scorer that ends a run in which too little can be scored."""

    def count(self, score: Score) -> Score:
        """Return a score that it was not asked for, after counting it."""
        ...
