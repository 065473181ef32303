"""Text that strangers or a model wrote, made safe for a terminal."""

import math
import os
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from klimb.working_directory import users_directory

UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode categories of control, format (bidirectional, zero-width), surrogate, private and unassigned characters."""


_BLOCKS = "▁▂▃▄▅▆▇█"


def printable(text: str, *, limit: int = 200) -> str:
    r"""One line without control or invisible characters, cut to `limit`; line breaks are shown as ⏎.

    Escape sequences lose their escape character, so a terminal shows their rest as plain text.

    >>> printable("a\nb\x1b[31mc")
    'a⏎b[31mc'
    """
    kept: list[str] = []
    for character in text[: 4 * limit].strip():
        if character == "\n":
            kept.append("⏎")
        elif character == "\t":
            kept.append(" ")
        elif unicodedata.category(character) not in UNSEEN_CATEGORIES:
            kept.append(character)
    shown = "".join(kept)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """All values as a row of at most `width` blocks, from their smallest to their largest; each block is a mean.

    >>> sparkline([0.0, 0.5, 1.0], width=3)
    '▁▅█'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    count = min(width, len(finite))
    edges = [len(finite) * index // count for index in range(count + 1)]
    shown = [math.fsum(finite[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, span = min(shown), (max(shown) - min(shown)) or 1.0
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / span * top)] for value in shown)


def duration(seconds: float) -> str:
    """Seconds as `0:42`, `12:05` or `1:02:03`.

    >>> duration(65)
    '1:05'
    """
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def relative_to_working_directory(path: Path) -> str:
    """Return the path as one would type it here, without a leading absolute part."""
    return os.path.relpath(path, users_directory())


def in_bytes(number: float) -> str:
    """Return a size as `512 bytes` or `3.2 MB`, in powers of 1000.

    >>> in_bytes(3_200_000)
    '3.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")
