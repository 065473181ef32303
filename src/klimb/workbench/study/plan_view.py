"""`klimb compare STUDY --dry-run`: the matrix, what is done of it, and how long the rest takes."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.training.run_folder import RunFolder
from klimb.ui.text import duration, printable, relative_to_working_directory
from klimb.workbench.study.cells import CellState, read_json, state_of
from klimb.workbench.study.plan import Cell, StudyPlan
from klimb.workbench.study.runner import Slot

MOST_NAMED = 20


TOLD_APART: tuple[CellState, ...] = ("failed", "interrupted", "changed")
"""States that a reader may want to do something about, so the runs are named."""


def show_plan(console: Console, plan: StudyPlan, cells: Sequence[Cell], slots: Sequence[Slot]) -> None:
    """Print what a compare of these cells would do; makes nothing."""
    states: dict[str, CellState] = {cell.name: state_of(plan, cell) for cell in cells}
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, value in _facts(plan, cells, slots, states):
        table.add_row(Text(label, style="dim"), Text(value))
    console.print(table)
    console.print()
    console.print(_matrix(plan, cells, states))
    named = [cell.name for cell in cells if states[cell.name] in TOLD_APART]
    for name in named[:MOST_NAMED]:
        console.print(Text(f"  {states[name]:<12} {name}"), soft_wrap=True)
    if len(named) > MOST_NAMED:
        console.print(Text(f"  and {len(named) - MOST_NAMED} more"))


def _facts(
    plan: StudyPlan, cells: Sequence[Cell], slots: Sequence[Slot], states: Mapping[str, CellState]
) -> list[tuple[str, str]]:
    section = plan.study.study
    counts = Counter(states.values())
    return [
        ("study", f"{section.name} in {relative_to_working_directory(plan.folder)}"),
        ("seeds", ", ".join(map(str, plan.study.seeds))),
        ("budget", f"{section.budget.amount:,.0f} {section.budget.kind} a run, evaluated {section.evaluations} times"),
        ("jobs", f"{len(slots)} at a time{_devices(slots)}, {section.threads_per_job} threads each"),
        ("runs", f"{len(cells)}: " + ", ".join(f"{count} {state}" for state, count in counts.items())),
        ("time", _time(plan, cells, states, num_jobs=len(slots))),
    ]


def _time(plan: StudyPlan, cells: Sequence[Cell], states: Mapping[str, CellState], *, num_jobs: int) -> str:
    """Return what is left, from the median of the finished runs; they tell it best, being of this machine."""
    num_left = sum(state != "finished" for state in states.values())
    summaries = [
        read_json(RunFolder(plan.folder_of(cell)).summary) for cell in cells if states[cell.name] == "finished"
    ]
    taken = [float(summary["seconds"]["total"]) for summary in summaries if "seconds" in summary]
    if not num_left:
        return "none: every run is finished"
    if not taken:
        return "unknown until a run has finished"
    each = statistics.median(taken)
    return f"about {duration(each * num_left / num_jobs)}: {num_left} runs of {duration(each)} each, as those finished"


def _matrix(plan: StudyPlan, cells: Sequence[Cell], states: Mapping[str, CellState]) -> Table:
    """Finished runs of all, a row for each method and setting, a column for each task."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    table.add_column("finished of all", overflow="fold")
    for task in tasks:
        table.add_column(printable(task), justify="right", overflow="fold")
    for method, setting in dict.fromkeys((cell.method, cell.setting) for cell in cells):
        name = f"{method} ({setting})" if setting else method
        baseline = ", baseline" if method == plan.study.study.baseline else ""
        row = [
            [states[cell.name] for cell in cells if (cell.task, cell.method, cell.setting) == (task, method, setting)]
            for task in tasks
        ]
        done = [Text(f"{found.count('finished')} of {len(found)}") for found in row]
        table.add_row(Text(printable(name + baseline)), *done)
    return table


def _devices(slots: Sequence[Slot]) -> str:
    devices = sorted({slot.visible_devices for slot in slots if slot.visible_devices is not None})
    return f" on GPU {', '.join(devices)}" if devices else ""
