"""The two states that are compared: where they lie, how their commands are run."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MOST_CHARACTERS = 1500
COMMANDS = Path(__file__).with_name("commands.py")
ENVIRONMENT: Mapping[str, str] = {
    "COLUMNS": "300",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TERM": "dumb",
    "TOKENIZERS_PARALLELISM": "false",
    "TZ": "UTC",
}
"""One thread, so that sums are taken in one order; one width, so that texts break at one place."""


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


class Side:
    """A checkout of klimb whose commands can be run; a context manager."""

    def __init__(self, name: str, checkout: Path) -> None:
        """Take the checkout's own Python if it has one, else this one with the checkout's sources."""
        self.name = name
        self.checkout = checkout.resolve()
        own = self.checkout / ".venv" / "bin" / "python"
        self.python = str(own) if own.exists() else sys.executable
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start the process and make sure that it runs this checkout's klimb.

        Raises:
            RuntimeError: it does not start, or runs another one.
        """
        source = self.checkout / "src"
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(source)}
        self._process = subprocess.Popen(
            [self.python, "-u", str(COMMANDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        found = Path(self._answer()["klimb"])
        if not found.is_relative_to(source):
            raise RuntimeError(f"{self.name}: expected the klimb of {source}, got {found}; give a checkout of klimb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()

    def klimb(self, folder: Path, *arguments: str) -> Said:
        """Run one command in a folder."""
        files = {name: folder.parent / f"{folder.name}.{name}" for name in ("out", "err")}
        command = {"arguments": arguments, "folder": str(folder), **{name: str(path) for name, path in files.items()}}
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        status = self._answer()["status"]
        return Said(status, *(files[name].read_text(encoding="utf-8", errors="replace") for name in ("out", "err")))

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: {self.python} with the klimb of {self.checkout} ended without an answer")
        return json.loads(line)


class CommandFailed(RuntimeError):
    """A command of a case ended in another way than the case expects."""


@dataclass(frozen=True)
class Place:
    """Where a case runs: a state, an empty folder, and the inputs that both states share."""

    side: Side
    folder: Path
    material: Path

    @property
    def is_old(self) -> bool:
        """Tell whether this is the state from before the change, whose names are the old ones."""
        return self.side.name == "old"

    def klimb(self, *arguments: str, status: int = 0) -> Said:
        """Run a command in this folder.

        Raises:
            CommandFailed: it ended with another status.
        """
        said = self.side.klimb(self.folder, *arguments)
        if said.status != status:
            shown, reason = " ".join(arguments), (said.err or said.out)[-MOST_CHARACTERS:]
            raise CommandFailed(
                f"{self.side.name}: klimb {shown} ended with {said.status}, expected {status}: {reason}"
            )
        return said

    def write(self, name: str, text: str) -> Path:
        """Write a file into this folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path
