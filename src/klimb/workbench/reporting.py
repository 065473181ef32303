"""Findings of runs in the terminal, their page, figures and tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.findings.finding import Finding
from klimb.findings.run.record import RunRecord
from klimb.training.run_folder import RunFolder, read_run
from klimb.ui.csv_export import write_csv
from klimb.ui.figures import write_figures
from klimb.ui.grouping import group_runs
from klimb.ui.pages.files import write_report_of
from klimb.ui.terminal.run import print_facts, print_findings
from klimb.ui.text import printable, relative_to_working_directory
from klimb.workbench.own_findings import check_findings, find_in

PAGE_OF_SEVERAL = Path("report.html")


def report_runs(
    folders: Sequence[Path],
    *,
    findings: Sequence[str],
    output: Path | None,
    figures: Path | None,
    csv: Path | None,
    console: Console,
) -> None:
    """Print the findings of each run and write the page, and figures and tables where asked.

    Raises:
        ConfigError: there is no such rule among `findings`, those of the user's own that are asked besides the runs'.
    """
    check_findings(findings, setting="--findings")
    records = [read_run(folder) for folder in folders]
    found = [find_in(record, findings) for record in records]
    for record, of_run in zip(records, found, strict=True):
        _print_findings(console, record, of_run, is_alone=len(records) == 1)
    page = output or (RunFolder(folders[0]).report if len(records) == 1 else PAGE_OF_SEVERAL)
    write_report_of(records, page, found)
    facts = [("report", relative_to_working_directory(page))]
    if figures is not None:
        facts.append(("figures", _counted(write_figures(group_runs(records), figures), figures)))
    if csv is not None:
        facts.append(("tables", _counted(write_csv(group_runs(records), csv), csv)))
    print_facts(console, facts)


def _print_findings(console: Console, record: RunRecord, found: Sequence[Finding], *, is_alone: bool) -> None:
    if not is_alone:
        console.print(Text(printable(record.name), style="bold"), soft_wrap=True)
    print_findings(console, found)
    console.print()


def _counted(paths: list[Path], folder: Path) -> str:
    return f"{len(paths)} files in {relative_to_working_directory(folder)}"
