"""How a process that worked on a run ended without finishing it: in words, in the run's folder, and on the error."""

import json
import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from klimb.errors import Interrupted, is_ours
from klimb.findings.run.ending import During, Ending
from klimb.tasks.shown_text import shown_text

logger = logging.getLogger(__name__)


ENDING_FILE, TRACEBACK_FILE = "ending.json", "traceback.txt"


LONGEST_REASON = 500


_ATTRIBUTE, _FOLDER = "klimb_ending", "klimb_folder"


def ending_from(
    error: BaseException, *, during: During, step: int, resumes_from: int, why_not_saved: str = ""
) -> Ending:
    """Return how this error ended the process.

    Args:
        error: that ended it; also the `Interrupted` or `KeyboardInterrupt` of a signal.
        during: where it did.
        step: the last complete one.
        resumes_from: the step of the newest checkpoint, 0 where a resume begins again.
        why_not_saved: in words, where `step` was to be saved and is not.
    """
    reason = describe_error(error)
    return Ending(
        kind="signal" if isinstance(error, Interrupted | KeyboardInterrupt) else "error",
        during=during,
        reason=f"{reason}; {shown_text(why_not_saved)}" if why_not_saved else reason,
        step=step,
        is_saved=resumes_from >= step,
        resumes_from=resumes_from,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def describe_error(error: BaseException) -> str:
    """Return the error's type and message in one printable line; of other people's code with its place."""
    message = shown_text(" ".join(_text_of(error).split()))
    if len(message) > LONGEST_REASON:
        message = f"{message[:LONGEST_REASON]} …"
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return message or "interrupted"
    frames = [] if is_ours(error) else traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{shown_text(place)}" if message else f"{type(error).__name__}{place}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a class of the user's own
        return ""


def record_ending(folder: Path, ending: Ending, error: BaseException) -> None:
    """Write it into the run's folder and onto the error; a disk that refuses it is reported."""
    if getattr(error, _ATTRIBUTE, None) is None:
        setattr(error, _ATTRIBUTE, ending)
        setattr(error, _FOLDER, folder)
    try:
        _write(folder / ENDING_FILE, json.dumps(asdict(ending), indent=2, ensure_ascii=False) + "\n")
        if not isinstance(error, Interrupted):
            _write(folder / TRACEBACK_FILE, shown_text("".join(traceback.format_exception(error))))
    except OSError as refusal:
        logger.error("%s: how the run ended is NOT written down: %s", folder, refusal)


def ending_of(error: BaseException) -> Ending | None:
    """Return how this error ended a run; None if it ended none."""
    return getattr(error, _ATTRIBUTE, None)


def folder_of(error: BaseException) -> Path:
    """Return the folder of the run that this error ended."""
    return getattr(error, _FOLDER)


def forget_ending(folder: Path) -> None:
    """Remove what is said of an earlier process: the run goes on, or has finished."""
    for name in (ENDING_FILE, TRACEBACK_FILE):
        (folder / name).unlink(missing_ok=True)


def read_ending(folder: Path) -> Ending | None:
    """Return how the run's last process ended; None without ending.json, and where it is not what a run writes."""
    try:
        content = json.loads((folder / ENDING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return Ending(**content) if isinstance(content, dict) and _is_written(content) else None


def _is_written(content: Mapping[str, Any]) -> bool:
    """Tell whether these are the fields of an ending with values of their kinds."""
    if content.keys() != {each.name for each in fields(Ending)}:
        return False
    kinds = {"reason": str, "step": int, "is_saved": bool, "resumes_from": int, "time": str}
    is_told = content["kind"] in ("error", "signal") and content["during"] in get_args(During)
    return is_told and all(isinstance(content[name], kind) for name, kind in kinds.items())


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    aside.replace(path)
