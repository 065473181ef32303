"""A program that runs klimb's commands, each in a fork of itself, so that libraries are imported once and not each time.

It is started with the Python and the source folder of the state that is measured, and imports nothing of this one.
A line of JSON on the standard input is one command: `{"arguments", "folder", "out", "err"}`. The answer is its status.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

PRELOADED = ("torch", "transformers", "pyarrow", "duckdb", "matplotlib", "peft", "schedulefree")
"""Nothing here begins a thread when it is imported, so a fork is safe."""


def main() -> None:
    """Say where klimb lies, then answer commands until the input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    cli = importlib.import_module("klimb.workbench.cli")
    sys.stdout.write(json.dumps({"klimb": importlib.import_module("klimb").__file__}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps({"status": run(cli, json.loads(line))}) + "\n")
        sys.stdout.flush()


def run(cli: Any, command: dict[str, Any]) -> int:
    """Run one command in a child process and return its exit status."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = in_child(cli, command)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(cli: Any, command: dict[str, Any]) -> int:
    """Do what the `klimb` script does, in the command's folder, its output in files."""
    os.chdir(command["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    os.dup2(nothing, 0)
    sys.argv = ["klimb", *command["arguments"]]
    # A script that is started has its folder on the path, and the user's own modules are found from the working folder.
    sys.path[0] = ""
    try:
        cli.main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


if __name__ == "__main__":
    main()
