"""What came of a program: how it ended, and the reward in what it printed."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass

from klimb.tasks.shown_text import shown_line

REWARD = "reward"
"""Key of the reward in the last JSON object that a program prints."""


@dataclass(frozen=True, kw_only=True)
class ProgramEnd:
    """How a program ended.

    Attributes:
        error: why its sample is lost, in one line; empty where it is not.
        reward: that it printed; None where it printed none.
        seconds: in which it was waited for, those of its start among them.
        is_out_of_time: whether it took too long and was ended.
    """

    error: str = ""
    reward: float | None = None
    seconds: float = 0.0
    is_out_of_time: bool = False


def read_end(status: int, output: bytes, errors: bytes, *, seconds: float) -> ProgramEnd:
    """Return what a program that ended by itself leaves behind.

    Args:
        status: its exit code, or minus the signal that ended it.
        output: the end of what it printed.
        errors: the end of what it printed as errors.
        seconds: in which it was waited for.
    """
    if status:
        how = f"exit code {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        said = _last_line(errors)
        why = f"the program ended with {how}{': ' if said else ''}{said}"
        return ProgramEnd(error=shown_line(why), seconds=seconds)
    try:
        return ProgramEnd(reward=find_reward(output.decode(errors="replace")), seconds=seconds)
    except ValueError as error:
        return ProgramEnd(error=shown_line(str(error)), seconds=seconds)


def find_reward(output: str) -> float | None:
    """Return the reward in the last line that is a JSON object; None where there is none.

    Raises:
        ValueError: it is no finite number.
    """
    for line in reversed(output.splitlines()):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            return _number(said.get(REWARD))
    return None


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the program printed the reward {value!r}, expected a finite number")
    return float(value)


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
