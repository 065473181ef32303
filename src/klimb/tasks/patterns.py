"""Regular expressions of the user's own: that they are some, and that none takes seconds for one answer.

A backtracking matcher tries every way to divide a text among repeats. A pattern with a repeat inside of a repeat, such
as `(a+)+b`, takes twice as long for each further character of some texts, and several repeats in a row a power of the
length. Whether a pattern is one of those is tried out, on texts made for it, in a process that is ended after half a
second.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

LONGEST_SECONDS = 0.5
"""Of processor time that a pattern may take for one text."""


GIVE_UP_SECONDS = 60.0
"""Of the clock, for a machine that is busy with other things."""


REPEATS = (28, 3_000)
"""How often a repeat is repeated in a text: enough for exponential time, and for the third power of the length."""


MOST_TEXTS = 60


_TRIAL = """
import json, re, signal, sys
pattern, texts, seconds = json.load(sys.stdin)
search = re.compile(pattern, re.DOTALL).search
for number, text in enumerate(texts):
    print(number, flush=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    search(text)
"""
"""The last number that it prints before it is ended is that of the text which took too long."""


_NO_MATCH = "\x00"


def check_pattern(name: str, pattern: str) -> None:
    """Return if the text is a regular expression.

    Raises:
        ValueError: it is none.
    """
    try:
        re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} {pattern!r} is not a regular expression: {error}") from error


def check_is_quick(name: str, pattern: str) -> None:
    """Return if no answer keeps the regular expression busy for long; that is tried out in another process.

    Raises:
        ValueError: it is none, or it takes longer than half a second for a text of some thousand characters.
    """
    check_pattern(name, pattern)
    slow = _slow_text(pattern) if any(sign in pattern for sign in "*+{") else None
    if slow is not None:
        raise ValueError(
            f"{name} {pattern!r} takes longer than {LONGEST_SECONDS:g} s to be searched in an answer that begins "
            f"{slow[:20]!r}, of {len(slow)} characters: repeats that can divide a text among them in many ways are all "
            "tried. Say what may not stand between them, such as [^<]* for .*, and let no repeat contain another"
        )


@lru_cache(maxsize=256)
def _slow_text(pattern: str) -> str | None:
    """Return a text that the pattern takes too long for, if one was found."""
    texts = list(dict.fromkeys(_trying_texts(_parser.parse(pattern, re.DOTALL))))[:MOST_TEXTS]
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL],
            input=json.dumps([pattern, texts, LONGEST_SECONDS]),
            capture_output=True,
            text=True,
            timeout=GIVE_UP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return texts[0]
    return texts[int(tried.stdout.split()[-1])] if tried.returncode == -signal.SIGVTALRM else None


def _trying_texts(tree: Any) -> Iterator[str]:
    """Yield texts that lead to each repeat of the pattern, repeat it, and then do not go on as the pattern does."""
    for before, inner in _repeats(list(tree), ""):
        if piece := _example(inner):
            for number in REPEATS:
                yield before + piece * number + _NO_MATCH


def _repeats(nodes: list[Any], before: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield every repeat with what stands before it in a text that the pattern finds, and what it repeats."""
    for index, (kind, value) in enumerate(nodes):
        here = before + _example(nodes[:index])
        name = str(kind)
        if "REPEAT" in name:
            _, most, inner = value
            if most > REPEATS[0]:
                yield here, list(inner)
            yield from _repeats(list(inner), here)
        for inside in _inside(name, value):
            yield from _repeats(list(inside), here)


def _inside(name: str, value: Any) -> list[Any]:
    """Return the parts of a group, of alternatives, or of a look around."""
    if name in ("SUBPATTERN", "ATOMIC_GROUP"):
        return [value[-1] if name == "SUBPATTERN" else value]
    if name == "BRANCH":
        return list(value[1])
    return [value[1]] if name in ("ASSERT", "ASSERT_NOT") else []


def _example(nodes: list[Any]) -> str:
    """Return a text that the nodes match, or nearly: anchors, looks around and references are left out."""
    return "".join(_example_of(str(kind), value) for kind, value in nodes)


def _example_of(name: str, value: Any) -> str:
    if name == "LITERAL":
        return chr(value)
    if name == "NOT_LITERAL":
        return "a" if value != ord("a") else "b"
    if name == "ANY":
        return "a"
    if name == "IN":
        return _member(value)
    if "REPEAT" in name:
        least, most, inner = value
        return _example(list(inner)) * min(max(least, 1), most, 100)
    parts = [] if name.startswith("ASSERT") else _inside(name, value)
    return _example(list(parts[0])) if parts else ""


_OF_CATEGORY = {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a", "CATEGORY_NOT_SPACE": "a"}


def _member(options: list[Any]) -> str:
    """Return a character of the class."""
    if str(options[0][0]) == "NEGATE":
        return next((each for each in "a0 <-\n_" if re.fullmatch(_as_class(options), each)), "a")
    name, value = str(options[0][0]), options[0][1]
    if name == "RANGE":
        return chr(value[0])
    return chr(value) if name == "LITERAL" else _OF_CATEGORY.get(str(value), "-")


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def _as_class(options: list[Any]) -> str:
    """Return the negated class as it was written."""
    parts = []
    for kind, value in options[1:]:
        if str(kind) == "LITERAL":
            parts.append(re.escape(chr(value)))
        elif str(kind) == "RANGE":
            parts.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        else:
            parts.append(_CATEGORIES[str(value)])
    return f"[^{''.join(parts)}]"
