"""The results of a study as files: its page, tables and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from klimb.findings.study.analysis import StudyStatistics
from klimb.findings.study.scores import StudyScores
from klimb.ui.figures import write_study_figures
from klimb.ui.pages.files import write_text
from klimb.ui.pages.study import study_page
from klimb.ui.tables import StudyTable, as_csv, as_latex, as_markdown, study_tables

PAGE, TABLES, FIGURES = "report.html", "tables", "figures"


FORMATS = {"md": as_markdown, "csv": as_csv, "tex": as_latex}


@dataclass(frozen=True)
class Published:
    """What was written: the page, the main table as Markdown, and the folders of all tables and figures."""

    page: Path
    main_table: Path
    tables: Path
    figures: Path


def publish(statistics: StudyStatistics, folder: Path) -> Published:
    """Write `report.html`, `tables/<name>.md|csv|tex` and `figures/<name>.svg|png` into the study's folder."""
    tables = study_tables(statistics)
    for table in tables:
        _write_table(table, folder / TABLES)
    write_study_figures(statistics, folder / FIGURES)
    write_text(folder / PAGE, study_page(statistics, reports=_reports(statistics.scores, folder)))
    return Published(folder / PAGE, folder / TABLES / f"{tables[0].name}.md", folder / TABLES, folder / FIGURES)


def _write_table(table: StudyTable, folder: Path) -> None:
    for ending, written in FORMATS.items():
        write_text(folder / f"{table.name}.{ending}", written(table))


def _reports(scores: StudyScores, folder: Path) -> Mapping[str, str]:
    """Return the reports that runs have, by the run's folder; addresses are relative to the study's page."""
    folders = [run.folder for run in scores.runs if run.folder and (folder / run.folder / PAGE).is_file()]
    return {name: quote(f"{name}/{PAGE}") for name in folders}
