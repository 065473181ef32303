"""What a deployment decided, one line of JSON each, and never twice after a crash."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from klimb.training.json_lines import read_lines

FILE = "decisions.jsonl"


Outcome = Literal["promoted", "trial", "rejected", "superseded", "stopped", "rolled back"]


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """One decision.

    Attributes:
        time: seconds since the epoch.
        round: number of the round of learning; 0 for what a person did.
        outcome: what was decided.
        candidate: name of the policy that it is about.
        serving: name of the policy that answered before.
        reason: one or two sentences with the numbers.
        num_ratings: that were looked at.
        capital: of the bet that the candidate is better; 1 before any rating.
        level: chance of promoting it if it is not better.
    """

    time: float
    round: int
    outcome: Outcome
    candidate: str
    serving: str
    reason: str
    num_ratings: int = 0
    capital: float = 1.0
    level: float = 0.0


def read_history(folder: Path) -> list[DecisionRow]:
    """Return the decisions of the deployment in their order; none without a file."""
    path = folder / FILE
    return [DecisionRow(**row) for row in read_lines(path)] if path.exists() else []


def append_decision(folder: Path, row: DecisionRow) -> None:
    """Add the decision, on the disk when this returns; one of this round with this outcome is not added twice."""
    if row.round and any((each.round, each.outcome) == (row.round, row.outcome) for each in read_history(folder)):
        return
    path = folder / FILE
    _mend_end(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _mend_end(path: Path) -> None:
    """Cut off a last line that a crash left without its end."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
