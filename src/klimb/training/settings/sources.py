"""How much of each batch comes from where: fresh rollouts, replayed ones, logs, and feedback."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from klimb.declarations import Count, Fraction, configurable
from klimb.experience.samples import Source

SOURCES: tuple[Source, ...] = get_args(Source)


ReplayRule = Literal["uniform", "recent", "hard"]


RULES: tuple[str, ...] = get_args(ReplayRule)


@configurable
@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Which earlier rollouts may be used again."""

    max_age: Count = 64
    """In policy versions (optimiser steps since a group was drawn); an older group is dropped."""
    rule: ReplayRule = "uniform"
    """Any group alike, the youngest first, or the one with the lowest mean reward first."""
    max_groups: Count = 10_000
    """The oldest groups beyond this many are dropped."""

    def __post_init__(self) -> None:
        if self.max_age < 1 or self.max_groups < 1:
            raise ValueError(f"max_age and max_groups must be >= 1, got {self.max_age} and {self.max_groups}")
        if self.rule not in RULES:
            raise ValueError(f"unknown replay rule {self.rule!r}; there are {', '.join(RULES)}")


@configurable
@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """The shares of each batch's groups; they add up to 1. A baseline never compares across sources."""

    rollout: Fraction | None = None
    """Drawn now by the policy. Without this key: what the other shares leave."""
    replay: Fraction = 0.0
    """Rollouts of earlier steps of this run, as [replay] says; fresh ones stand in where there are too few."""
    log: Fraction = 0.0
    """Logged samples from [log]."""
    feedback: Fraction = 0.0
    """Rated samples from [feedback]."""

    def __post_init__(self) -> None:
        if self.rollout is None:
            left = round(1.0 - self.replay - self.log - self.feedback, 12)
            object.__setattr__(self, "rollout", max(0.0, left))
        shares = {name: self.share(name) for name in SOURCES}
        total = sum(shares.values())
        if not all(share >= 0 for share in shares.values()) or not math.isclose(total, 1.0, abs_tol=1e-9):
            named = ", ".join(f"{name} = {share:g}" for name, share in shares.items())
            raise ValueError(f"the shares add up to {total:g}, expected 1, each from 0 to 1: {named}")
        if self.replay > 0 and self.rollout == 0:
            raise ValueError("sources.replay needs a share of sources.rollout: without it there is nothing to replay")

    def share(self, source: Source) -> float:
        """Return the share of one source."""
        return getattr(self, source) or 0.0

    def num_groups(self, total: int) -> dict[Source, int]:
        """How many of a batch's groups each source gives: largest remainders, the first source winning ties.

        A source whose share is not 0 may get none if the batch is small.
        """
        exact = {source: self.share(source) * total for source in SOURCES}
        counts: dict[Source, int] = {source: int(exact[source]) for source in SOURCES}
        by_remainder = sorted(SOURCES, key=lambda source: counts[source] - exact[source])
        for source in by_remainder[: total - sum(counts.values())]:
            counts[source] += 1
        return counts
