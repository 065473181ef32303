"""The folder of a run: where everything is, and what is written down about how it came about."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from klimb.workbench.config import ConfigError, RunConfig, save_config

PACKAGES = (
    "klimb",
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

GIT_TIMEOUT_SECONDS = 10.0
MOST_NUMBERED = 10_000


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, every default filled in."""
        return self.path / "config.json"

    @property
    def provenance(self) -> Path:
        """Commit, seed, versions."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON per step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One line of JSON per evaluation, with every problem."""
        return self.path / "evaluations.jsonl"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.path / "model"

    @property
    def summary(self) -> Path:
        """The results."""
        return self.path / "summary.json"


def is_run(path: Path) -> bool:
    """True if a run has begun in this folder."""
    # Not its config.json: a model's folder has a file of that name too.
    return RunFolder(path).provenance.is_file()


def check_is_free(path: Path) -> None:
    """Returns if a run can begin in this folder.

    Raises:
        ConfigError: there is something already: nothing is ever written over.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        hint = f"continue it with klimb train --resume {path}, or choose" if is_run(path) else "choose"
        raise ConfigError(f"{path} already exists and is not empty; {hint} another folder with --folder")


def new_run_folder(path: Path, config: RunConfig) -> RunFolder:
    """Makes the folder and writes the resolved configuration and its provenance.

    Raises:
        ConfigError: there is something already.
    """
    check_is_free(path)
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    write_json(folder.provenance, provenance(config))
    save_config(folder.config, config)
    return folder


def free_folder(path: Path) -> Path:
    """The path itself if nothing is there, else the first of `path-2`, `path-3`, … that is free."""
    return path if not path.exists() else _first_free(path, start=2)


def move_aside(path: Path) -> Path | None:
    """Renames what is at the path to `path-1`, `path-2`, … and returns the new name; None if nothing was there."""
    if not path.exists():
        return None
    aside = _first_free(path, start=1)
    path.rename(aside)
    return aside


def relative_to_working_directory(path: Path) -> str:
    """The path as one would type it here, without a leading absolute part."""
    return os.path.relpath(path)


def provenance(config: RunConfig) -> dict[str, Any]:
    """What it takes to repeat the run, besides its configuration. Nothing of the environment is stored."""
    return {
        "seed": config.seed,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _git("status", "--porcelain", "--untracked-files=no") not in (None, ""),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    aside.replace(path)


def _first_free(path: Path, *, start: int) -> Path:
    for number in range(start, MOST_NUMBERED):
        candidate = path.with_name(f"{path.name}-{number}")
        if not candidate.exists():
            return candidate
    raise ConfigError(f"there are {MOST_NUMBERED} folders named {path.name}-<number> in {path.parent}; tidy up")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the working directory; None outside of a repository or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
