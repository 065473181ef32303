"""What it takes to repeat a run: its resolved configuration, seed, code, data and the versions of what it runs on."""

import hashlib
import logging
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from klimb.experience.reading.sources import find_source
from klimb.own_parts import is_own
from klimb.training.installation import ask_git, own_installation
from klimb.training.locks import run_folder_lock
from klimb.training.repair import mend_folder
from klimb.training.run_folder import RunFolder, claim_folder, flat_settings, put_aside, read_object, write_json
from klimb.workbench.config import RunConfig, save_config
from klimb.workbench.config.paths import FILES, STORES
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.run_directory import KEY, way_to_working_directory
from klimb.workbench.session import own_parts

logger = logging.getLogger(__name__)


HASH_DIGITS = 16


def new_run_folder(path: Path, config: RunConfig, *, is_numbered: bool = False) -> RunFolder:
    """Make the folder and writes the resolved configuration and its provenance.

    Args:
        path: where it goes.
        config: of the run.
        is_numbered: take `path-2`, `path-3`, … if another run has the path; the making of a folder decides who has it.

    Raises:
        ConfigError: there is something already.
    """
    folder = RunFolder(claim_folder(path, is_numbered=is_numbered))
    known = provenance(config, folder=folder.path, apart_from=[folder.path, Path(config.run.folder)])
    save_config(folder.config, config)
    # Last: it is the sign that a run has begun here.
    write_json(folder.provenance, known)
    return folder


def mend_before_resume(folder: RunFolder, config: RunConfig) -> None:
    """Mend what can be mended in a run's folder, or refuse it, before anything is loaded or added.

    Raises:
        RunFolderInUse: another process works in the folder.
        OSError: the folder cannot be written.
    """
    with run_folder_lock(folder.path):
        mend_folder(folder.path)
        _mend_provenance(folder, config)


def _mend_provenance(folder: RunFolder, config: RunConfig) -> None:
    """Write what can be known now in the place of a provenance.json that is gone or cannot be read."""
    path = folder.provenance
    why = read_object(path)[1] if path.is_file() else "it is not there"
    if not why:
        return
    kept = f" The damaged file is kept as {put_aside(path).name}" if path.exists() else ""
    logger.warning("%s: %s; it is written anew, with today's code and data, not those of the start.%s", path, why, kept)
    write_json(path, provenance(config, folder=folder.path, apart_from=[folder.path]))


def provenance(config: RunConfig, *, folder: Path | None = None, apart_from: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what it takes to repeat the run, besides its configuration. Nothing of the environment is stored.

    Args:
        config: of the run.
        folder: of the run, from which the working directory is told; None where there is none.
        apart_from: folders of results, which do not count as changes of the user's repository.
    """
    return {
        "seed": config.seed,
        "klimb": own_installation(),
        "repository": _repository(apart_from),
        **({} if folder is None else {KEY: way_to_working_directory(folder)}),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "own_parts": own_parts(config),
        "data": _hash_data(config),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _repository(apart_from: Iterable[Path]) -> dict[str, Any] | None:
    """Return the commit of the working directory's repository, and whether anything else was there than it says.

    Files that git ignores do not count, nor do the folders of results; None outside of a repository.
    """
    here = Path.cwd()
    commit, top = ask_git("rev-parse", "HEAD", at=here), ask_git("rev-parse", "--show-toplevel", at=here)
    if commit is None or top is None:
        return None
    root = Path(top).resolve()
    results = [path.resolve() for path in apart_from]
    inside = [path.relative_to(root) for path in results if path.is_relative_to(root) and path != root]
    left_out = [f":(top,exclude,literal){path.as_posix()}" for path in inside]
    changes = ask_git("status", "--porcelain", "--untracked-files=all", "--", ":(top)", *left_out, at=here)
    return {"commit": commit, "uncommitted_changes": changes != ""}


def _hash_data(config: RunConfig) -> dict[str, str | None]:
    """Return the hash of each file and store that the run reads, by key; None for what cannot be read."""
    named = flat_settings(resolved_tables(config))
    keys = [key for key in (*FILES, *STORES) if key in named and not is_own(str(named[key]))]
    return {key: _hash_path(str(named[key]), is_store=key in STORES) for key in keys}


def _hash_path(given: str, *, is_store: bool) -> str | None:
    """Return the hash of a file, or of the names and contents of the files with rows in a folder."""
    digest = hashlib.sha256()
    try:
        files = _files_of_store(Path(given)) if is_store else find_source(given).files
        for name, path in files.items():
            with path.open("rb") as content:
                title = name if len(files) > 1 or Path(given).is_dir() else ""
                digest.update(f"{title}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    except (OSError, ValueError):
        return None
    return digest.hexdigest()[:HASH_DIGITS]


def _files_of_store(path: Path) -> Mapping[str, Path]:
    if not path.is_dir():
        return {path.name: path}
    return {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*.parquet"))}


PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "pyarrow",
    "duckdb",
    "schedulefree",
    "numpy",
    "math-verify",
    "reasoning-gym",
)
"""Whose versions can change the numbers of a run."""
