"""Which klimb this is: its version, and the commit of its own code, wherever it was installed from."""

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import klimb

GIT_TIMEOUT_SECONDS = 10.0


@cache
def own_installation() -> dict[str, Any]:
    """Return klimb's `version`, `commit` and `uncommitted_changes`; None for what nothing tells.

    The commit is that of the checkout which klimb's code is a part of, else the one that pip installed it from. The
    repository of the working directory says nothing of klimb.
    """
    place = Path(klimb.__file__).resolve().parent
    told: dict[str, Any] = {"version": klimb.__version__, "commit": None, "uncommitted_changes": None}
    # In an environment inside of a user's repository klimb lies in a working tree that does not know it.
    if ask_git("ls-files", "--error-unmatch", "__init__.py", at=place) is not None:
        changes = ask_git("status", "--porcelain", "--", ".", at=place)
        return told | {"commit": ask_git("rev-parse", "HEAD", at=place), "uncommitted_changes": bool(changes)}
    commit = _commit_of_install()
    return told if commit is None else told | {"commit": commit, "uncommitted_changes": False}


def ask_git(*arguments: str, at: Path) -> str | None:
    """Return what git says in this folder; None outside of a repository, on any failure, or without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(at), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit_of_install() -> str | None:
    """Return the commit in pip's direct_url.json, which an installation from a repository has."""
    try:
        written = json.loads(distribution("klimb").read_text("direct_url.json") or "{}")
        commit = written["vcs_info"]["commit_id"]
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return None
    return str(commit)
