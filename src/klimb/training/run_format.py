"""The format of a run's folder: one number in its identity.json and in each of its checkpoints, and how to the next.

A newer format than this klimb knows is refused. An older one is brought up to date when the run is resumed, one step
of the table after the other; a checkpoint stays on the disk as it was written, until newer ones take its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from klimb import __version__
from klimb.errors import ConfigError

RUN_FORMAT = 5
"""Of the folders that this klimb writes."""


Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""From a checkpoint's numbers in one format to those in the next."""


MIGRATIONS: Mapping[int, Migration] = {4: lambda numbers: numbers}
"""Format -> what leads to the one after it. With format 5, identity.json and checkpoints count alike, and the identity
of an older run has the defaults of the settings that there were not (`klimb.training.identity.with_new_settings`)."""


OF_IDENTITY = {1: 4}
"""What identity.json called a format that the checkpoints beside it called otherwise."""


def check_format(path: Path, found: object, *, made_by: object = None, latest: int = RUN_FORMAT) -> None:
    """Return if a run in this format can be read, or brought up to date.

    Args:
        path: of the file that says so.
        found: the format in it.
        made_by: the version of klimb that wrote it, where it says so.
        latest: the newest format that can be read.

    Raises:
        ConfigError: it is newer, or too old.
    """
    maker = f"klimb {made_by}" if made_by else "another version of klimb"
    is_number = isinstance(found, int) and not isinstance(found, bool)
    if isinstance(found, int) and is_number and found > latest:
        raise ConfigError(
            f"{path} was made by {maker}, in format {found}; this klimb ({__version__}) reads up to {latest}: upgrade "
            "klimb to go on with the run"
        )
    if not is_number or (found not in MIGRATIONS and found != latest and found not in OF_IDENTITY):
        raise ConfigError(
            f"{path} says format {found!r}, and this klimb ({__version__}) reads {min(MIGRATIONS)} to {latest}; resume "
            "with the klimb that wrote it, or begin a new run"
        )


def migrate_numbers(
    numbers: Mapping[str, Any],
    found: int,
    *,
    migrations: Mapping[int, Migration] = MIGRATIONS,
    latest: int = RUN_FORMAT,
) -> dict[str, Any]:
    """Return a checkpoint's numbers in the latest format, each migration between applied in order."""
    current = dict(numbers)
    for version in range(found, latest):
        current = migrations[version](current)
    return current
