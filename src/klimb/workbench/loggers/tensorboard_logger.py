"""Event files for TensorBoard."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger
from klimb.workbench.loggers.tracker import Cell, Tracker


class TensorBoardTracker:
    """Event files for TensorBoard, opened at the first step: what an earlier process wrote behind it is hidden."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One point per metric."""
        writer = self._writer_at(step)
        for name, value in metrics.items():
            writer.add_scalar(name, value, global_step=step)

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Write a table in Markdown, which TensorBoard shows under Text."""
        self._writer_at(step).add_text("completions", markdown_table(columns, rows), global_step=step)

    def close(self, *, is_finished: bool) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()

    def _writer_at(self, step: int) -> Any:
        if self._writer is None:
            self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(self._folder), purge_step=step)
        return self._writer


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return the table; no text in it acts as Markdown or HTML, so that none loads a picture or is a link."""
    lines = [
        [_cell(name) for name in columns],
        ["---"] * len(columns),
        *([_cell(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    plain = escape("" if value is None else str(value)).replace("|", "&#124;").replace("\n", " ⏎ ")
    return _MARKDOWN.sub(r"\\\1", plain)


_MARKDOWN = re.compile(r"([\\`*_{}\[\]()+\-.!])")
"""What Markdown reads as more than itself, and can be told not to."""


def open_tensorboard(run: LoggedRun) -> tuple[Tracker, str]:
    """Into `tensorboard/` of the run's folder; it needs no id."""
    return TensorBoardTracker(run.folder / "tensorboard"), ""


LOGGER = Logger(name="tensorboard", package="tensorboard", install="tensorboard", open=open_tensorboard)
