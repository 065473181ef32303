"""`klimb` in processes of their own that start at once: a process that has imported everything forks each of them.

`Nursery` is the side of the campaign; run as a program, this file is the process that forks.
"""

import atexit
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 120.0
"""A command that takes longer hangs. The longest of the campaign takes a few seconds."""


LOST_OUTPUT_STATUS = 120
"""Of a Python process whose standard output cannot be flushed at its end."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; -N for a death by signal N. None: it hung, and was killed.
        out: what it printed.
        err: what it said on standard error.
        seconds: that it took.
    """

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """Both outputs, in one line each paragraph."""
        return self.out + self.err


@dataclass(frozen=True)
class Started:
    """A command that goes on."""

    pid: int
    began: float
    out: Path
    err: Path


class Nursery:
    """Starts `klimb` commands, one process each, in a fraction of the time that its imports take."""

    def __init__(self, scratch: Path) -> None:
        """Start the process that forks.

        Args:
            scratch: where outputs are kept until they are read.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        self._count = 0
        # One thread: threads do not survive a fork, and their number changes the bits.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._imported: set[str] = set()

    def start(self, *arguments: str, cwd: Path, fault: dict[str, Any] | None = None, **more: Any) -> Started:
        """Start `klimb ARGUMENTS`.

        Args:
            arguments: of the command line.
            cwd: its working directory.
            fault: what goes wrong inside of it, for `points.arm`.
            more: `is_deaf` closes the reading end of its standard output.
        """
        self._count += 1
        out, err = (self._scratch / f"{self._count}.{name}" for name in ("out", "err"))
        request = {"argv": arguments, "cwd": str(cwd), "out": str(out), "err": str(err), "fault": fault, **more}
        began = time.monotonic()
        return Started(self._ask(request)["pid"], began, out, err)

    def wait(self, started: Started, *, seconds: float = PATIENCE_SECONDS) -> Ended:
        """Return how it ended; after so many seconds it is killed."""
        status = self._ask({"wait": started.pid, "seconds": seconds})["status"]
        taken = time.monotonic() - started.began
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (started.out, started.err)]
        started.out.unlink()
        started.err.unlink()
        return Ended(status, *texts, seconds=taken)

    def run(self, *arguments: str, cwd: Path, fault: dict[str, Any] | None = None, **more: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.wait(self.start(*arguments, cwd=cwd, fault=fault, **more))

    def learn_imports(self, *arguments: str, cwd: Path) -> Ended:
        """Run a command and import, once for all later ones, what it imported on its way."""
        listing = self._scratch / "modules.json"
        ended = self.run(*arguments, cwd=cwd, listing=str(listing))
        self._ask({"import": json.loads(listing.read_text())})
        return ended

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"the process that forks the runs has ended ({self._process.wait()})")
        return json.loads(line)


def serve() -> dict[str, Any]:
    """Answer requests; returns only in a forked process, with the request that it is to carry out."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "import" in request:
            answer: dict[str, Any] = {"failed": _import_all(request["import"])}
            gc.collect()
            gc.freeze()  # the children need not look at, and so copy, all of this
        elif "wait" in request:
            answer = {"status": _wait(request["wait"], request["seconds"])}
        else:
            pid = os.fork()
            if pid == 0:
                return request
            answer = {"pid": pid}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()
    os._exit(0)


def _import_all(names: list[str]) -> list[str]:
    failed = []
    for name in names:
        try:
            import_module(name)
        except Exception:
            failed.append(name)
    return failed


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.005)


def become(request: dict[str, Any]) -> None:
    """Make this forked process the command: its folder, its outputs, its fault, its end."""
    os.chdir(request["cwd"])
    sys.path[0] = ""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = _pipe_to_nobody() if request.get("is_deaf") else _new_file(request["out"])
    if request.get("is_deaf"):
        _new_file(request["out"])
    os.dup2(out, 1)
    os.dup2(_new_file(request["err"]), 2)
    sys.argv = ["klimb", *request["argv"]]
    if request["fault"] is not None:
        from tests.faults.points import arm

        arm(request["fault"])


def _new_file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)


def _pipe_to_nobody() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _write_modules(path: str) -> None:
    places = (str(Path(os.__file__).parent), "site-packages", "klimb")
    names = [
        name
        for name, module in list(sys.modules.items())
        if any(place in str(getattr(module, "__file__", "")) for place in places) and name != "__main__"
    ]
    Path(path).write_text(json.dumps(names))


def end(status: int) -> None:
    """End as an interpreter does, but for taking down its memory, which costs seconds after a fork."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        status = status or LOST_OUTPUT_STATUS
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def run_main() -> int:
    """Return the exit status of the command line; an exception that it lets through is printed as Python prints it."""
    from klimb.workbench.cli import main

    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int) or ended.code is None:
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    import torch

    import_module("klimb.workbench.cli")
    torch.set_num_threads(1)
    order = serve()
    become(order)
    status = run_main()
    if order.get("listing"):
        _write_modules(order["listing"])
    end(status)
