"""From the names in `run.loggers` to trackers, and back to the same logger's run when the run is resumed."""

import json
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from klimb.errors import ConfigError
from klimb.training.run_folder import RunFolder, write_json
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.loggers.logger import LoggedRun
from klimb.workbench.loggers.registry import logger_named
from klimb.workbench.loggers.tracker import AllTrackers, FailSafeTracker, Tracker

IDS_FILE = "loggers.json"
"""In the run's folder: under which id each logger keeps it."""


Settings = Mapping[str, str | int | float | bool]


def check_loggers(names: Iterable[str]) -> None:
    """Return if these loggers can be opened, as far as can be told without doing so.

    Raises:
        ConfigError: a package is not installed, and the message has the command that installs it; or one of the user's
            own is not there.
    """
    for name in names:
        row = logger_named(name)
        if row.package and find_spec(row.package) is None:
            raise ConfigError(
                f"run.loggers has {name!r}, whose package is not installed: pip install {row.install}, "
                f"or leave it out with --set run.loggers=[]"
            )


@contextmanager
def open_trackers(names: Iterable[str], folder: RunFolder, *, settings: Settings) -> Generator[Tracker]:
    """Return the trackers of a run as one, closed at the end.

    Args:
        names: of the loggers.
        folder: the run's.
        settings: the resolved configuration, dotted key -> value.

    Raises:
        ConfigError: one of them cannot start. Once they have all started, a failure is reported and the run goes on.
    """
    started: list[FailSafeTracker] = []
    is_finished = False
    try:
        for name in names:
            started.append(FailSafeTracker(_open(name, folder, settings), name=name))
        yield AllTrackers(started)
        is_finished = True
    finally:
        AllTrackers(started).close(is_finished=is_finished)


def _open(name: str, folder: RunFolder, settings: Settings) -> Tracker:
    ids = _read_ids(folder.path / IDS_FILE)
    row = logger_named(name)
    run = LoggedRun(name=folder.path.resolve().name, folder=folder.path, settings=settings, known_id=ids.get(name, ""))
    try:
        tracker, identity = row.open(run)
    # Other people's code: a wrong key, a server that is not there, a full disk. Each has an error of its own.
    except Exception as error:
        advice = f"; {row.advice}" if row.advice else ""
        raise ConfigError(
            f"run.loggers has {name!r}, which cannot start: {type(error).__name__}: {error}{advice}. Then go on with "
            f"klimb train --resume {relative_to_working_directory(folder.path)}, or without it: --set run.loggers=[]"
        ) from error
    if identity:
        write_json(folder.path / IDS_FILE, ids | {name: identity})
    return tracker


def _read_ids(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON ({error}): delete it, and the loggers begin a run of their own"
        ) from None
    return {str(name): str(identity) for name, identity in content.items()} if isinstance(content, dict) else {}
