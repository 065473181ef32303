"""The section that says how the model's quality is watched."""

import re
from dataclasses import fields
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from klimb.declarations import Count, Fraction, PathText, ShortText
from klimb.training.settings import GuardLimits, GuardSettings
from klimb.workbench.config.bounds import SECTION

Limit = Fraction | Literal["none"]


class GuardSection(BaseModel):
    """Base metrics before, during and after training, and what happens when they get worse."""

    model_config = SECTION

    every_steps: Count = 10
    """Collections between two measurements; there is one before training and one at its end besides."""
    text: Literal["built-in", "none"] | PathText = "built-in"
    """Text file whose perplexity is measured; `built-in` is a text of 1,657 words, English and some code."""
    general: Annotated[tuple[ShortText, ...], Field(strict=False, max_length=50)] = ("everyday",)
    """Sets of general problems: `everyday` (40 questions), or datasets of reasoning-gym such as `chain_sum`."""
    num_problems: Annotated[int, Field(ge=1, le=10_000)] = 40
    """Problems of each set, at most; each is answered once, with the likeliest tokens."""
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Longest answer to a general problem, in tokens."""
    format: Annotated[str, StringConstraints(max_length=1_000)] = ""
    """Regular expression to be found in every rollout; empty takes that of scoring.format, if there is one."""
    max_perplexity_ratio: Annotated[float, Field(ge=1, le=1_000)] | Literal["none"] = 1.2
    """Limit of the perplexity over the one before training."""
    max_general_drop: Limit = 0.1
    """Limit of the fall of the mean score on the general problems."""
    max_empty_fraction: Limit = 0.2
    """Limit of the share of empty responses, of the general answers and of the rollouts alike."""
    max_refusal_fraction: Limit = 0.2
    """Limit of the share of responses that decline to answer."""
    max_repetition_fraction: Limit = 0.3
    """Limit of the share of responses that end in a loop."""
    min_format_fraction: Limit = "none"
    """Limit of the share of rollouts in which `format` is found."""
    action: Literal["warn", "stop", "rollback"] = "warn"
    """Beyond a limit: say so, end the run, or go back to the newest checkpoint at which no limit was broken."""
    rollback_learning_rate_factor: Annotated[float, Field(gt=0, le=1)] | Literal["stop"] = "stop"
    """After a rollback: `stop` ends the run with the good weights; a number goes on with the learning rate times it."""
    max_rollbacks: Annotated[int, Field(ge=1, le=1_000)] = 3
    """So many; the next broken limit then ends the run, rolled back."""

    @model_validator(mode="after")
    def _check_what_fits_together(self) -> Self:
        try:
            re.compile(self.format, re.DOTALL)
        except re.error as error:
            raise ValueError(f"guard.format {self.format!r} is not a regular expression: {error}") from error
        repeated = sorted({name for name in self.general if self.general.count(name) > 1})
        if repeated:
            raise ValueError(f"guard.general names {repeated[0]!r} twice; each set once is enough")
        return self


def guard_settings(section: GuardSection | None) -> GuardSettings | None:
    """Return what the loop is told; None without the section."""
    if section is None:
        return None
    limits = {field.name: getattr(section, field.name) for field in fields(GuardLimits)}
    factor = section.rollback_learning_rate_factor
    return GuardSettings(
        every_steps=section.every_steps,
        limits=GuardLimits(**{name: None if limit == "none" else limit for name, limit in limits.items()}),
        action=section.action,
        rollback_learning_rate_factor=None if factor == "stop" else factor,
        max_rollbacks=section.max_rollbacks,
    )
