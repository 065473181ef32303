"""The sections that say which experience a batch is made of: fresh, replayed, logged, or people's feedback."""

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, StringConstraints, model_validator

from klimb.declarations import Fraction, PathText
from klimb.workbench.config.bounds import SECTION, in_plain_words

Condition = Annotated[
    str, StringConstraints(max_length=2_000), in_plain_words("a condition such as \"reward >= 0.5 and model = 'm'\"")
]


class SourcesSection(BaseModel):
    """The shares of each batch's groups; they add up to 1. A baseline never compares across sources."""

    model_config = SECTION

    rollout: Fraction = 1.0
    """Drawn now by the policy. Without this key: what the other shares leave."""
    replay: Fraction = 0.0
    """Rollouts of earlier steps of this run, as [replay] says; fresh ones stand in where there are too few."""
    log: Fraction = 0.0
    """Logged samples from [log]."""
    feedback: Fraction = 0.0
    """Rated samples from [feedback]."""

    @model_validator(mode="before")
    @classmethod
    def _take_what_is_left(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "rollout" in given:
            return given
        others = [given.get(name, 0.0) for name in ("replay", "log", "feedback")]
        if not all(isinstance(share, int | float) for share in others):
            return given
        return {**given, "rollout": max(0.0, round(1.0 - sum(others), 12))}

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = self.rollout + self.replay + self.log + self.feedback
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(
                f"the shares add up to {total:g}, expected 1: rollout = {self.rollout:g}, replay = {self.replay:g}, "
                f"log = {self.log:g}, feedback = {self.feedback:g}"
            )
        return self


class StoreSection(BaseModel):
    """Samples that this run did not draw."""

    model_config = SECTION

    path: PathText
    """A store that `klimb import` made, a run's folder, or one of its Parquet files."""
    where: Condition = ""
    """Take only samples for which this holds: SQL over their columns, e.g. `reward is not null`."""
