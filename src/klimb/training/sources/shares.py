"""How much of each batch comes from where: fresh rollouts, replayed ones, logs, and feedback."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from klimb.declarations import Count, configurable
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


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """The shares of a batch's groups.

    Attributes:
        shares: source -> share; they add up to 1.
        replay: which earlier rollouts may be used again.
        lag: collections between drawing a batch and training on it, as between asynchronous actors and a learner.
            The first `lag` batches are all drawn by the untrained policy.
    """

    shares: Mapping[Source, float] = field(default_factory=lambda: {"rollout": 1.0})
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    lag: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.shares if name not in SOURCES]
        if unknown:
            raise ValueError(f"unknown source {unknown[0]!r}; there are {', '.join(SOURCES)}")
        values = list(self.shares.values())
        if not all(math.isfinite(value) and value >= 0 for value in values) or not math.isclose(sum(values), 1):
            raise ValueError(f"the shares must be >= 0 and add up to 1, got {dict(self.shares)}")
        if self.share("replay") > 0 and self.share("rollout") == 0:
            raise ValueError("a share of replay needs a share of rollouts: without them there is nothing to replay")
        if self.lag < 0:
            raise ValueError(f"lag must be >= 0 collections, got {self.lag}")
        if self.lag and self.share("rollout") < 1:
            raise ValueError("lag delays every batch as a whole; use it with rollouts only")

    def share(self, source: Source) -> float:
        """Return the share of one source."""
        return self.shares.get(source, 0.0)

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

    @property
    def is_plain(self) -> bool:
        """True if all that is trained on was drawn at the same step."""
        return self.share("rollout") == 1 and self.lag == 0
