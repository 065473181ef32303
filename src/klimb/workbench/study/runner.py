"""Runs what is missing of a study, several runs side by side, whatever happens to any one of them.

How many runs of a study go side by side, and on which devices.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Literal

import torch

from klimb.errors import Interrupted
from klimb.training import StopRequest
from klimb.workbench.config import RunConfig
from klimb.workbench.study.cells import is_held, read_status, state_of, tail_of_log, write_status
from klimb.workbench.study.plan import Cell, StudyPlan
from klimb.workbench.study.progress import StudyProgress, StudyView
from klimb.workbench.study.worker import TAKEN, CellJob, is_measured, run_cell, start_folder

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Room for one run; `visible_devices` is what it may see of the GPUs, None for all as they are."""

    number: int
    visible_devices: str | None = None


def make_slots(configs: Sequence[RunConfig], *, jobs: int | Literal["auto"], threads_per_job: int) -> tuple[Slot, ...]:
    """Make a slot for each GPU, or for each `threads_per_job` processor cores where there is none; or as many as asked.

    More jobs than GPUs share them in turn.
    """
    devices = visible_devices() if all(_takes_any_gpu(config) for config in configs) else ()
    if devices:
        count = len(devices) if jobs == "auto" else jobs
        return tuple(Slot(number=n, visible_devices=devices[n % len(devices)]) for n in range(count))
    count = max(1, num_cores() // threads_per_job) if jobs == "auto" else jobs
    return tuple(Slot(number=number) for number in range(count))


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> tuple[str, ...]:
    """Return the GPUs that a run may be given, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name.strip()]
    return tuple(named[:count]) if named else tuple(str(number) for number in range(count))


def _takes_any_gpu(config: RunConfig) -> bool:
    """Return False for the processor, and for one GPU by number: whoever names it wants that one."""
    return config.model.device in ("auto", "cuda")


LOOK_SECONDS = 1.0
"""Between two looks at the runs' progress."""


PRELOADED = "klimb.workbench.study.worker"


@dataclass(kw_only=True)
class _Job:
    """A process at work; `was_asked` to stop it is once, since a second request would end it without saving."""

    order: CellJob
    process: ForkServerProcess
    slot: Slot
    began: float
    was_asked: bool = False


@dataclass
class _Work:
    """What is left to do, and what is being done."""

    starts: list[CellJob]
    cells: list[CellJob]
    jobs: list[_Job] = field(default_factory=list)
    free: list[Slot] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return not (self.starts or self.cells or self.jobs)

    def next(self) -> CellJob | None:
        """Return the next order that can begin: a cell waits for the evaluation that its task shares."""
        if self.starts:
            return self.starts.pop(0)
        busy = {start_folder(job.order.plan.folder, job.order.cell.config) for job in self.jobs if job.order.is_start}
        for number, order in enumerate(self.cells):
            if start_folder(order.plan.folder, order.cell.config) not in busy:
                return self.cells.pop(number)
        return None


def run_study(
    plan: StudyPlan, cells: Sequence[Cell], slots: Sequence[Slot], view: StudyView, *, retry_failed: bool
) -> None:
    """Run the cells that are not finished, in order.

    A run that fails is written down in its folder and leaves the others alone. On SIGINT or SIGTERM the runs finish
    their step and save their state; with a second one they end at once.

    Raises:
        Interrupted: a signal ended it; the same command goes on.
    """
    todo = [cell for cell in cells if _is_to_run(plan, cell, retry_failed=retry_failed)]
    work = _Work(
        starts=[CellJob(plan=plan, cell=cell, is_start=True) for cell in _starting_cells(plan, todo)],
        cells=[CellJob(plan=plan, cell=cell, retry_failed=retry_failed) for cell in todo],
        free=list(slots),
    )
    view.begin(StudyProgress.of(plan, cells, left=todo), num_slots=len(slots))
    with StopRequest() as stop:
        while not work.is_over and not (stop.signal_number and not work.jobs):
            if stop.signal_number is None:
                _fill(work, view)
            else:
                _ask_to_stop(work)
            connection.wait([job.process.sentinel for job in work.jobs], timeout=LOOK_SECONDS)
            _collect(work, view)
            view.look()
    if stop.signal_number is not None:
        raise Interrupted("stopped by a signal; the same command goes on", signal_number=stop.signal_number)


def _is_to_run(plan: StudyPlan, cell: Cell, *, retry_failed: bool) -> bool:
    state = state_of(plan, cell)
    return state in ("missing", "interrupted", "changed") or (state == "failed" and retry_failed)


def _starting_cells(plan: StudyPlan, cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each first evaluation that is not yet there."""
    distinct = {start_folder(plan.folder, cell.config): cell for cell in reversed(list(cells))}
    return [cell for folder, cell in reversed(distinct.items()) if not is_measured(folder)]


def _fill(work: _Work, view: StudyView) -> None:
    while work.free and (order := work.next()) is not None:
        slot = work.free.pop(0)
        order = replace(order, visible_devices=slot.visible_devices)
        process = _server().Process(target=run_cell, args=(order,))
        process.start()
        work.jobs.append(_Job(order=order, process=process, slot=slot, began=time.monotonic()))
        view.began(order.cell, is_start=order.is_start)


def _server() -> ForkServerContext:
    """Where processes come from: a server that has imported everything once, so that a run begins within a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _ask_to_stop(work: _Work) -> None:
    """Begins nothing more, and asks each run to save its state and end."""
    work.starts.clear()
    work.cells.clear()
    for job in work.jobs:
        if not job.was_asked:
            job.was_asked = True
            job.process.terminate()


def _collect(work: _Work, view: StudyView) -> None:
    """Take leave of the processes that have ended."""
    for job in [job for job in work.jobs if job.process.exitcode is not None]:
        work.jobs.remove(job)
        work.free.append(job.slot)
        job.process.join()
        if not job.order.is_start:
            _note_violent_end(job)
            is_elsewhere = job.process.exitcode == TAKEN
            view.ended(job.order.cell, seconds=time.monotonic() - job.began, is_elsewhere=is_elsewhere)


def _note_violent_end(job: _Job) -> None:
    """Write down the end of a process that could not do so itself."""
    plan, cell, status = job.order.plan, job.order.cell, job.process.exitcode
    assert status is not None
    path = plan.folder_of(cell)
    if status in (0, TAKEN, 128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM):
        return
    if read_status(path).get("state") != "running" or is_held(plan, cell):
        return
    error = _ended_by(-status) if status < 0 else f"the process ended with status {status}"
    write_status(path, {"state": "failed", "error": error, "traceback": tail_of_log(path)})


def _ended_by(number: int) -> str:
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    hint = "; the machine may have run out of memory: try fewer --jobs" if number == signal.SIGKILL else ""
    return f"ended by {name}{hint}"
