"""How a command ends early: something given cannot be used, an error ended a run, or a signal stopped it."""

import traceback
from pathlib import Path


class ConfigError(ValueError):
    """Something that was given cannot be used; the message says what came, what was expected and what to do."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved.

    Attributes:
        status: what the process should exit with: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number


class RunFailed(Exception):
    """An error ended a run that had begun; the message is one line with how to go on.

    Attributes:
        folder: of the run.
        status: what the process should exit with: 3 if the last complete step is saved, 4 if it could not be.
    """

    def __init__(self, message: str, *, folder: Path, is_saved: bool) -> None:
        super().__init__(message)
        self.folder = folder
        self.status = 3 if is_saved else 4


def is_ours(error: BaseException) -> bool:
    """Tell whether our own code raised it, with a message for people; an error inside a library is a defect."""
    if isinstance(error, OSError | ImportError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
