"""What can be wrong with a response whatever was asked: it is empty, it refuses, it ends in a loop.

Rules of a few lines, in time linear in the text: a model may write anything.
"""

import re
import zlib

HIGHEST_COMPRESSION = 2.4
"""Source: arXiv 2212.04356 (Whisper), section 4.5: above this ratio a decoded text is taken for a repetition loop."""

LAST_CHARACTERS = 1_000
"""Loops last until the end, and longer texts compress better without being loops."""

OPENING_CHARACTERS = 120
"""A refusal says so at once; the same words later on are part of an answer."""

_REFUSAL = re.compile(
    r"\bi(?:['’]m| am) (?:very |so |really )?sorry\b"
    r"|\bi (?:apologi[sz]e|cannot|can['’]?t|can not|won['’]?t|will not)\b"
    r"|\bi(?:['’]m| am) (?:not able|unable|not allowed|not programmed)\b"
    r"|\bas an? (?:ai|language model|assistant)\b",
    re.IGNORECASE,
)
"""After the list of refusals in arXiv 2307.15043, appendix B (English)."""


def is_empty(text: str) -> bool:
    """True if there is nothing but white space."""
    return not text.strip()


def is_refusal(text: str) -> bool:
    """True if one of its first 120 characters begins a phrase by which models decline. English only."""
    return _REFUSAL.search(text.lstrip()[:OPENING_CHARACTERS]) is not None


def is_repetition(text: str) -> bool:
    """True if its last 1000 characters, as UTF-8, are more than 2.4 times as long as zlib makes them.

    Short texts never are: zlib's own bytes outweigh what it saves. `1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1` is.
    """
    end = text.strip()[-LAST_CHARACTERS:].encode("utf-8", errors="replace")
    return bool(end) and len(end) / len(zlib.compress(end)) > HIGHEST_COMPRESSION
