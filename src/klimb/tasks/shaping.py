"""Adjusting a score for how the response was given: its length, its format."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from klimb.declarations import Count, configurable, require
from klimb.tasks.batches import passes_batches_on
from klimb.tasks.patterns import check_pattern
from klimb.tasks.protocol import Problem, ProblemSet, Response, Score, ScoreFunction, Task, environment_of
from klimb.tasks.several_rewards import CombinedScore
from klimb.tasks.truncation import Truncated, WrongIfCut

BUILT_IN_PARTS = ("correct", "reward")


@runtime_checkable
class Shaping(Protocol):
    """Adds one named part to a reward."""

    @property
    def part(self) -> str:
        """The name of the part."""
        ...

    @property
    def trusted(self) -> bool:
        """True if it can neither hang nor raise."""
        ...

    def amount(self, response: Response) -> float:
        """Return what is added to the reward."""
        ...


@configurable
@dataclass(frozen=True, kw_only=True)
class OverlongSettings:
    """DAPO's soft punishment of answers that come close to the length limit."""

    buffer_tokens: Count
    """The punishment grows from 0 to `factor` over the last this many tokens before the limit."""
    factor: Annotated[float, Gt(0), Le(1_000)] = 1.0
    """The punishment at the limit."""

    def __post_init__(self) -> None:
        require(self.buffer_tokens >= 1, "buffer_tokens", self.buffer_tokens, ">= 1")
        require(math.isfinite(self.factor) and self.factor > 0, "factor", self.factor, "finite and > 0")


@dataclass(frozen=True, kw_only=True)
class OverlongShaping:
    """Soft overlong punishment: long responses lose up to `factor`, and not all at once.

    With n response tokens, L = max_tokens and B = buffer_tokens:
    0 if n <= L - B;  (L - B - n) / B if L - B < n <= L;  -1 if n > L;  times `factor`.

    Attributes:
        settings: B and the factor.
        max_tokens: where the full penalty is reached; usually the sampler's max_new_tokens.

    Source: DAPO, arXiv 2503.14476, equation 13 (L_max, L_cache).
    """

    settings: OverlongSettings
    max_tokens: int
    part: str = "overlong"
    trusted: bool = True

    def __post_init__(self) -> None:
        buffer = self.settings.buffer_tokens
        require(buffer <= self.max_tokens, "buffer_tokens", buffer, f"in [1, max_tokens={self.max_tokens}]")

    def amount(self, response: Response) -> float:
        """Return the penalty: 0, or less."""
        buffer = self.settings.buffer_tokens
        num_over = response.num_tokens - (self.max_tokens - buffer)
        return -self.settings.factor * min(max(num_over / buffer, 0.0), 1.0)


@configurable
@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """A bonus for answers that match a pattern."""

    pattern: Annotated[str, MinLen(1), MaxLen(1_000)]
    """Regular expression that is searched in the answer."""
    weight: Annotated[float, Ge(-1_000), Le(1_000)] = 0.1
    """Added to the reward when it matches."""

    def __post_init__(self) -> None:
        check_pattern("pattern", self.pattern)
        require(math.isfinite(self.weight), "weight", self.weight, "finite")
        require(self.weight != 0, "weight", self.weight, "another number than 0; for no bonus leave the section out")


@dataclass(frozen=True, kw_only=True)
class FormatReward:
    """Adds the weight when the regular expression is found in the response (`.` also matches line ends).

    Not trusted: a pattern may take exponential time on some text, so it runs where a deadline holds.
    """

    settings: FormatSettings
    part: str = "format"
    trusted: bool = False

    def amount(self, response: Response) -> float:
        """Return the weight or 0."""
        is_found = re.search(self.settings.pattern, response.text, re.DOTALL) is not None
        return self.settings.weight if is_found else 0.0


@passes_batches_on
@dataclass(frozen=True)
class ShapedScore:
    """A score function followed by shapings."""

    score: ScoreFunction
    shapings: tuple[Shaping, ...]

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the shaped score."""
        return self.change(self.score(problem, response), response)

    def change(self, score: Score, response: Response) -> Score:
        """Return the score with the parts of all shapings."""
        for shaping in self.shapings:
            score = shape(score, response, shaping)
        return score


def apply_truncation(score: ScoreFunction, truncated: Truncated) -> ScoreFunction:
    """Return the score function with this rule for answers that were cut off, whatever rule it had.

    The rule acts on the verdict, before any shaping.
    """
    if isinstance(score, ShapedScore):
        return replace(score, score=apply_truncation(score.score, truncated))
    if isinstance(score, CombinedScore):
        return score.with_each(lambda inner: apply_truncation(inner, truncated))
    inner = score.score if isinstance(score, WrongIfCut) else score
    return WrongIfCut(inner) if truncated == "wrong" else inner


def shape(score: Score, response: Response, shaping: Shaping) -> Score:
    """Return the score with one more part. What is correct stays correct; what has no reward gets none.

    Raises:
        ValueError: if the score already has a part of that name.
    """
    if score.reward is None:
        return score
    if shaping.part in score.parts:
        raise ValueError(f"the reward already has a part named {shaping.part!r}; give the shaping another `part` name")
    amount = shaping.amount(response)
    return replace(score, reward=score.reward + amount, parts={**score.parts, shaping.part: amount})


def with_shaping(task: Task, shapings: Sequence[Shaping]) -> ProblemSet:
    """Return the task with every score shaped by each of `shapings`, in order."""
    names = [shaping.part for shaping in shapings]
    if len({*names, *BUILT_IN_PARTS}) < len(names) + len(BUILT_IN_PARTS):
        raise ValueError(f"each shaping needs a part name of its own, none of {BUILT_IN_PARTS}; got {names}")
    return ProblemSet(
        name=task.name,
        train=tuple(task.train),
        held_out=tuple(task.held_out),
        score=ShapedScore(task.score, tuple(shapings)),
        trusted=task.trusted and all(shaping.trusted for shaping in shapings),
        environment=environment_of(task),
    )
