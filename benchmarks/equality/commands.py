"""A program that runs klimb's commands, each in a fork of itself, so that libraries are imported only once.

It is started with the Python and the source folder of the state that is measured, and imports nothing of this one.
A line of JSON on the standard input is one command: `{"arguments", "folder", "out", "err"}`. The answer is its status.
What no command shows is asked of Python, by the names in `PYTHON_NAMES`: `["python", QUESTION, ...]`.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

PRELOADED = ("torch", "transformers", "pyarrow", "duckdb", "matplotlib", "peft", "schedulefree")
"""Nothing here begins a thread when it is imported, so a fork is safe."""

PYTHON_NAMES: Mapping[str, tuple[str, ...]] = {
    "read_study": ("klimb.workbench.study.study_config:read_study", "klimb.workbench.study.config:read_study"),
    "make_plan": ("klimb.workbench.study.plan:make_plan",),
}
"""What is asked of Python -> where it lies, in the old state and in later ones: the first that there is, is taken."""


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
        if sys.argv[1:2] == ["python"]:
            QUESTIONS[sys.argv[2]](*sys.argv[3:])
        else:
            cli.main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


def find(name: str) -> Any:
    """Import what is meant from the first place where it is.

    Raises:
        ImportError: it is at none of them.
    """
    for place in PYTHON_NAMES[name]:
        module, _, attribute = place.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(
        f"{name} is at none of {', '.join(PYTHON_NAMES[name])}: add its place to PYTHON_NAMES in {__file__}"
    )


def print_study_settings(source: str) -> None:
    """Print the resolved configuration of each run of a study, as JSON."""
    study, text = find("read_study")(source)
    plan = find("make_plan")(study, Path("study"), source=source, text=text)
    print(json.dumps({cell.name: to_jsonable_python(cell.config) for cell in plan.cells}))


QUESTIONS: Mapping[str, Callable[..., None]] = {"study-settings": print_study_settings}


if __name__ == "__main__":
    main()
