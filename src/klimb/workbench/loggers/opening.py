"""From the names in `run.loggers` to trackers, and back to the same logger's run when the run is resumed.

What a logger is told of a run.
"""

import json
import os
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from klimb.errors import ConfigError
from klimb.training.run_folder import RunFolder, flat_settings, write_json
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.config import RunConfig
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.loggers.tracker import AllTrackers, FailSafeTracker, Tracker

DEFAULT_PROJECT = "klimb"


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A run as a logger sees it.

    Attributes:
        name: that of the run's folder.
        folder: the run's folder.
        settings: the resolved configuration, dotted key -> value.
        known_id: under which the logger keeps the run if an earlier process of it was logged; else empty.
    """

    name: str
    folder: Path
    settings: Mapping[str, str | int | float | bool]
    known_id: str = ""


def project_from(variable: str) -> str:
    """Return the project that this environment variable names, `klimb` without it."""
    return os.environ.get(variable) or DEFAULT_PROJECT


def new_id() -> str:
    """Return a name for a run that no other has."""
    return uuid.uuid4().hex[:12]


IDS_FILE = "loggers.json"
"""In the run's folder: under which id each logger keeps it."""


@dataclass(frozen=True, kw_only=True)
class Logger:
    """A logger that a run can have.

    Attributes:
        package: the module that must be there.
        install: what to give to pip.
        opener: `module:function`, imported only when it is used.
        advice: what to look at when it does not start.
    """

    package: str
    install: str
    opener: str
    advice: str = ""

    def open(self, run: LoggedRun) -> tuple[Tracker, str]:
        """Return the tracker of the run, and the id under which the logger keeps it."""
        module, _, function = self.opener.partition(":")
        opener: Callable[[LoggedRun], tuple[Tracker, str]] = getattr(import_module(module), function)
        return opener(run)


_HERE = "klimb.workbench.loggers"


LOGGERS: Mapping[str, Logger] = {
    "tensorboard": Logger(
        package="tensorboard", install="tensorboard", opener=f"{_HERE}.tensorboard_logger:open_tensorboard"
    ),
    "wandb": Logger(
        package="wandb",
        install="'klimb[wandb]'",
        opener=f"{_HERE}.wandb_logger:open_wandb",
        advice="log in with `wandb login` or WANDB_API_KEY, or keep it on this machine with WANDB_MODE=offline",
    ),
    "mlflow": Logger(
        package="mlflow",
        install="'klimb[mlflow]'",
        opener=f"{_HERE}.mlflow_logger:open_mlflow",
        advice="look at MLFLOW_TRACKING_URI",
    ),
    "trackio": Logger(
        package="trackio",
        install="'klimb[trackio]'",
        opener=f"{_HERE}.trackio_logger:open_trackio",
        advice="look at TRACKIO_SPACE_ID and TRACKIO_SERVER_URL",
    ),
}
"""By the name in `run.loggers`."""


def check_loggers(names: Iterable[str]) -> None:
    """Return if the packages of these loggers are installed.

    Raises:
        ConfigError: one is not; the message has the command that installs it.
    """
    for name in names:
        if find_spec(LOGGERS[name].package) is None:
            raise ConfigError(
                f"run.loggers has {name!r}, whose package is not installed: pip install {LOGGERS[name].install}, "
                f"or leave it out with --set run.loggers=[]"
            )


@contextmanager
def open_trackers(config: RunConfig, folder: RunFolder) -> Generator[Tracker]:
    """Return the trackers of a run as one, closed at the end.

    Raises:
        ConfigError: one of them cannot start. Once they have all started, a failure is reported and the run goes on.
    """
    started: list[FailSafeTracker] = []
    is_finished = False
    try:
        for name in config.run.loggers:
            started.append(FailSafeTracker(_open(name, config, folder), name=name))
        yield AllTrackers(started)
        is_finished = True
    finally:
        AllTrackers(started).close(is_finished=is_finished)


def _open(name: str, config: RunConfig, folder: RunFolder) -> Tracker:
    ids = _read_ids(folder.path / IDS_FILE)
    run = LoggedRun(
        name=folder.path.resolve().name,
        folder=folder.path,
        settings=flat_settings(resolved_tables(config)),
        known_id=ids.get(name, ""),
    )
    try:
        tracker, identity = LOGGERS[name].open(run)
    # Other people's code: a wrong key, a server that is not there, a full disk. Each has an error of its own.
    except Exception as error:
        advice = f"; {LOGGERS[name].advice}" if LOGGERS[name].advice else ""
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
