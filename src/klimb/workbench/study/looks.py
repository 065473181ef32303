"""Which analyses of a study there were: whoever adds seeds and looks again tests again, and all looks share the 5 %."""

import fcntl
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.errors import ConfigError
from klimb.findings.study.scores import RunResult, StudyScores
from klimb.training.run_folder import write_json

LOOKS_FILE = "looks.json"


@dataclass(frozen=True)
class Look:
    """An analysis that tested something: how many seeds the study had, and a hash of each finished run."""

    seeds: int
    runs: frozenset[str]


def earlier_looks(folder: Path, scores: StudyScores) -> tuple[int, ...]:
    """Return the number of seeds at each earlier look at some of these runs, when the finished ones were others.

    Raises:
        ConfigError: the file of looks cannot be read.
    """
    with _exclusively(folder):
        return _before(_read(folder), _look_at(scores))


def record_look(folder: Path, scores: StudyScores) -> None:
    """Write down that these runs were looked at; the same runs again are no further look.

    Raises:
        ConfigError: the file of looks cannot be read.
    """
    with _exclusively(folder):
        looks, now = _read(folder), _look_at(scores)
        if all(look.runs != now.runs for look in looks):
            rows = [{"seeds": look.seeds, "runs": sorted(look.runs)} for look in (*looks, now)]
            write_json(folder / LOOKS_FILE, {"looks": rows})


def _before(looks: Sequence[Look], now: Look) -> tuple[int, ...]:
    """Leave out looks at other runs: those begun anew, with other results, were not seen before."""
    at = next((number for number, look in enumerate(looks) if look.runs == now.runs), len(looks))
    return tuple(look.seeds for look in looks[:at] if look.runs & now.runs)


def _look_at(scores: StudyScores) -> Look:
    finished = [run for run in scores.runs if run.is_scored]
    return Look(len({run.seed for run in finished}), frozenset(map(_hash_of, finished)))


def _hash_of(run: RunResult) -> str:
    points = [[point.num_tokens, point.mean, *point.problems] for point in run.evaluations]
    content = json.dumps([run.task, run.method, run.setting, run.seed, points])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read(folder: Path) -> tuple[Look, ...]:
    path = folder / LOOKS_FILE
    if not path.is_file():
        return ()
    try:
        return tuple(map(_look_of, json.loads(path.read_text(encoding="utf-8"))["looks"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} does not hold the looks at this study ({type(error).__name__}: {error}), so how often it was "
            "looked at is not known; restore the file, or delete it if nobody has seen a result of these runs"
        ) from error


def _look_of(row: Mapping[str, Any]) -> Look:
    return Look(int(row["seeds"]), frozenset(str(name) for name in row["runs"]))


@contextmanager
def _exclusively(folder: Path) -> Generator[None]:
    """Hold the file for this process alone: several compares of a study may end at the same time."""
    path = folder / "locks" / ".looks"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
