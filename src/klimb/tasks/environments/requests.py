"""What is asked of whoever holds environments, in this process or in one of its own. Answers are values of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klimb.experience.samples import ToolCall


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Make an environment, say what it offers, and throw it away."""


@dataclass(frozen=True, kw_only=True)
class Open:
    """Make an environment and reset it.

    Attributes:
        number: what it is called from now on.
        row: the problem's, by column.
        seed: of its random numbers.
    """

    number: int
    row: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Tell it a turn of the policy.

    Attributes:
        number: of the environment.
        text: the turn as the policy wrote it.
        calls: the tools that it asks for.
        error: what could not be read of the calls.
    """

    number: int
    text: str
    calls: tuple[ToolCall, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Ask it for its reward, and for a copy of itself where reward functions want to see it."""

    number: int
    with_view: bool


@dataclass(frozen=True, kw_only=True)
class Close:
    """Let it close what it opened, and forget it."""

    number: int


Request = Inspect | Open | Tell | Finish | Close
