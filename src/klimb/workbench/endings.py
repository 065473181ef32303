"""How a run that did not finish is told: one line that says what happened, what is saved, and how to go on."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from klimb.errors import ConfigError, Interrupted, RunFailed, is_ours
from klimb.findings.run.ending import During, Ending, say_what_is_saved, say_where
from klimb.tasks.scorer import ScoringError
from klimb.training.checkpoints import CheckpointError, newest_checkpoint, step_of
from klimb.training.endings import (
    TRACEBACK_FILE,
    ending_from,
    ending_of,
    folder_of,
    record_ending,
)
from klimb.training.locks import RunFolderInUse
from klimb.training.signals import Stopped
from klimb.ui.text import relative_to_working_directory

TRACEBACK_VARIABLE = "KLIMB_TRACEBACK"


REFUSALS = (ConfigError, CheckpointError, RunFolderInUse, ImportError)
"""Errors by which a run is refused before it begins, or goes on; nothing has happened then."""


class Course:
    """How far a run has come, for whoever tells how it ended.

    Attributes:
        during: what part of it is going on.
        step: the last complete one.
    """

    def __init__(self) -> None:
        self.during: During = "before training"
        self.step = 0


@contextmanager
def ends_written_down(folder: Path, course: Course) -> Generator[None]:
    """Write into the folder how the run ended if the block does not come to its end.

    Raises:
        Interrupted: a signal came where there is no step to finish.
    """
    try:
        yield
    except BaseException as error:
        if ending_of(error) is None and not (course.during == "before training" and _is_refusal(error)):
            newest = newest_checkpoint(folder / "checkpoints")
            ending = ending_from(
                error,
                during=course.during,
                step=course.step,
                resumes_from=0 if newest is None else step_of(newest),
            )
            record_ending(folder, ending, error)
        if isinstance(error, Stopped):
            raise _interruption(error, folder) from None
        raise


def _is_refusal(error: BaseException) -> bool:
    """Tell whether it says that the run can't be: then nothing has happened, and nothing is written down."""
    is_check = isinstance(error, ValueError) and not isinstance(error, ScoringError) and is_ours(error)
    return is_check or isinstance(error, REFUSALS)


def _interruption(error: Stopped, folder: Path) -> Interrupted:
    ending = ending_of(error)
    saved = "" if ending is None else f" {ending.during}; {say_what_is_saved(ending)}"
    return Interrupted(f"stopped by {error}{saved}; resume {folder} to go on", signal_number=error.signal_number)


@contextmanager
def told_in_one_line() -> Generator[None]:
    """Make an error that ended a run one line for people.

    Raises:
        RunFailed: instead of that error; not while `KLIMB_TRACEBACK` is set.
    """
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        ending = ending_of(error)
        if ending is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(ending.reason, signal_number=signal.SIGINT) from error
        folder = folder_of(error)
        raise RunFailed(tell_ending(ending, folder), folder=folder, is_saved=ending.is_saved) from error


def tell_ending(ending: Ending, folder: Path) -> str:
    """Return the line."""
    where = relative_to_working_directory(folder)
    return (
        f"{ending.reason}, {say_where(ending)}; {say_what_is_saved(ending)}; go on with: klimb train --resume {where}"
        f" (traceback: {where}/{TRACEBACK_FILE})"
    )
