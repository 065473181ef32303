"""Raters whose word does not count: a file in the store that every reader respects, and that people can undo."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klimb.experience.atomic import replace_atomically

FILE = "quarantine.json"


FORMAT = 1
"""Of the file."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Why a rater's word does not count.

    Attributes:
        since: seconds since the epoch.
        reason: one line for people.
    """

    since: float
    reason: str = ""


def read_quarantine(folder: Path) -> dict[str, Quarantined]:
    """Return the raters, by the hash that the store has of them; none where there is no file.

    Raises:
        ValueError: the file is none of quarantined raters.
    """
    path = folder / FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return {str(rater): Quarantined(**why) for rater, why in content["raters"].items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a file of quarantined raters ({error}); restore it, or delete it") from error


def quarantine_rater(folder: Path, rater: str, *, reason: str = "") -> bool:
    """Let a rater's feedback not count from now on; return whether it did before. The feedback itself stays."""
    raters = read_quarantine(folder)
    if rater in raters:
        return False
    _write(folder, {**raters, rater: Quarantined(since=time.time(), reason=reason)})
    return True


def release_rater(folder: Path, rater: str) -> bool:
    """Let a rater's feedback count again; return whether it did not before."""
    raters = read_quarantine(folder)
    if rater not in raters:
        return False
    _write(folder, {each: why for each, why in raters.items() if each != rater})
    return True


def _write(folder: Path, raters: Mapping[str, Quarantined]) -> None:
    path = folder / FILE
    if not raters:
        path.unlink(missing_ok=True)
        return
    content = {"format": FORMAT, "raters": {rater: asdict(why) for rater, why in raters.items()}}
    with replace_atomically(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
