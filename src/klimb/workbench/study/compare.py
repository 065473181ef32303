"""Run what is missing of a study, then say what came of it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError, Interrupted
from klimb.findings.study.analysis import analyse
from klimb.training.run_folder import write_json
from klimb.ui.terminal.run import print_facts
from klimb.ui.terminal.study import print_study
from klimb.ui.text import printable, relative_to_working_directory
from klimb.workbench.loggers import check_loggers
from klimb.workbench.options import CompareOptions
from klimb.workbench.own_findings import check_findings
from klimb.workbench.provenance import provenance
from klimb.workbench.session import make_loop_settings, make_objective, make_task
from klimb.workbench.study.cells import LOG_NAME, read_status, state_of
from klimb.workbench.study.collecting import collect_scores
from klimb.workbench.study.config import StudyConfig
from klimb.workbench.study.looks import earlier_looks, record_look
from klimb.workbench.study.plan import Cell, StudyPlan, make_plan
from klimb.workbench.study.plan_view import show_plan
from klimb.workbench.study.progress import StudyView
from klimb.workbench.study.publishing import publish
from klimb.workbench.study.runner import Slot, make_slots, run_study

STUDY_FILE, RESOLVED_FILE = "study.toml", "study.json"


MOST_FAILURES, LONGEST_ERROR = 5, 300


def run_compare(name: str, study: StudyConfig, text: str, request: CompareOptions, *, console: Console) -> None:
    """Do what is asked.

    Raises:
        ConfigError: the study can't be run; nothing has been begun then.
        Interrupted: a signal stopped it; the runs have saved their state.
    """
    folder = request.folder or Path(study.study.folder) / study.study.name
    command = command_of(name, request)
    plan = make_plan(study, folder, source=name, text=text)
    cells = _chosen(plan, request.only)
    slots = make_slots(
        [cell.config for cell in cells],
        jobs=request.jobs or study.study.jobs,
        threads_per_job=study.study.threads_per_job,
    )
    if request.dry_run:
        show_plan(console, plan, cells, slots)
        return
    if not request.report_only:
        check_can_begin(cells)
        _open_folder(plan, command)
        _run(plan, cells, slots, request, console, command=command)
        _tell_failures(plan, cells, console)
    if any(state_of(plan, cell) == "finished" for cell in plan.cells):
        report_study(plan, command=command, console=console)
    else:
        console.print("no run has finished: there is nothing to compare")


def check_can_begin(cells: Sequence[Cell]) -> None:
    """Return if every cell's objective, task, settings and loggers can be made; each distinct one is tried once.

    Raises:
        ConfigError: one can't, naming the cell.
    """
    tried: set[str] = set()
    for cell in cells:
        config = cell.config
        arm = cell.name.rpartition("/")[0]
        if arm in tried:
            continue
        try:
            make_objective(config)
            make_loop_settings(config)
            check_loggers(config.run.loggers)
            check_findings(config.run.findings)
            task = None if _task_key(cell) in tried else make_task(config)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{arm}: {error}") from error
        if task is not None and not (task.train and task.held_out):
            raise ConfigError(
                f"{arm}: task {task.name} has {len(task.train)} training and {len(task.held_out)} held-out problems; "
                "a study needs both"
            )
        tried |= {arm, _task_key(cell)}


def _task_key(cell: Cell) -> str:
    config = cell.config
    sampling = config.sampling
    return f"{config.model_dump_json(include={'task', 'scoring'})} {sampling.max_new_tokens} {sampling.stop}"


def _chosen(plan: StudyPlan, only: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells of these methods; all without any."""
    unknown = [name for name in only if name not in plan.study.methods]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: the study's methods are {', '.join(plan.study.methods)}")
    return tuple(cell for cell in plan.cells if not only or cell.method in only)


def _open_folder(plan: StudyPlan, command: str) -> None:
    """Make the study's folder, or goes on in it; the study as it now is, is written there."""
    folder = plan.folder
    if folder.exists() and not (folder / RESOLVED_FILE).is_file() and any(folder.iterdir()):
        raise ConfigError(f"{folder} already exists and holds no study; choose another folder with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY_FILE).write_text(plan.text, encoding="utf-8")
    write_json(
        folder / RESOLVED_FILE,
        {
            "study": plan.study.model_dump(mode="json"),
            "command": command,
            "provenance": provenance(plan.cells[0].config, apart_from=[folder]),
            "runs": [cell.name for cell in plan.cells],
        },
    )


def command_of(name: str, request: CompareOptions) -> str:
    """Return the command that makes the study anew or goes on with it."""
    folder = ["--folder", str(request.folder)] if request.folder else []
    return shlex.join(["klimb", "compare", name, *folder])


def _run(
    plan: StudyPlan,
    cells: Sequence[Cell],
    slots: Sequence[Slot],
    request: CompareOptions,
    console: Console,
    *,
    command: str,
) -> None:
    try:
        with StudyView(console, title=plan.study.study.name) as view:
            run_study(plan, cells, slots, view, retry_failed=request.retry_failed)
    except Interrupted:
        states = [state_of(plan, cell) for cell in cells]
        done = (
            f"stopped with {states.count('finished')} of {len(cells)} runs finished; the others have saved their state"
        )
        how = Text.assemble((f"{done}\n", "yellow"), "go on with  ", (command, "cyan"))
        console.print(how, soft_wrap=True)
        raise


def _tell_failures(plan: StudyPlan, cells: Sequence[Cell], console: Console) -> None:
    failed = [plan.folder_of(cell) for cell in cells if state_of(plan, cell) == "failed"]
    for path in failed[:MOST_FAILURES]:
        error = printable(str(read_status(path).get("error", "")), limit=LONGEST_ERROR)
        log = relative_to_working_directory(path / LOG_NAME)
        console.print(Text.assemble(("failed  ", "red"), f"{error}\n        {log}"), soft_wrap=True)
    if len(failed) > MOST_FAILURES:
        console.print(Text(f"failed  {len(failed) - MOST_FAILURES} more"))


def report_study(plan: StudyPlan, *, command: str, console: Console) -> None:
    """Print what the runs that there are say, and writes the page, tables and figures beside them."""
    with console.status("comparing"):
        scores = collect_scores(plan, command=command)
        statistics = analyse(replace(scores, earlier_looks=earlier_looks(plan.folder, scores)))
        if statistics.has_tested:
            # Before anything is shown: what was seen cannot be unseen.
            record_look(plan.folder, scores)
        published = publish(statistics, plan.folder)
    console.print()
    print_study(console, statistics)
    console.print()
    print_facts(
        console,
        [
            ("page", relative_to_working_directory(published.page)),
            ("tables", relative_to_working_directory(published.tables)),
            ("figures", relative_to_working_directory(published.figures)),
        ],
    )
