"""`klimb report`: findings in the terminal, the page, figures and tables."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.findings.run.record import RunRecord
from klimb.findings.run.rules import find
from klimb.training.run_folder import RunFolder, read_run
from klimb.ui.csv_export import write_csv
from klimb.ui.figures import write_figures
from klimb.ui.grouping import group_runs
from klimb.ui.pages.files import write_report_of
from klimb.ui.terminal.run import print_facts, print_findings
from klimb.ui.text import printable, relative_to_working_directory

console = Console()


PAGE_OF_SEVERAL = Path("report.html")


def report(
    first: Path,
    /,
    *others: Path,
    output: Path | None = None,
    figures: Path | None = None,
    csv: Path | None = None,
) -> None:
    """Make one page of HTML about runs: what was learned, what happened inside, what to try next.

    Args:
        first: A run's folder.
        others: More of them: compared in the same charts; runs that differ by their seed only share a band.
        output: Where the page goes; without it, report.html in the run's folder, or here for several runs.
        figures: Also write each chart as SVG and PNG into this folder.
        csv: Also write the numbers as CSV into this folder.
    """
    folders = (first, *others)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a run is named twice; name each once")
    records = [read_run(folder) for folder in folders]
    for record in records:
        _print_findings(record, is_alone=len(records) == 1)
    page = write_report_of(records, output or (RunFolder(first).report if len(records) == 1 else PAGE_OF_SEVERAL))
    facts = [("report", relative_to_working_directory(page))]
    if figures is not None:
        facts.append(("figures", _counted(write_figures(group_runs(records), figures), figures)))
    if csv is not None:
        facts.append(("tables", _counted(write_csv(group_runs(records), csv), csv)))
    print_facts(console, facts)


def _print_findings(record: RunRecord, *, is_alone: bool) -> None:
    if not is_alone:
        console.print(Text(printable(record.name), style="bold"), soft_wrap=True)
    print_findings(console, find(record))
    console.print()


def _counted(paths: list[Path], folder: Path) -> str:
    return f"{len(paths)} files in {relative_to_working_directory(folder)}"
