r"""Mathematical equality by math-verify. Importing this file imports sympy, so only a scoring process does.

What math-verify would read otherwise than people write it is rewritten before: the minus sign U+2212, `2 2/3`, `1e3`,
`1,2` as a list, thousands with spaces. And the last answer decides: of several boxes the last, not the set of all.
"""

from __future__ import annotations

import re

from math_verify import parse, verify

from klimb.tasks.answers import Verdict, shown

LONGEST_RESPONSE = 4096
"""Characters read from the end of a response, where the answer stands; parsing is slower than linear."""


MATH_MARK = re.compile(r"(?<!\\)\$|\\boxed|\\\(|\\\[")


SIGN = r"[-+]?\s*"


GROUPED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|0,[0-9]+|\.[0-9]+"
"""A number; a comma stands before groups of three digits, or is the decimal comma of `0,5`."""


PLAIN_NUMBER = re.compile(rf"\s*{SIGN}(?:{GROUPED})(/[0-9]+)?\s*%?\s*")


PART = rf"{SIGN}[0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?"


LIST = re.compile(rf"(?<![\w.,]){PART}(?:\s*,\s*{PART})+")


WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")


SIGNS = str.maketrans({"\u2212": "-", "\uff0d": "-", "\ufe63": "-", "\u2044": "/", "\u2215": "/"})
"""Characters that are written for a minus sign and for a fraction's slash."""


MIXED = re.compile(r"(?<![\w./^)}\]])([0-9]+)[ \u00a0]([0-9]+)/([0-9]+)(?![0-9/]|\.[0-9])")


POWER_OF_TEN = re.compile(r"(?<![\w.\\])([0-9]+(?:\.[0-9]+)?|\.[0-9]+)[eE]([-+]?[0-9]{1,3})(?![\w.]*[0-9A-Za-z])")


THOUSANDS = re.compile(r"(?<=[0-9])(?:\\[,!;: ]|\{,\}|[\u00a0\u2009\u202f~])(?=[0-9]{3}(?![0-9]))")


BOX = re.compile(r"\\f?boxed\s*\{")


BETWEEN = re.compile(
    r"(?:[\s$,;&]|\\[,;:!() ]|\\quad|\\(?:text|mbox|mathrm)\s*\{\s*(?:and|or)?\s*\}"
    r"|\band\b|\bor\b|\\[A-Za-z]+\s*=|[A-Za-z]\s*=)*"
)
r"""What stands between two boxes that make one answer: `\boxed{3} and x = \boxed{4}`."""


PERCENT = re.compile(r"\s*\$?\s*(?:\\?%|percent(?:age)?\b|pct\b)")


THOUGHTS_END = "</think>"


NO_NUMBER = "(no number)"


def as_math(answer: str) -> str:
    r"""Return a reference answer as math-verify reads it: bare LaTeX gets dollars, numbers and prose stay as they are.

    Without dollars `2\sqrt{3}` would be read as its last number; with them `3 apples` would be a product of letters.
    """
    if MATH_MARK.search(answer) or PLAIN_NUMBER.fullmatch(answer) or WORD.search(answer):
        return answer
    return f"${answer}$"


def rewrite_numbers(text: str) -> str:
    r"""Return the text with numbers as math-verify reads them, and their values as people mean them.

        U+2212 5 → -5;  2 2/3 → 8/3;  1e3 → 1000;  1\,000 → 1000

    A mixed number that is none (`4 4/0`, `4 7/6`) becomes words, lest its whole part pass for it.
    """
    text = THOUSANDS.sub("", text.translate(SIGNS))
    return POWER_OF_TEN.sub(_written_out, MIXED.sub(_as_fraction, text))


def _as_fraction(match: re.Match[str]) -> str:
    whole, top, bottom = (int(part) if len(part) <= 18 else -1 for part in match.groups())
    if min(whole, top, bottom) < 0 or top >= bottom:
        return NO_NUMBER
    return f"{whole * bottom + top}/{bottom}"


def _written_out(match: re.Match[str]) -> str:
    whole, _, part = match[1].partition(".")
    power = int(match[2])
    digits, point = whole + part, len(whole) + power
    if point <= 0:
        return f"0.{'0' * -point}{digits}"
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def last_answer(text: str) -> str:
    r"""Return the part of a response that math-verify shall read: the last box, or boxes that make one answer.

    Without a box it is all of the text, behind the thoughts where it marks their end.
    """
    behind = text.rpartition(THOUGHTS_END)[2]
    text = behind if behind.strip() else text
    boxes = _boxes(text)
    if not boxes:
        return text
    start, end = boxes[-1]
    for earlier, its_end in reversed(boxes[:-1]):
        if BETWEEN.fullmatch(text, its_end, start) is None:
            break
        start = earlier
    percent = PERCENT.match(text, end)
    return text[start : percent.end() if percent else end]


def _boxes(text: str) -> list[tuple[int, int]]:
    r"""Return where each `\boxed{…}` begins and ends; one that is not closed ends with the text."""
    found: list[tuple[int, int]] = []
    for match in BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue  # inside another box
        depth, end = 1, len(text)
        for at in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                end = at + 1
                break
        found.append((match.start(), end))
    return found


def verify_math(text: str, answer: str) -> Verdict:
    """Return right when the response's final expression equals the answer.

    math-verify's own time limits use SIGALRM and would cancel the caller's; they are off, the scorer's deadline holds.

    Raises:
        ValueError: if the reference answer has no mathematical reading.
    """
    reference = rewrite_numbers(answer)
    expected = parse(as_math(reference), parsing_timeout=0)
    if not expected:
        raise ValueError(
            f"the reference answer {shown(answer)!r} has no mathematical reading; "
            "write it as a number or in LaTeX, or use the verifier 'exact'"
        )
    response = last_answer(rewrite_numbers(text[-LONGEST_RESPONSE:]))
    if LIST.fullmatch(reference.strip()) and not MATH_MARK.search(response) and (lists := LIST.findall(response)):
        response = as_math(lists[-1])
    found = parse(response, parsing_timeout=0)
    if not found:
        return Verdict(False, f"no mathematical expression in the response, expected {shown(answer)}")
    # The last element is the text the expression was read from; printing the expression itself could take forever.
    if verify(expected, found, timeout_seconds=0):
        return Verdict(True, f"{shown(str(found[-1]))} equals {shown(answer)}")
    return Verdict(False, f"{shown(str(found[-1]))} differs from {shown(answer)}")
