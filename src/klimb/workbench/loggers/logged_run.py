"""What a logger is told of a run."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


def project_from(variable: str) -> str:
    """The project that this environment variable names, `klimb` without it."""
    return os.environ.get(variable) or DEFAULT_PROJECT


def new_id() -> str:
    """A name for a run that no other has."""
    return uuid.uuid4().hex[:12]
