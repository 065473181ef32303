"""Where an audit writes its page and its run file: never over something that somebody else wrote or changed."""

import hashlib
from pathlib import Path

from klimb.experience.atomic import replaced_atomically
from klimb.workbench.audit_page import PAGE_MARK
from klimb.workbench.config import ConfigError

RUN_FILE_MARK = "# made by klimb audit; sha256 of the lines above: "
MOST_NUMBERED = 10_000


def stamped(run_file: str) -> str:
    """The text, which ends a line, with one more by which `is_ours` tells whether anybody changed it."""
    return f"{run_file}{RUN_FILE_MARK}{_digest(run_file)}\n"


def is_ours(path: Path) -> bool:
    """True for a file that an audit made and nobody changed since, as far as its mark tells."""
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    # A page shows the run file and with it that file's mark.
    if text.startswith("<!DOCTYPE html>"):
        return PAGE_MARK in text[:1000]
    above, mark, digest = text.rpartition(RUN_FILE_MARK)
    return bool(mark) and digest == f"{_digest(above)}\n"


def chosen_path(asked: Path | None, *, data: Path, suffix: str) -> Path:
    """The path asked for; without one, `<data>-audit<suffix>` here, or the first free `<data>-audit-2<suffix>`, ….

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
    """Writes the file whole or not at all; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
