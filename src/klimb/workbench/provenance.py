"""What it takes to repeat a run: its resolved configuration, commit, seed and the versions of what it runs on."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from klimb.training.run_folder import RunFolder, check_is_free, write_json
from klimb.workbench.config import RunConfig, save_config
from klimb.workbench.session import own_parts


def new_run_folder(path: Path, config: RunConfig) -> RunFolder:
    """Make the folder and writes the resolved configuration and its provenance.

    Raises:
        ConfigError: there is something already.
    """
    check_is_free(path)
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    write_json(folder.provenance, provenance(config))
    save_config(folder.config, config)
    return folder


def provenance(config: RunConfig) -> dict[str, Any]:
    """Return what it takes to repeat the run, besides its configuration. Nothing of the environment is stored."""
    return {
        "seed": config.seed,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _git("status", "--porcelain", "--untracked-files=no") not in (None, ""),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "own_parts": own_parts(config),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return what git says of the working directory; None outside of a repository or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
