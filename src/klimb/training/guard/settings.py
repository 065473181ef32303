"""What the guard of a run measures, the limits it sets, and what it does beyond one. Read without torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen

from klimb.declarations import Count, Fraction, FromList, OrWord, PathText, ShortText, configurable
from klimb.findings.guard.thresholds import THRESHOLDS
from klimb.tasks.patterns import check_pattern
from klimb.tasks.reasoning_gym import check_dataset
from klimb.training.guard.checks import check_check

EVERYDAY = "everyday"
"""The set that is shipped: short questions of general knowledge."""


NUM_EVERYDAY = 40
"""Questions in it."""


Action = Literal["warn", "stop", "rollback"]


PerplexityRatio = Annotated[Annotated[float, Ge(1), Le(1_000)] | None, OrWord("none", None)]


Limit = Annotated[Fraction | None, OrWord("none", None)]


LIMITS = (
    "max_perplexity_ratio",
    "max_general_drop",
    "max_empty_fraction",
    "max_refusal_fraction",
    "max_repetition_fraction",
    "min_format_fraction",
)
"""The keys that are limits; None sets none. Their units and where the defaults come from: the rows of findings."""


@configurable
@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Base metrics before, during and after training, and what happens when they get worse."""

    every_steps: Count = 10
    """Collections between two measurements; there is one before training and one at its end besides."""
    text: Literal["built-in", "none"] | PathText = "built-in"
    """Text file whose perplexity is measured; `built-in` is a text of 1,657 words, English and some code."""
    general: Annotated[tuple[ShortText, ...], FromList(), MaxLen(50)] = ("everyday",)
    """Sets of general problems: `everyday` (40 questions), or datasets of reasoning-gym such as `chain_sum`."""
    num_problems: Annotated[int, Ge(1), Le(10_000)] = 40
    """Problems of each set, at most; each is answered once, with the likeliest tokens."""
    max_new_tokens: Annotated[int, Ge(1), Le(100_000)] = 32
    """Longest answer to a general problem, in tokens."""
    format: Annotated[str, MaxLen(1_000)] = ""
    """Regular expression to be found in every rollout; empty takes that of scoring.format, if there is one."""
    checks: Annotated[tuple[ShortText, ...], FromList(), MaxLen(50)] = ()
    """Checks of your own on answers to held-out prompts: `never:REGEX`, `always:REGEX`, `python:module.function` or
    `model:FOLDER`; the last two are rewards, and below 0.5 is a violation."""
    max_violation_fraction: Fraction = 0.0
    """Limit of the share of the answers that violate one of `checks`."""
    max_perplexity_ratio: PerplexityRatio = THRESHOLDS.max_perplexity_ratio
    """Limit of the perplexity over the one before training."""
    max_general_drop: Limit = THRESHOLDS.max_general_drop
    """Limit of the fall of the mean score on the general problems."""
    max_empty_fraction: Limit = THRESHOLDS.max_empty_fraction
    """Limit of the share of empty responses, of the general answers and of the rollouts alike."""
    max_refusal_fraction: Limit = THRESHOLDS.max_refusal_fraction
    """Limit of the share of responses that decline to answer."""
    max_repetition_fraction: Limit = THRESHOLDS.max_repetition_fraction
    """Limit of the share of responses that end in a loop."""
    min_format_fraction: Limit = None
    """Limit of the share of rollouts in which `format` is found."""
    false_alarm_rate: Annotated[float, Gt(0), Lt(1)] = THRESHOLDS.false_alarm_rate
    """Chance that a run in which nothing changed sees any alarm, spent over its checks and limits."""
    action: Action = "warn"
    """Beyond a limit: say so, end the run, or go back to the newest checkpoint at which no limit was broken."""
    rollback_learning_rate_factor: Annotated[Annotated[float, Gt(0), Le(1)] | None, OrWord("stop", None)] = None
    """After a rollback: `stop` ends the run with the good weights; a number goes on with the learning rate times it."""
    max_rollbacks: Annotated[int, Ge(1), Le(1_000)] = 3
    """So many; the next broken limit then ends the run, rolled back."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "num_problems", "max_new_tokens", "max_rollbacks"):
            if getattr(self, name) < 1:
                raise ValueError(f"guard.{name} must be >= 1, got {getattr(self, name)}")
        for name in LIMITS:
            _check_limit(name, getattr(self, name), least=1.0 if name == "max_perplexity_ratio" else 0.0)
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"guard.false_alarm_rate must be in (0, 1), got {self.false_alarm_rate}; 0.05 is usual")
        if self.action not in get_args(Action):
            raise ValueError(f"unknown guard.action {self.action!r}; there are {', '.join(get_args(Action))}")
        factor = self.rollback_learning_rate_factor
        if factor is not None and not 0 < factor <= 1:
            raise ValueError(
                f"guard.rollback_learning_rate_factor must be in (0, 1], or None to end the run, got {factor}"
            )
        if not 0 <= self.max_violation_fraction <= 1:
            raise ValueError(f"guard.max_violation_fraction must be in [0, 1], got {self.max_violation_fraction}")
        for check in self.checks:
            check_check(check)
        _check_general(self.general)
        _check_format(self.format)


def _check_limit(name: str, value: float | None, *, least: float) -> None:
    if value is not None and not (math.isfinite(value) and value >= least):
        raise ValueError(f"guard.{name} must be finite and >= {least:g}, or None for no limit, got {value}")


def _check_general(names: tuple[str, ...]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"guard.general names {repeated[0]!r} twice; each set once is enough")
    for name in names:
        if name != EVERYDAY:
            check_dataset(name, setting="guard.general", besides=EVERYDAY)


def _check_format(pattern: str) -> None:
    if pattern:
        check_pattern("guard.format", pattern)
