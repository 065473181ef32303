"""Where an audit writes its page and its run file: never over something that somebody else wrote or changed.

The report as a file: never over something that klimb did not write.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from klimb.errors import ConfigError
from klimb.experience.atomic import replace_atomically
from klimb.findings.finding import Finding
from klimb.findings.run.record import RunRecord
from klimb.findings.run.rules import find
from klimb.training.run_folder import RunFolder, read_run
from klimb.ui.pages.audit import GENERATOR as AUDIT
from klimb.ui.pages.frame import is_page_of
from klimb.ui.pages.run import GENERATOR, report_page

RUN_FILE_MARK = "# made by klimb audit; sha256 of the lines above: "


MOST_NUMBERED = 10_000


def stamped(run_file: str) -> str:
    """Return the text, which ends a line, with one more by which `is_ours` tells whether anybody changed it."""
    return f"{run_file}{RUN_FILE_MARK}{_digest(run_file)}\n"


def is_ours(path: Path) -> bool:
    """Return True for a file that an audit made and nobody changed since, as far as its mark tells."""
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    # A page shows the run file and with it that file's mark.
    if text.startswith("<!DOCTYPE html>"):
        return is_page_of(text, AUDIT)
    above, mark, digest = text.rpartition(RUN_FILE_MARK)
    return bool(mark) and digest == f"{_digest(above)}\n"


def chosen_path(asked: Path | None, *, data: Path, suffix: str) -> Path:
    """Choose the path: the one asked for, else `<data>-audit<suffix>` here, or the first free `-audit-2` ….

    Raises:
        ConfigError: what is asked for is there already and no unchanged file of an audit.
    """
    if asked is not None:
        if asked.exists() and not is_ours(asked):
            raise ConfigError(f"{asked} is there already and no unchanged file of klimb audit; choose another name")
        return asked
    resolved = data.resolve()
    stem = resolved.stem if resolved.suffix == ".parquet" else resolved.name
    for number in range(1, MOST_NUMBERED):
        path = Path(f"{stem or 'data'}-audit{'' if number == 1 else f'-{number}'}{suffix}")
        if not path.exists() or is_ours(path):
            return path
    raise ConfigError(f"there are {MOST_NUMBERED} files named {stem}-audit-<number>{suffix} here; tidy up")


def write_text(path: Path, text: str) -> None:
    """Write the file whole or not at all; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


logger = logging.getLogger(__name__)


REPLACED_CHARACTERS = 2000


def write_report(folders: Sequence[Path], output: Path) -> Path:
    """Write the page about these runs and returns its path.

    Raises:
        ConfigError: a folder holds no run, or there is something at `output` that is no report.
    """
    return write_report_of([read_run(folder) for folder in folders], output)


def write_report_of(
    records: Sequence[RunRecord], output: Path, found: Sequence[Sequence[Finding]] | None = None
) -> Path:
    """Return the same for runs that are read already, and with these findings of each if they are given."""
    if output.exists() and not _is_report(output):
        raise ConfigError(f"{output} is there already and no page of klimb report; choose another name with --output")
    write_text(output, report_page(records, found))
    return output


def report_at_the_end(folder: RunFolder, look: Callable[[RunRecord], Sequence[Finding]] = find) -> Path | None:
    """Write a finished run's own report.html and returns its path; None if that failed, which is logged.

    The run's results are all on the disk by then, and no defect of a page may take them back.
    """
    try:
        record = read_run(folder.path)
        return write_report_of([record], folder.report, [look(record)])
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
