"""The loggers by name: each file of this folder that ends in `_logger` holds the row of one. No library is loaded."""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from klimb.own_parts import is_own, load_function
from klimb.workbench.loggers.logger import LoggedRun, Logger
from klimb.workbench.loggers.tracker import Tracker


def _rows() -> Iterator[tuple[str, Logger]]:
    for found in iter_modules([str(Path(__file__).parent)]):
        if found.name.endswith("_logger"):
            row: Logger = import_module(f"{__package__}.{found.name}").LOGGER
            yield row.name, row


LOGGERS: Mapping[str, Logger] = MappingProxyType(dict(_rows()))
"""By the name in `run.loggers`."""


def logger_named(name: str) -> Logger:
    """Return the logger of this name, or the user's own that `python:module.name` names.

    One of the user's own is a class or a function of a `LoggedRun`. It returns a `Tracker`, or as a pair a `Tracker`
    and the id under which it keeps the run.

    Raises:
        ConfigError: there is no such module or name, or it cannot be called.
    """
    if not is_own(name):
        return LOGGERS[name]
    expected = "a class or a function of a klimb.workbench.loggers.LoggedRun that returns a tracker"
    found = load_function(name, setting="run.loggers", expected=expected)
    return Logger(name=name, package="", install="", open=partial(_open_own, found), advice="it is your own code")


def _open_own(opener: Any, run: LoggedRun) -> tuple[Tracker, str]:
    opened = opener(run)
    tracker, identity = opened if isinstance(opened, tuple) else (opened, "")
    if not isinstance(tracker, Tracker):
        raise TypeError(
            "expected a tracker with write(step, metrics) and close(is_finished=...), or a pair of a tracker and the "
            f"id of its run, got {type(tracker).__name__}"
        )
    return tracker, str(identity)
