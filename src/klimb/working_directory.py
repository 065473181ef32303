"""Work in another directory than the user's for a while, and still show paths as the user would type them.

Where klimb keeps what it would else make or ask again.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_USERS: ContextVar[Path | None] = ContextVar("_USERS", default=None)
"""Where the user is, while the process works elsewhere."""


def users_directory() -> Path:
    """Return the directory that the user is in."""
    return _USERS.get() or Path.cwd()


@contextmanager
def work_in(directory: Path) -> Generator[None]:
    """Make the directory the working one; processes started meanwhile are in it too."""
    before = Path.cwd()
    token = _USERS.set(users_directory())
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
        _USERS.reset(token)


CACHE_VARIABLE = "KLIMB_CACHE"


def cache_folder() -> Path:
    """Return the folder for converted models and verdicts of judges.

    It is `$KLIMB_CACHE`, else `$XDG_CACHE_HOME/klimb`, else `~/.cache/klimb`.
    """
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "klimb"
