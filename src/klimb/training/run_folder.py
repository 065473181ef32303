"""The folder of a run: where everything is, and what is written down about how it came about.

All that a run has written down about itself, read back: of finished runs, of runs that go on, of cut-off ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.errors import ConfigError
from klimb.findings.evaluations import BestPoint, EvaluationRecord, evaluation_of
from klimb.findings.run.record import Row, RunRecord
from klimb.training.json_lines import read_lines
from klimb.training.metrics import read_metrics

MOST_NUMBERED = 10_000


HISTORY_FILE = "config_history.jsonl"
"""One line of JSON for each setting that a resume changed."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, every default filled in."""
        return self.path / "config.json"

    @property
    def provenance(self) -> Path:
        """Seed, commits of klimb and of the user's repository, versions, hashes of data and own parts."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON per step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One line of JSON per evaluation, with every problem."""
        return self.path / "evaluations.jsonl"

    @property
    def prompts(self) -> Path:
        """How the prompts of training, warm-up and evaluations differ; there is none where they do not."""
        return self.path / "prompts.json"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.path / "model"

    @property
    def summary(self) -> Path:
        """The sign that the run is finished, with what its other files say in short."""
        return self.path / "summary.json"


def is_run(path: Path) -> bool:
    """Return True if a run has begun in this folder."""
    # Not its config.json: a model's folder has a file of that name too.
    return RunFolder(path).provenance.is_file()


def check_is_free(path: Path) -> None:
    """Return if a run can begin in this folder.

    Raises:
        ConfigError: there is something already: nothing is ever written over.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        hint = f"continue it with klimb train --resume {path}, or choose" if is_run(path) else "choose"
        raise ConfigError(f"{path} already exists and is not empty; {hint} another folder with --folder")


def free_folder(path: Path) -> Path:
    """Return the path itself if nothing is there, else the first of `path-2`, `path-3`, … that is free."""
    return path if not path.exists() else _first_free(path, start=2)


def move_aside(path: Path) -> Path | None:
    """Rename what is at the path to `path-1`, `path-2`, … and returns the new name; None if nothing was there."""
    if not path.exists():
        return None
    aside = _first_free(path, start=1)
    path.rename(aside)
    return aside


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(path)


def _first_free(path: Path, *, start: int) -> Path:
    for number in range(start, MOST_NUMBERED):
        candidate = path.with_name(f"{path.name}-{number}")
        if not candidate.exists():
            return candidate
    raise ConfigError(f"there are {MOST_NUMBERED} folders named {path.name}-<number> in {path.parent}; tidy up")


def check_holds_run(path: Path) -> None:
    """Return if a run has begun in this folder, or left its metrics there.

    Raises:
        ConfigError: there is none.
    """
    folder = RunFolder(path)
    if not is_run(path) and not folder.metrics.is_file():
        raise ConfigError(f"{path} holds no run: there is no {folder.metrics.name}; give a run's folder")


def read_run(path: Path) -> RunRecord:
    """Return the record of the run in this folder; files that a run has not written yet count as empty.

    Raises:
        ConfigError: there is no run, or one of its files is not what a run writes.
    """
    check_holds_run(path)
    folder = RunFolder(path)
    return RunRecord(
        folder=path,
        config=read_tables(folder.config),
        provenance=read_tables(folder.provenance),
        rows=_rows(folder.metrics),
        evaluations=_evaluations(folder),
        guard=read_tables(path / "guard.json"),
        history=tuple(read_history(path)),
        summary=read_tables(folder.summary),
        prompt_differences=tuple(map(str, read_tables(folder.prompts).get("differences", ()))),
    )


def read_tables(path: Path) -> dict[str, Any]:
    """Return what a file of JSON tables holds; empty where there is no file.

    Raises:
        ConfigError: it is not valid, or no table.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); was it edited?") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold an object, got a {type(content).__name__}")
    return content


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return what resumes changed, in order: `step` (the last one with the old value), `key`, `old`, `new`, `time`.

    Raises:
        ConfigError: the file is not what a run writes.
    """
    history = path / HISTORY_FILE
    try:
        return read_lines(history) if history.is_file() else []
    except ValueError as error:
        raise ConfigError(f"{history}: {error}; was it edited?") from None


def _rows(path: Path) -> tuple[Row, ...]:
    try:
        return tuple(read_metrics(path)) if path.is_file() else ()
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; was it edited?") from None


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """Read the records in the order they were made; none without a file. A last line cut short is left out."""
    return [evaluation_of(line) for line in read_lines(path)] if path.exists() else []


def _evaluations(folder: RunFolder) -> tuple[EvaluationRecord, ...]:
    try:
        return tuple(read_evaluations(folder.evaluations))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder.evaluations} is not what a run writes ({error!r}); was it edited?") from None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run leaves behind for those who report it.

    Attributes:
        ending: why it ended before its last step by itself, in words; empty where it did not.
        best: the best point by `checkpoints.best_metric`; None where none is watched.
    """

    folder: RunFolder
    task_name: str
    before: EvaluationRecord | None
    after: EvaluationRecord | None
    num_steps: int
    total_seconds: float
    ending: str = ""
    best: BestPoint | None = None


def flat_settings(tables: Mapping[str, object], *, above: str = "") -> dict[str, str | int | float | bool]:
    """Nested tables with dotted keys; lists as text."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in tables.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            flat |= flat_settings({str(name): inner for name, inner in value.items()}, above=f"{path}.")
        elif isinstance(value, str | int | float | bool):
            flat[path] = value
        else:
            flat[path] = str(value)
    return flat
