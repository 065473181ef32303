"""How far a study has come: a live table in a terminal, a line per event elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from klimb.training import read_evaluations
from klimb.training.json_lines import last_line
from klimb.training.run_folder import RunFolder
from klimb.ui.text import duration, printable
from klimb.workbench.study.cells import read_status, state_of
from klimb.workbench.study.plan import Cell, StudyPlan

NAME_WIDTH = 52


@dataclass
class StudyProgress:
    """Which cells are in which state.

    Attributes:
        left: still to be run.
        running: cell -> when it began, on the monotonic clock.
        seconds: what each run that ended in this compare took.
    """

    plan: StudyPlan
    cells: tuple[Cell, ...]
    left: list[Cell]
    running: dict[str, tuple[Cell, float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    num_finished: int = 0
    num_failed: int = 0

    @classmethod
    def of(cls, plan: StudyPlan, cells: Sequence[Cell], *, left: Sequence[Cell]) -> "StudyProgress":
        """Return the state at the beginning of a compare."""
        states = [state_of(plan, cell) for cell in cells]
        is_retried = {cell.name for cell in left}
        failed = [cell for cell, state in zip(cells, states, strict=True) if state == "failed"]
        return cls(
            plan=plan,
            cells=tuple(cells),
            left=list(left),
            num_finished=states.count("finished"),
            num_failed=sum(cell.name not in is_retried for cell in failed),
        )

    def begin(self, cell: Cell) -> None:
        """Note that a run has begun."""
        self.running[cell.name] = (cell, time.monotonic())

    def end(self, cell: Cell, seconds: float) -> str:
        """Return a run has ended; returns the state it left."""
        self.running.pop(cell.name, None)
        self.left = [other for other in self.left if other is not cell]
        state = state_of(self.plan, cell)
        self.num_finished += state == "finished"
        self.num_failed += state == "failed"
        if state == "finished":
            self.seconds.append(seconds)
        return state

    def fraction_of(self, cell: Cell) -> float:
        """Share of its budget that a run has spent, by the last line of its metrics."""
        row = last_row(RunFolder(self.plan.folder_of(cell)).metrics)
        budget = self.plan.study.study.budget
        spent = row.get("num_tokens_generated" if budget.kind == "tokens" else "elapsed_seconds") or 0.0
        return min(1.0, spent / budget.amount)

    def seconds_left(self, num_slots: int) -> float | None:
        """Until all is done, at the pace so far; None while nothing tells."""
        now = time.monotonic()
        shares = [(self.fraction_of(cell), now - began) for cell, began in self.running.values()]
        paces = self.seconds or [elapsed / share for share, elapsed in shares if share > 0.05]
        if not paces:
            return None
        work = len(self.left) - sum(share for share, _ in shares)
        return max(0.0, work) * (sum(paces) / len(paces)) / min(num_slots, max(1, len(self.left)))


class StudyView:
    """Shows the progress of a study; closes itself as a context manager."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._title = title
        self._progress: StudyProgress | None = None
        self._num_slots = 1
        self._began = time.monotonic()
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None

    def __enter__(self) -> "StudyView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *ending: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, progress: StudyProgress, *, num_slots: int) -> None:
        """Show what there is to do, before the first run begins."""
        self._progress, self._num_slots = progress, num_slots
        finished, failed = progress.num_finished, progress.num_failed
        earlier = f" · {finished} finished earlier" if finished else ""
        earlier += f" · {failed} failed earlier (--retry-failed runs them again)" if failed else ""
        self._say(f"{len(progress.left)} of {len(progress.cells)} runs to do, {num_slots} at a time{earlier}")

    def began(self, cell: Cell, *, is_start: bool) -> None:
        """Show that a process has begun."""
        assert self._progress is not None
        if is_start:
            self._say(f"evaluating the untrained model on {cell.task}, once for all runs")
            return
        self._progress.begin(cell)
        if self._live is None:
            self._say(f"begun     {cell.name}")

    def ended(self, cell: Cell, *, seconds: float, is_elsewhere: bool) -> None:
        """Show that a run's process has ended; `is_elsewhere` when another compare works on the cell."""
        progress = self._progress
        assert progress is not None
        state = progress.end(cell, seconds)
        if is_elsewhere:
            self._say(f"elsewhere {cell.name}  another compare works on it", style="yellow")
            return
        path = progress.plan.folder_of(cell)
        note = _result(path) if state == "finished" else str(read_status(path).get("error", ""))
        style = {"finished": "green", "failed": "red"}.get(state, "yellow")
        line = f"{state:<9} {cell.name}  {duration(seconds)}  {printable(note, limit=300)}"
        self._say(f"{line}  {self._standing()}" if self._live is None else line, style=style)

    def look(self) -> None:
        """Draws the present state."""
        if self._live is not None and self._progress is not None:
            self._live.update(self._drawn(self._progress), refresh=True)

    def _say(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _standing(self) -> str:
        """`[12/40, 1 failed, 1:02:03 left]`."""
        progress = self._progress
        assert progress is not None
        left = progress.seconds_left(self._num_slots)
        parts = [f"{progress.num_finished}/{len(progress.cells)}"]
        parts += [f"{progress.num_failed} failed"] if progress.num_failed else []
        parts += [f"{duration(left)} left"] if left is not None and progress.left else []
        return f"[{', '.join(parts)}]"

    def _drawn(self, progress: StudyProgress) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, width=NAME_WIDTH)
        table.add_column(width=24)
        table.add_column(no_wrap=True)
        total, done = len(progress.cells), progress.num_finished + progress.num_failed
        elapsed = duration(time.monotonic() - self._began)
        title = Text(f"{self._title} {self._standing()}", style="bold", overflow="ellipsis")
        table.add_row(title, ProgressBar(total=total, completed=done, width=24), Text(elapsed))
        for cell, began in list(progress.running.values()):
            share = progress.fraction_of(cell)
            name = Text(f"  {cell.name}", style="dim", overflow="ellipsis")
            table.add_row(name, ProgressBar(total=1, completed=share, width=24), _pace(began, share))
        return Group(table)


def last_row(path: Path) -> dict[str, Any]:
    """Return the last whole line of a file of JSON lines that may be growing; empty if there is none."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return last_line(file.fileno())


def _pace(began: float, share: float) -> Text:
    elapsed = time.monotonic() - began
    left = f" · {duration(elapsed / share - elapsed)} left" if share > 0.05 else ""
    return Text(f"{duration(elapsed)}{left}")


def _result(path: Path) -> str:
    """`0.21 → 0.78`, the held-out mean before and after."""
    records = read_evaluations(RunFolder(path).evaluations)
    return f"{records[0].mean:.3f} → {records[-1].mean:.3f}" if records else ""
