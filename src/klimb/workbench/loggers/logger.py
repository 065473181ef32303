"""What a logger is: one row, with what opens it. What it is told of a run."""

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from klimb.workbench.loggers.tracker import Tracker

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


@dataclass(frozen=True, kw_only=True)
class Logger:
    """A logger that a run can have.

    Attributes:
        name: what `run.loggers` takes.
        package: the module that must be there; empty where none is needed.
        install: what to give to pip.
        open: returns the tracker of a run, and the id under which the logger keeps the run. Here its library is loaded.
        advice: what to look at when it does not start.
    """

    name: str
    package: str
    install: str
    open: Callable[[LoggedRun], tuple[Tracker, str]]
    advice: str = ""


def project_from(variable: str) -> str:
    """Return the project that this environment variable names, `klimb` without it."""
    return os.environ.get(variable) or DEFAULT_PROJECT


def new_id() -> str:
    """Return a name for a run that no other has."""
    return uuid.uuid4().hex[:12]
