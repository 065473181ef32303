"""The report as a file: never over something that klimb did not write."""

import logging
from collections.abc import Sequence
from pathlib import Path

from klimb.workbench.audit_files import write_text
from klimb.workbench.config import ConfigError
from klimb.workbench.report.page import GENERATOR, report_page
from klimb.workbench.report.record import RunRecord, read_run
from klimb.workbench.report.style import is_page_of
from klimb.workbench.runs import RunFolder

logger = logging.getLogger(__name__)

REPLACED_CHARACTERS = 2000


def write_report(folders: Sequence[Path], output: Path) -> Path:
    """Writes the page about these runs and returns its path.

    Raises:
        ConfigError: a folder holds no run, or there is something at `output` that is no report.
    """
    return write_report_of([read_run(folder) for folder in folders], output)


def write_report_of(records: Sequence[RunRecord], output: Path) -> Path:
    """The same for runs that are read already."""
    if output.exists() and not _is_report(output):
        raise ConfigError(f"{output} is there already and no page of klimb report; choose another name with --output")
    write_text(output, report_page(records))
    return output


def report_at_the_end(folder: RunFolder) -> Path | None:
    """Writes a finished run's own report.html and returns its path; None if that failed, which is logged.

    The run's results are all on the disk by then, and no defect of a page may take them back.
    """
    try:
        return write_report([folder.path], folder.report)
    except Exception:
        logger.exception(
            "the run is complete, but its report could not be made; klimb report %s tries again", folder.path
        )
        return None


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return is_page_of(file.read(REPLACED_CHARACTERS), GENERATOR)
