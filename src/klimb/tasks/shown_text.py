"""Texts of other people's code, fit to be shown: what cannot be seen in them is written out, and does nothing.

Reasons and tracebacks go to terminals, logs and files that people read. An escape sequence there would move the cursor,
a bidirectional mark would turn a line round.
"""

from __future__ import annotations

import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of control, format (bidirectional, zero-width), surrogate, private and unassigned characters, and
of separators of lines."""


LONGEST_LINE = 2_000


def shown_line(text: str) -> str:
    r"""Return the text as one line of at most 2,000 characters, what cannot be seen written as `\x1b` or `\u202e`.

    >>> shown_line("a" + chr(27) + "[31m" + chr(10) + "b" + chr(0x202E))
    'a\\x1b[31m\\nb\\u202e'
    """
    shown = "".join(map(_shown, text[: LONGEST_LINE + 1]))
    return shown if len(shown) <= LONGEST_LINE else shown[: LONGEST_LINE - 1] + "…"


def shown_text(text: str) -> str:
    """Return the text with its line ends, and with all else that cannot be seen written out."""
    return "\n".join("".join(map(_shown, line)) for line in text.split("\n"))


def _shown(character: str) -> str:
    return ascii(character)[1:-1] if unicodedata.category(character) in UNSEEN else character
