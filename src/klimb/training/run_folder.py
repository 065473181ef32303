"""The folder of a run: where everything is, and what is written down about how it came about.

All that a run has written down about itself, read back: of finished runs, of runs that go on, of cut-off ones.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from klimb import experience
from klimb.errors import ConfigError
from klimb.experience import Sample, replace_atomically
from klimb.findings.conversations import is_conversation
from klimb.findings.evaluations import BestPoint, EvaluationRecord, evaluation_of
from klimb.findings.held_out_log import HeldOutComparison
from klimb.findings.run.record import RunRecord
from klimb.training.endings import read_ending
from klimb.training.json_lines import Line, describe_faults, read_lines, read_sound_lines
from klimb.training.run_format import check_format

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")

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
        """How the prompts of training, warm-up and evaluations differ, and what cannot be asked; none without both."""
        return self.path / "prompts.json"

    @property
    def held_out_log(self) -> Path:
        """The held-out rows of the log under the policy before and after training."""
        return self.path / "held_out_log.json"

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
    def adapter(self) -> Path:
        """The trained adapter alone, in peft's format; none where all weights were trained."""
        return self.path / "adapter"

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


def check_can_be_made(path: Path) -> None:
    """Return if a folder at this path can be made and written into; nothing is left there.

    Raises:
        ConfigError: it cannot: the place is read-only, or a file is in the way.
    """
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    probe = nearest / f".{path.name}.tmp-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"a run cannot be kept in {path}: {nearest} cannot be written ({error.strerror}); choose another place "
            "with --folder or run.folder"
        ) from None


def free_folder(path: Path) -> Path:
    """Return the path itself if nothing is there, else the first of `path-2`, `path-3`, … that is free."""
    return path if not path.exists() else _first_free(path, start=2)


def claim_folder(path: Path, *, is_numbered: bool) -> Path:
    """Make the folder of a new run and return it: of two processes that want one name, one makes it.

    Args:
        path: the folder wanted; one that is there and empty will do.
        is_numbered: if somebody has it, make the first of `path-2`, `path-3`, … instead.

    Raises:
        ConfigError: there is something already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_numbered:
        check_is_free(path)
    wanted = path
    while True:
        try:
            wanted.mkdir()
            return wanted
        except FileExistsError:
            if not is_numbered:
                _claim_empty(path)
                return path
            wanted = free_folder(path)


def _claim_empty(path: Path) -> None:
    """Take an empty folder that was there before; its lock file, which every run has, decides who has it."""
    try:
        (path / "lock").open("x").close()
    except FileExistsError:
        check_is_free(path)


def move_aside(path: Path) -> Path | None:
    """Rename what is at the path to `path-1`, `path-2`, … and returns the new name; None if nothing was there."""
    if not path.exists():
        return None
    while True:
        aside = _first_free(path, start=1)
        try:
            # An empty folder of that name would be replaced, and is what another process has just made.
            aside.mkdir()
        except FileExistsError:
            continue
        path.rename(aside)
        return aside


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    with replace_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")


def put_aside(path: Path) -> Path:
    """Rename a file to `NAME.damaged-1`, `-2`, … and return the new path."""
    aside = free_name(path)
    path.rename(aside)
    return aside


def read_object(path: Path) -> tuple[dict[str, Any], str]:
    """Return the object in a JSON file and what is wrong with the file: one of them is empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"it is not valid JSON: {error}" if path.stat().st_size else "it is empty"
    if not isinstance(content, dict):
        return {}, f"it must hold an object, got a {type(content).__name__}"
    return content, ""


def free_name(path: Path) -> Path:
    """Return the first of `NAME.damaged-1`, `-2`, … that is free."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in range(1, MOST_NUMBERED))
    return next(name for name in names if not name.exists())


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
    if not is_run(path) and not folder.metrics.is_file() and not (path / "identity.json").is_file():
        raise ConfigError(f"{path} holds no run: there is no {folder.metrics.name}; give a run's folder")


def read_run(path: Path) -> RunRecord:
    """Return the record of the run in this folder; files that a run has not written yet count as empty.

    What is damaged is left out: the record names each file and line, and so does the log.

    Raises:
        ConfigError: there is no run, or a newer klimb made it.
    """
    check_holds_run(path)
    folder = RunFolder(path)
    damage: list[str] = []
    identity = _sound_object(path / "identity.json", damage)
    if identity:
        check_format(path / "identity.json", identity.get("format"), made_by=identity.get("klimb"))
    rows = tuple(_sound_rows(folder.metrics, dict, damage))
    record = RunRecord(
        folder=path,
        config=_sound_object(folder.config, damage),
        provenance=_sound_object(folder.provenance, damage),
        rows=rows,
        evaluations=tuple(_sound_rows(folder.evaluations, evaluation_of, damage)),
        guard=_sound_object(path / "guard.json", damage),
        history=tuple(_sound_rows(path / HISTORY_FILE, dict, damage)),
        summary=_sound_object(folder.summary, damage),
        prompt_differences=_differences(about_prompts := _sound_object(folder.prompts, damage)),
        left_out=_left_out(about_prompts),
        conversations=_read_conversations(path / "rollouts", damage) if _has_conversations(rows) else (),
        ending=read_ending(path),
        damage=tuple(damage),
    )
    for note in damage:
        logger.warning("%s/%s; the rest is shown", path, note)
    return record


MOST_CONVERSATIONS = 6
"""Of a run's newest rollouts, so many are read for whoever shows them: the first of as many groups."""


def _has_conversations(rows: Sequence[Mapping[str, object]]) -> bool:
    return any("num_turns_mean" in row for row in rows)


def _read_conversations(rollouts: Path, damage: list[str]) -> tuple[Sample, ...]:
    """Return the first conversation of each of the first groups of the newest step that has been written.

    Where turns are samples of their own it is the last of them: its prompt holds those before.
    """
    newest = max(rollouts.glob("step-*.parquet"), default=None)
    if newest is None:
        return ()
    found: dict[str, Sample] = {}
    try:
        # Through the package, which loads what reads Parquet only now: most commands need none of it.
        for sample in experience.stream_samples(newest):
            if not is_conversation(sample):
                continue
            first = found.get(sample.group_id)
            if first is None and len(found) == MOST_CONVERSATIONS:
                break
            if first is None or (sample.episode and sample.episode == first.episode):
                found[sample.group_id] = sample
    except (experience.SegmentError, OSError) as error:
        damage.append(f"rollouts/{newest.name}: {error}")
    return tuple(found.values())


def _sound_object(path: Path, damage: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content, why = read_object(path)
    if why:
        damage.append(f"{path.name}: {why}")
    return content


def _sound_rows(path: Path, parse: Callable[[Line], Parsed], damage: list[str]) -> list[Parsed]:
    if not path.is_file():
        return []
    rows, faults = parse_lines(path, parse)
    if faults:
        damage.append(f"{path.name}: {faults}")
    return rows


def parse_lines(path: Path, parse: Callable[[Line], Parsed]) -> tuple[list[Parsed], str]:
    """Return what can be read of a file of lines, and which lines cannot and why; empty where all can."""
    found = read_sound_lines(path)
    faults, parsed = dict(found.faults), list[Parsed]()
    for number, line in zip(found.numbers, found.lines, strict=True):
        try:
            parsed.append(parse(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults[number] = f"it is not what a run writes: {type(error).__name__} {error}"
    return parsed, describe_faults(faults, num_lines=len(found.lines) + len(found.faults))


def _differences(content: Mapping[str, Any]) -> tuple[str, ...]:
    found = content.get("differences", ())
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _left_out(content: Mapping[str, Any]) -> tuple[str, ...]:
    found = content.get("left_out", ())
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return tuple(str(row["sentence"]) for row in rows if "sentence" in row)


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


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """Read the records in the order they were made; none without a file. A last line cut short is left out."""
    return [evaluation_of(line) for line in read_lines(path)] if path.exists() else []


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run leaves behind for those who report it.

    Attributes:
        checkpoints: which it has kept, in words.
        ending: why it ended before its last step by itself, in words; empty where it did not.
        best: the best point by `checkpoints.best_metric`; None where none is watched.
        held_out_log: what held-out rows of the log say of the trained policy; None without any.
    """

    folder: RunFolder
    task_name: str
    before: EvaluationRecord | None
    after: EvaluationRecord | None
    num_steps: int
    total_seconds: float
    checkpoints: str = ""
    ending: str = ""
    best: BestPoint | None = None
    held_out_log: HeldOutComparison | None = None


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
