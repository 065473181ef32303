"""What the scoring of a run can be told. Read without what starts processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

from annotated_types import Ge, Gt, Le

from klimb.declarations import Fraction, OrWord, configurable, require, require_known
from klimb.tasks.shaping import FormatReward, FormatSettings, OverlongSettings, OverlongShaping, Shaping
from klimb.tasks.truncation import Truncated


@configurable
@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """The processes that score answers, and what happens when they cannot."""

    timeout_seconds: Annotated[float, Gt(0), Le(3_600)] = 5.0
    """An answer whose scoring takes longer is an error sample: counted, and left out of the averages. Answers that are
    scored together may take so long each, all in all."""
    num_workers: Annotated[int, Ge(1), Le(256)] = 1
    """Processes that score answers side by side."""
    max_concurrent: Annotated[int, Ge(1), Le(10_000)] = 16
    """Answers that wait for an `async` reward at the same time, in each process."""
    max_error_fraction: Fraction = 0.5
    """The run stops when more than this share of the answers could not be scored."""
    memory_limit_gigabytes: Annotated[Annotated[float, Gt(0), Le(100_000)] | None, OrWord("none", None)] = 8.0
    """Memory of a scoring process, or `none`; a reward model is not put under it."""
    truncated: Truncated = "wrong"
    """An answer that was cut off at the token limit: `wrong` says that it is not right, and takes from its reward what
    it earned for that (its part `correct`; all of it where there is no such part). `as-written` scores what is there. A
    reward that says nothing of right and wrong is the same under both."""

    def __post_init__(self) -> None:
        memory = self.memory_limit_gigabytes
        require(self.timeout_seconds > 0, "timeout_seconds", self.timeout_seconds, "> 0")
        require(self.num_workers >= 1, "num_workers", self.num_workers, ">= 1")
        require(self.max_concurrent >= 1, "max_concurrent", self.max_concurrent, ">= 1")
        require(0 <= self.max_error_fraction <= 1, "max_error_fraction", self.max_error_fraction, "in [0, 1]")
        require_known("truncated", self.truncated, get_args(Truncated))
        require(memory is None or memory > 0, "memory_limit_gigabytes", memory, "> 0, or None for no limit")


@configurable
@dataclass(frozen=True, kw_only=True)
class ScoringSettings(ScorerSettings):
    """How answers are scored, whatever the task."""

    overlong: OverlongSettings | None = None
    """Soft punishment of overlong answers; without this section there is none."""
    format: FormatSettings | None = None
    """Bonus for a format; without this section there is none."""

    def shapings(self, *, max_tokens: int) -> tuple[Shaping, ...]:
        """Return what is added to every reward, where an answer is cut after so many tokens."""
        overlong = None if self.overlong is None else OverlongShaping(settings=self.overlong, max_tokens=max_tokens)
        form = None if self.format is None else FormatReward(settings=self.format)
        return tuple(shaping for shaping in (overlong, form) if shaping is not None)
