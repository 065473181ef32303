"""The directory that a run's relative paths and own modules are looked for in: the one that it was begun in.

A run can be resumed, evaluated and reported from anywhere. Its provenance has the way from its folder to that
directory, so a project that was moved as a whole still finds its files; where they are not there, the user's present
directory is taken.
"""

import os
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from klimb.experience.reading.sources import is_there
from klimb.own_parts import INSTALLED, PREFIX, is_own
from klimb.training.run_folder import RunFolder, flat_settings, read_object
from klimb.workbench.config.paths import FILES, STORES
from klimb.working_directory import users_directory, work_in

KEY = "working_directory"
"""In provenance.json."""


PATHS = (*FILES, *STORES, "model.path", "model.lora.path")
"""Keys whose value may be a path."""


def way_to_working_directory(folder: Path) -> str:
    """Return the path from a run's folder to the working directory."""
    return os.path.relpath(Path.cwd().resolve(), folder.resolve())


@contextmanager
def in_directory_of(folder: Path, tables: Mapping[str, Any]) -> Generator[None]:
    """Work where the run in this folder finds what its configuration names.

    Args:
        folder: of the run; give it as an absolute path, or it is not found from there.
        tables: its configuration.
    """
    directory = find_directory(folder, tables)
    if directory == Path.cwd():
        yield
        return
    with work_in(directory):
        yield


def find_directory(folder: Path, tables: Mapping[str, Any]) -> Path:
    """Return where the run was begun, or the present directory if what the run names is there alone."""
    here, begun = Path.cwd(), _directory_begun_in(folder)
    if begun is None or begun == here.resolve():
        return here
    is_here_alone = find_missing(begun, tables) and not find_missing(here, tables)
    return here if is_here_alone else begun


def find_missing(directory: Path, tables: Mapping[str, Any]) -> list[str]:
    """Return the keys whose relative path, or module of the user's own, is not in this directory."""
    named = flat_settings({str(key): value for key, value in tables.items()})
    paths = [key for key in PATHS if key in named and _is_relative(key, str(named[key]))]
    missing = [key for key in paths if not is_there(str(named[key]), directory)]
    own = [key for key, value in named.items() if isinstance(value, str) and is_own(value)]
    return missing + [key for key in own if not _has_module(directory, str(named[key]))]


def as_typed_elsewhere(overrides: Iterable[str]) -> list[str]:
    """Return `key=value` pairs in which a path that is there, from where the user is, has become absolute."""
    made: list[str] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        path = value.strip().strip("'\"")
        is_path = key.strip() in PATHS and bool(value.strip()) and is_there(path, users_directory())
        made.append(f"{key}{equals}{str(users_directory() / path)!r}" if is_path else override)
    return made


def _directory_begun_in(folder: Path) -> Path | None:
    path = RunFolder(folder).provenance
    way = read_object(path)[0].get(KEY) if path.is_file() else None
    directory = (folder.resolve() / way).resolve() if isinstance(way, str) else None
    return directory if directory is not None and directory.is_dir() else None


def _is_relative(key: str, value: str) -> bool:
    # The name of a built-in model has no folder in it; that of a file beside the run file need not have one either.
    is_name = key == "model.path" and os.sep not in value and not value.endswith(".gguf")
    return not is_name and not Path(value).expanduser().is_absolute()


def _has_module(directory: Path, location: str) -> bool:
    top = location.removeprefix(PREFIX).split(".")[0]
    if (directory / f"{top}.py").is_file() or (directory / top).is_dir():
        return True
    if top in sys.modules:
        return INSTALLED in str(getattr(sys.modules[top], "__file__", ""))
    spec = find_spec(top)
    return spec is not None and INSTALLED in str(spec.origin)
