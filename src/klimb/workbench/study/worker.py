"""One run of a study, in a process of its own.

The process that imports this module is the fork server of a compare: it starts no threads and touches no device, so
that each run begins with everything imported.

The evaluation of the untrained model, made once for all runs that begin with it.

Every run of a task starts from the same model, is asked the same held-out problems and draws its answers from the same
seed, so all of these evaluations would come out the same.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path

from rich.console import Console
from transformers.utils import logging as transformers_logging

from klimb.errors import Interrupted
from klimb.findings.evaluations import Progress
from klimb.own_parts import sources_of
from klimb.training import RunFolderInUse, run_folder_lock
from klimb.training.evaluation import write_evaluations
from klimb.training.run_folder import RunFolder, is_run, write_json
from klimb.workbench.config import RunConfig, table_of
from klimb.workbench.config.reading import save_config
from klimb.workbench.environments import files_of
from klimb.workbench.measuring import measure
from klimb.workbench.provenance import mend_before_resume, provenance
from klimb.workbench.run import run_training
from klimb.workbench.session import Session, make_session
from klimb.workbench.study.cells import LOG_NAME, lock_folder_of, set_aside, state_of, write_status
from klimb.workbench.study.plan import Cell, StudyPlan

COMPLETE = "complete"
"""An empty file in a shared start: its evaluation is whole."""


INTERVALS = {"every_steps", "every_tokens", "every_seconds"}


PORTIONS = {"max_processes", "device"}
"""Keys of environments and rewards that change no number."""


def start_key(config: RunConfig) -> str:
    """Name all that this evaluation depends on; a fresh adapter changes nothing, so the run's seed is no part."""
    tables = config.model_dump(mode="json", include={"model", "task", "scoring"})
    environment, rewards = config.environment, config.rewards
    named = () if environment is None else (environment.factory, *environment.tools)
    named = (*named, *(each.reward for each in rewards.values()))
    own = sources_of(config.task.kind, config.task.reward, config.sampling.sampler, *named)
    own |= files_of("" if environment is None else environment.command)
    parts = {
        **tables,
        **({} if environment is None else {"environment": table_of(environment, exclude=PORTIONS)}),
        **({"rewards": {name: table_of(each, exclude=PORTIONS) for name, each in rewards.items()}} if rewards else {}),
        **({"own_parts": own} if own else {}),
        "evaluation": table_of(config.evaluation, exclude=INTERVALS),
        "max_new_tokens": config.sampling.max_new_tokens,
        **({"stop": config.sampling.stop} if config.sampling.stop else {}),
        "max_batch": config.sampling.max_batch,
        "num_threads": config.training.num_threads,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def start_folder(study_folder: Path, config: RunConfig) -> Path:
    """Where the evaluation is kept."""
    return study_folder / "starts" / start_key(config)


def is_measured(folder: Path) -> bool:
    """Return True if the evaluation is there: the sign is made after it."""
    return (folder / COMPLETE).is_file()


def measure_start(session: Session, folder: Path) -> None:
    """Evaluate the session's model, not yet trained, and keep the result in the folder."""
    with session.running():
        evaluation = measure(
            session.policy,
            session.sampler,
            session.scorer,
            session.held_out,
            session.config,
            when="before",
            progress=Progress(),
            dialogues=session.dialogues,
        )
    write_evaluations(RunFolder(folder).evaluations, [evaluation])
    (folder / COMPLETE).touch()


def copy_start(source: Path, run: Path) -> None:
    """Give a run that has not begun the evaluation it would make itself."""
    if is_measured(source):
        shutil.copyfile(RunFolder(source).evaluations, RunFolder(run).evaluations)


FAILED, TAKEN = 1, 3
"""Exit statuses: the run failed and has written why; another process has the cell."""


LOG_WIDTH = 160


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """What a process is told to do.

    Attributes:
        cell: whose run, or whose task's first evaluation.
        is_start: only evaluate the untrained model.
        visible_devices: value of CUDA_VISIBLE_DEVICES; None leaves it as it is.
        retry_failed: begin anew what failed before.
    """

    plan: StudyPlan
    cell: Cell
    is_start: bool = False
    visible_devices: str | None = None
    retry_failed: bool = False


def run_cell(order: CellJob) -> None:
    """Do it and ends the process with 0, `FAILED`, `TAKEN`, or 128 + signal."""
    # The terminal's Ctrl-C reaches the compare alone, which then asks each run to stop.
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if order.visible_devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.visible_devices
    start = start_folder(order.plan.folder, order.cell.config)
    lock = start if order.is_start else lock_folder_of(order.plan, order.cell)
    try:
        with run_folder_lock(lock):
            status = _measure_start(order, start) if order.is_start else _run(order, start)
    except RunFolderInUse:
        status = TAKEN
    sys.exit(status)


def _measure_start(order: CellJob, folder: Path) -> int:
    if is_measured(folder):
        return 0
    with _printing_to(folder / LOG_NAME):
        measure_start(make_session(order.cell.config), folder)
    return 0


def _run(order: CellJob, start: Path) -> int:
    plan, cell = order.plan, order.cell
    path, state = plan.folder_of(cell), state_of(plan, cell)
    if state == "finished" or (state == "failed" and not order.retry_failed):
        return 0 if state == "finished" else FAILED
    if state in ("changed", "failed"):
        set_aside(plan, cell)
    path.mkdir(parents=True, exist_ok=True)
    write_status(path, {"state": "running", "pid": os.getpid()})
    with _printing_to(path / LOG_NAME):
        try:
            _train(plan, cell, path, start)
        except Interrupted as error:
            write_status(path, {"state": "interrupted"})
            return error.status
        except Exception as error:  # whatever it is ends this run alone: it is written down and raised again
            write_status(path, {"state": "failed", "error": in_short(error), "traceback": traceback.format_exc()})
            raise
    write_status(path, {"state": "finished"})
    return 0


def _train(plan: StudyPlan, cell: Cell, path: Path, start: Path) -> None:
    resume = is_run(path)
    session = make_session(cell.config)
    run_training(
        session,
        lambda: _open_run(plan, cell, path, start),
        console=Console(width=LOG_WIDTH, no_color=True),
        title=cell.name,
        resume=resume,
    )
    if not cell.config.checkpoints.at_end:
        # What an interruption or a rare save left; the run is over, and hundreds of runs have gigabytes of it.
        shutil.rmtree(path / "checkpoints", ignore_errors=True)


def _open_run(plan: StudyPlan, cell: Cell, path: Path, start: Path) -> RunFolder:
    folder = RunFolder(path)
    if is_run(path):
        mend_before_resume(folder, cell.config)
    else:
        copy_start(start, path)
        save_config(folder.config, cell.config)
        write_json(folder.provenance, provenance(cell.config, folder=path, apart_from=[plan.folder]))
    return folder


def in_short(error: BaseException) -> str:
    """`ValueError: the first line of what it says`."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}"[:500]


def _end_with_parent() -> None:
    """Asks this process to stop, as a terminal would, once the compare that began it is no more."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """From here on, everything that this process and its libraries print is appended to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers_logging.set_verbosity_error()
    yield
