"""One round of learning as it stands on the disk: how far it came, and what judged its candidate so far."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from klimb.experience.atomic import replace_atomically
from klimb.findings.promotion import LiveRating, PreferredChange, RatedChange
from klimb.training.json_lines import read_lines

Stage = Literal["snapshot", "audit", "train", "check", "judge", "live", "over"]


STAGES: tuple[Stage, ...] = ("snapshot", "audit", "train", "check", "judge", "live", "over")
"""In their order. Each is done again as a whole after a crash; training goes on from its newest checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One candidate, from the ratings that train it to the decision about it.

    Attributes:
        number: from 1 on.
        stage: what is to be done next.
        serving: name of the policy that it is compared with.
        candidate: the name that it has if it is promoted.
        num_said: answers that people had spoken of when it began.
        began_at: seconds since the epoch.
        rank: number of the candidate since the last promotion, from 1 on.
        trial_since: seconds since the epoch when its share of the traffic began; 0 without.
        num_looked_at: observations at the last look; -1 before the first one.
    """

    number: int
    stage: Stage
    serving: str
    candidate: str
    num_said: int
    began_at: float
    rank: int
    trial_since: float = 0.0
    num_looked_at: int = -1


@dataclass(frozen=True)
class RoundFolder:
    """Where a round is kept."""

    path: Path

    @property
    def experience(self) -> Path:
        """The ratings that train: a store of its own, removed when the round is over."""
        return self.path / "experience"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.path / "run"

    @property
    def guard(self) -> Path:
        """What the guard measured of both policies."""
        return self.path / "guard.json"

    @property
    def evidence(self) -> Path:
        """What judged, one observation a line. Only ever added to: what was looked at once stays as it was."""
        return self.path / "evidence.jsonl"

    def read(self) -> Round:
        """Return the round."""
        return Round(**json.loads((self.path / "round.json").read_text(encoding="utf-8")))

    def write(self, state: Round, **changes: Any) -> Round:
        """Write the round with these changes, and return it: whole, or after a crash what was there before."""
        changed = replace(state, **changes)
        self.path.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self.path / "round.json") as aside:
            aside.write_text(json.dumps(asdict(changed), indent=1) + "\n", encoding="utf-8")
        return changed

    def read_evidence(self) -> list[Mapping[str, Any]]:
        """Return the observations in their order."""
        return [dict(row) for row in read_lines(self.evidence)] if self.evidence.exists() else []

    def add_evidence(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add observations: all of them or, after a crash, none."""
        lines = [json.dumps(row) + "\n" for row in (*self.read_evidence(), *rows)]
        with replace_atomically(self.evidence) as aside:
            aside.write_text("".join(lines), encoding="utf-8")


def rounds_of(deployment: Path) -> list[RoundFolder]:
    """Return the rounds of the deployment, the latest last."""
    found = sorted((deployment / "rounds").glob("[0-9]*/round.json"))
    return [RoundFolder(path.parent) for path in found]


def folder_of(deployment: Path, number: int) -> RoundFolder:
    """Return the folder of the round of this number."""
    return RoundFolder(deployment / "rounds" / f"{number:04d}")


def held_out_rows(rows: Iterable[Mapping[str, Any]]) -> list[RatedChange | PreferredChange]:
    """Return the observations of held-out ratings."""
    found: list[RatedChange | PreferredChange] = []
    for row in rows:
        if row["kind"] == "rating":
            own = bool(row["is_of_serving"])
            found.append(RatedChange(rating=row["rating"], change=row["change"], is_of_serving=own))
        elif row["kind"] == "preference":
            found.append(PreferredChange(better=row["better"], worse=row["worse"]))
    return found


def live_rows(rows: Iterable[Mapping[str, Any]]) -> list[LiveRating]:
    """Return the observations of the traffic."""
    return [
        LiveRating(rating=row["rating"], is_of_candidate=row["is_of_candidate"])
        for row in rows
        if row["kind"] == "live"
    ]


def disk_is_safe(path: Path) -> None:
    """Return once all files below the path are on the disk."""
    for file in (each for each in path.rglob("*") if each.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
