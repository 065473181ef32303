"""Parts from the user's own files: `python:my_parts.huber_clip` stands where klimb has a name of its own.

An object that was handed over in Python and that no other process could import stands there as
`python:__object__.NAME`. Only the process that has it finds it under that name.
"""

import ast
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from klimb.errors import ConfigError

PREFIX = "python:"


LOCATION = re.compile(r"^python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
"""`python:module.name`."""


OBJECT = f"{PREFIX}__object__."
"""What stands before the name of an object that no other process can import."""


@dataclass(frozen=True)
class OwnObject:
    """An object of the user's own.

    Attributes:
        part: the object.
        source_hash: the digits that stand for its source.
        global_values: plain globals of its program that it reads, as text.
    """

    part: Any
    source_hash: str
    global_values: Mapping[str, str] = field(default_factory=dict[str, str])


_OBJECTS: dict[str, OwnObject] = {}
"""Of the run that goes on in this process, for all its threads."""


@contextmanager
def have_objects(objects: Mapping[str, OwnObject]) -> Iterator[None]:
    """Let these objects be found by their locations, `python:__object__.NAME`, for the duration.

    Raises:
        ConfigError: another run in this process has another object of that name.
    """
    taken = sorted(name for name, each in objects.items() if name in _OBJECTS and _OBJECTS[name].part is not each.part)
    if taken:
        raise ConfigError(
            f"{taken[0]!r} is an object of another run that goes on in this process; give this one another name, or "
            "put both at the top of a module"
        )
    new = {name: each for name, each in objects.items() if name not in _OBJECTS}
    _OBJECTS.update(new)
    try:
        yield
    finally:
        for name in new:
            del _OBJECTS[name]


def is_own(name: str) -> bool:
    """Tell whether this names a part of the user's own."""
    return LOCATION.fullmatch(name) is not None


def is_object(name: str) -> bool:
    """Tell whether this stands for an object that no other process can import."""
    return name.startswith(OBJECT) and is_own(name)


def _find_object(location: str) -> OwnObject:
    found = _OBJECTS.get(location)
    if found is None:
        raise ConfigError(
            f"{location!r}: an object of a Python program stood here, which cannot be imported again; go on from there "
            "with klimb.train(..., folder=..., resume=True) and the same object, or name another task with --task to "
            "evaluate on that"
        )
    return found


def sources_of(*names: str) -> dict[str, str]:
    """Return those of the names that are parts of the user's own, with the hash of their source."""
    return {name: source_hash(name) for name in names if is_own(name)}


def global_values_of(*names: str) -> dict[str, Mapping[str, str]]:
    """Return those of the names that are objects of this process, with the globals that each reads, if it does."""
    read = {name: _find_object(name).global_values for name in names if is_object(name)}
    return {name: values for name, values in read.items() if values}


def load_part(location: str, *, setting: str) -> Any:
    """Return what `python:module.name` names, found from the working directory; `setting` is named in errors.

    Raises:
        ConfigError: there is no such module, it cannot be imported, or there is no such name in it; or it was an object
            of another process.
    """
    if is_object(location):
        try:
            return _find_object(location).part
        except ConfigError as error:
            raise ConfigError(f"{setting} = {error}") from None
    module_name, _, name = location.removeprefix(PREFIX).rpartition(".")
    _look_in_working_directory()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting} = {location!r}: there is no module {error.name!r} in {os.getcwd()} or installed"
        ) from error
    # The user's own code, which may do anything when it is imported.
    except Exception as error:
        raise ConfigError(
            f"{setting} = {location!r}: the module {module_name} cannot be imported: {type(error).__name__}: {error}"
            f"{_place_of(error)}"
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"{setting} = {location!r}: the module {module_name} has no {name!r}")
    return getattr(module, name)


def load_function(location: str, *, setting: str, expected: str) -> Callable[..., Any]:
    """Return the function, or class, that `python:module.name` names; `expected` says in an error what it should be.

    Raises:
        ConfigError: there is no such module or name, or it cannot be called.
    """
    found = load_part(location, setting=setting)
    if not callable(found):
        raise ConfigError(f"{setting} = {location!r}: expected {expected}, got {type(found).__name__}")
    return found


def source_hash(location: str) -> str:
    """Return 16 hexadecimal digits of the file that holds the part: another file is another experiment.

    No file is run here. Files of the user's that it imports, at its top or anywhere, are in the digits; what is
    installed has a version and is not.

    Raises:
        ConfigError: there is no such file, or it was an object of another process.
    """
    if is_object(location):
        return _find_object(location).source_hash
    module_name = location.removeprefix(PREFIX).rpartition(".")[0]
    _look_in_working_directory()
    spec = find_spec(module_name)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{location!r}: there is no module {module_name!r} in {os.getcwd()} or installed")
    first = Path(spec.origin)
    return hash_file(first, root=first.parents[module_name.count(".") + (first.name == PACKAGE)])


def hash_file(first: Path, *, root: Path | None = None) -> str:
    """Return 16 hexadecimal digits of a file and of those below the root that it imports; without one, of its folder.

    No file is run here.
    """
    root = first.parent if root is None else root
    digest = hashlib.sha256(first.read_bytes())
    for file in sorted(_find_imported(first, root) - {first}):
        digest.update(f"\n{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


PACKAGE = "__init__.py"


INSTALLED = "site-packages"
"""In the path of code that has a version."""


def _find_imported(first: Path, root: Path) -> set[Path]:
    """Return the files below the root that this one imports, itself or through others."""
    if INSTALLED in root.parts or first.suffix != ".py":
        return {first}
    found, waiting = {first}, [first]
    while waiting:
        new = _imports_of(waiting.pop(), root) - found
        found |= new
        waiting += new
    return found


def _imports_of(file: Path, root: Path) -> set[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    places: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places += [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level <= len(file.parents):
            above = root if not node.level else file.parents[node.level - 1]
            base = above.joinpath(*(node.module or "").split("."))
            # What is imported from a package may be a module of it.
            places += [base, *(base / alias.name for alias in node.names)]
    candidates = {
        each for place in places if place.name for each in (place.with_name(f"{place.name}.py"), place / PACKAGE)
    }
    return {each for each in candidates if each.is_relative_to(root) and each.is_file()}


def _place_of(error: Exception) -> str:
    """Return ` (my_parts.py, line 3)`; nothing where the error says it itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


_FOLDERS: set[str] = set()
"""Working directories that were put into the search path here."""


def _look_in_working_directory() -> None:
    """Search the present working directory last, and none that was one before: its files could stand in the way."""
    here = os.getcwd()
    for folder in _FOLDERS - {here}:
        if folder in sys.path:
            sys.path.remove(folder)
    if here not in sys.path:
        sys.path.append(here)
        _FOLDERS.add(here)
