"""Conversations that show what a task is about, made by playing its environment: a warm start by behaviour cloning.

`python -m klimb.tasks.demonstrations calculator demonstrations.jsonl 64 digits=4` writes 64 of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klimb.tasks.catalogue import make_task
from klimb.tasks.games import calculator, guessing, sql
from klimb.tasks.protocol import Problem, ProblemSet
from klimb.tasks.tools import tools_of

if TYPE_CHECKING:  # for annotations only: klimb.experience imports torch, which a scoring process must not wait for
    from klimb.experience.samples import Message

Demonstrate = Callable[[Problem], "tuple[Message, ...]"]


DEMONSTRATIONS: Mapping[Callable[[], object], Demonstrate] = {
    calculator.Calculator: calculator.demonstrate,
    guessing.Guessing: guessing.demonstrate,
    sql.SqlDatabase: sql.demonstrate,
}
"""By what makes the environment: how a conversation about a problem goes. The same problem has the same one."""


def write_demonstrations(
    task: ProblemSet, path: str | Path, num: int, *, demonstrate: Demonstrate | None = None
) -> None:
    """Write conversations about the first training problems to a JSONL file, for `[cloning]`.

    A row is `{"messages": [...], "tools": [...]}`, both in OpenAI's form; the assistant's turns are what is imitated.
    Held-out problems are never shown.

    Args:
        task: with an environment.
        path: of the file, which is overwritten.
        num: how many conversations.
        demonstrate: how a conversation goes; None for a task of klimb's own.

    Raises:
        ValueError: the task has no environment, nobody knows how a conversation goes, or there are too few problems.
    """
    if task.environment is None:
        raise ValueError(f"{task.name} has no environment, so there is no conversation to show")
    demonstrate = demonstrate or DEMONSTRATIONS.get(task.environment)
    if demonstrate is None:
        raise ValueError(f"{task.name} is no task of klimb's own: say how a conversation goes, demonstrate=...")
    if not 1 <= num <= len(task.train):
        raise ValueError(f"num must be in [1, {len(task.train)}], the training problems of {task.name}; got {num}")
    tools = [tool.schema for tool in tools_of(task.environment())]
    rows = [{"messages": demonstrate(problem), "tools": tools} for problem in task.train[:num]]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(path).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Write demonstrations as the command line says: KIND PATH NUM, and settings of the task as KEY=VALUE."""
    if len(arguments) < 3 or not arguments[2].isdigit() or not all("=" in each for each in arguments[3:]):
        raise ValueError(
            "write `python -m klimb.tasks.demonstrations KIND PATH NUM KEY=VALUE ...`, for example `calculator "
            f"demonstrations.jsonl 64 digits=4`; got {' '.join(arguments)!r}"
        )
    kind, path, num, *settings = arguments
    pairs = [each.split("=", 1) for each in settings]
    write_demonstrations(make_task(kind, **{key: _read(value) for key, value in pairs}), path, int(num))


def _read(value: str) -> Any:
    """Return a value as JSON, and as text where it is none."""
    try:
        return json.loads(value)
    except ValueError:
        return value


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
