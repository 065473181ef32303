"""`klimb report`: findings in the terminal, the page, figures and tables."""

from pathlib import Path

from rich.console import Console

from klimb.errors import ConfigError
from klimb.own_parts import is_own
from klimb.workbench.options import Pairs, PathOrNone


def report(
    first: Path,
    /,
    *others: Path,
    output: PathOrNone = None,
    figures: PathOrNone = None,
    csv: PathOrNone = None,
    findings: Pairs = (),
) -> None:
    """Make one page of HTML about runs: what was learned, what happened inside, what to try next.

    Args:
        first: A run's folder.
        others: More of them: compared in the same charts; runs that differ by their seed only share a band.
        output: Where the page goes; without it, report.html in the run's folder, or here for several runs.
        figures: Also write each chart as SVG and PNG into this folder.
        csv: Also write the numbers as CSV into this folder.
        findings: Also ask these rules of your own, `python:module.name`, besides the runs' own `run.findings`.
    """
    folders = (first, *others)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a run is named twice; name each once")
    wrong = next((name for name in findings if not is_own(name)), None)
    if wrong is not None:
        raise ConfigError(f"--findings takes rules of your own such as python:my_parts.my_finding, got {wrong!r}")
    from klimb.training.run_folder import check_holds_run

    for folder in folders:
        check_holds_run(folder)
    from klimb.workbench.reporting import report_runs

    report_runs(folders, findings=findings, output=output, figures=figures, csv=csv, console=Console())
