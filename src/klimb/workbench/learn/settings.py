"""What `klimb learn` is told: when it learns, what judges, and how sure it must be. Read without torch."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from cyclopts import Parameter

from klimb.errors import ConfigError
from klimb.findings.promotion_rules import Spending

Start = Literal["serving", "first"]


EVERY = re.compile(r"^(?P<number>\d+)-(?P<unit>ratings?|days?|hours?)$")


SECONDS = {"hour": 3_600.0, "day": 86_400.0}


@dataclass(frozen=True, kw_only=True)
class Every:
    """When a round of learning is due: after so many new rated answers, or so many seconds with one at least.

    Attributes:
        num_ratings: answers that were rated since the last round began.
        seconds: since the last round began; 0 where the number alone says when.
    """

    num_ratings: int
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Every":
        """Return what `200-ratings`, `1-day` or `6-hours` says.

        Raises:
            ConfigError: it is none of these.
        """
        found = EVERY.fullmatch(text.strip())
        if found is None or int(found["number"]) < 1:
            raise ConfigError(f"--every {text}: expected e.g. 200-ratings, 6-hours or 1-day")
        unit = found["unit"].removesuffix("s")
        if unit == "rating":
            return cls(num_ratings=int(found["number"]))
        return cls(num_ratings=1, seconds=int(found["number"]) * SECONDS[unit])


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How a deployment learns: what `klimb learn` is asked.

    Attributes:
        every: When a round is due: `200-ratings`, `6-hours` or `1-day`.
        held_out_fraction: Share of the users (or prompts, where users say too little) whose ratings judge and never
            train.
        alpha: Chance that a candidate that is not better is promoted, over all looks.
        spending: Whether `each` candidate has alpha, or `all` between two promotions share it.
        give_up_after: Ratings after which a candidate that is not shown to be better is rejected.
        candidate_fraction: Share of the requests that a candidate gets first; its live ratings then decide. With 0 the
            held-out ratings do.
        start: What training begins from, and its reference: the `serving` policy, or the deployment's `first`.
        rating_range: The least and the largest rating that there can be.
        look_every: New ratings between two looks.
        seed: Of the split.
    """

    every: str = "200-ratings"
    held_out_fraction: float = 0.25
    alpha: float = 0.05
    spending: Spending = "each"
    give_up_after: int = 1_000
    candidate_fraction: float = 0.0
    start: Start = "serving"
    rating_range: tuple[float, float] = (0.0, 1.0)
    look_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        Every.parse(self.every)
        checks = {
            "--held-out-fraction must be above 0 and at most 0.5": 0 < self.held_out_fraction <= 0.5,
            "--alpha must be in (0, 1)": 0 < self.alpha < 1,
            "--give-up-after must be at least 20": self.give_up_after >= 20,
            "--candidate-fraction must be in [0, 1)": 0 <= self.candidate_fraction < 1,
            "--rating-range takes two numbers, the lower one first": self.is_range,
            "--look-every must be at least 1": self.look_every >= 1,
        }
        for said, holds in checks.items():
            if not holds:
                raise ConfigError(f"{said}; got {self}")

    @property
    def due(self) -> Every:
        """When a round is due."""
        return Every.parse(self.every)

    @property
    def is_range(self) -> bool:
        """Whether the rating range is one."""
        low, high = self.rating_range
        return math.isfinite(low) and math.isfinite(high) and low < high

    def scaled(self, rating: float, *, sample_id: str) -> float:
        """Return the rating within [0, 1].

        Raises:
            ConfigError: it is outside of the range that was given.
        """
        low, high = self.rating_range
        if not low <= rating <= high:
            raise ConfigError(
                f"the rating {rating:g} of sample {sample_id} is outside of {low:g} to {high:g}: say what ratings can "
                "be, --rating-range LOW HIGH"
            )
        return (rating - low) / (high - low)
