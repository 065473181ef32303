"""The `compare` command of the command line."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from klimb.workbench.study.compare_command import CompareRequest, list_ready_studies, run_compare

Switch = Annotated[bool, Parameter(negative="", show_default=False)]

console = Console()


def compare(
    study: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    folder: Path | None = None,
    jobs: int | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    dry_run: Switch = False,
    retry_failed: Switch = False,
    report_only: Switch = False,
) -> None:
    """Compare methods: the runs of a study under one budget, and whether their differences are real.

    What is finished is not run again: after an interruption, the same command goes on.

    Args:
        study: A study's TOML file, or the name of a ready one; without it, the ready ones are listed.
        folder: Where the study goes; without it, `study.folder`/`study.name`.
        jobs: Runs at the same time; without it, as `study.jobs` says.
        only: Run these methods alone.
        dry_run: Show what there is to run, and stop.
        retry_failed: Run again what failed; the failed run is kept aside.
        report_only: Run nothing; compare what there is.
    """
    if not study:
        list_ready_studies(console)
        return
    request = CompareRequest(
        study=study,
        folder=folder,
        jobs=jobs,
        only=only,
        dry_run=dry_run,
        retry_failed=retry_failed,
        report_only=report_only,
    )
    run_compare(request, console=console)
