"""Mathematical equality by math-verify. Importing this file imports sympy, so only a scoring process does."""

from __future__ import annotations

import re

from math_verify import parse, verify

from klimb.tasks.answers import Verdict, shown

LONGEST_RESPONSE = 4096
"""Characters read from the end of a response, where the answer stands; parsing is slower than linear."""


MATH_MARK = re.compile(r"(?<!\\)\$|\\boxed|\\\(|\\\[")


PLAIN_NUMBER = re.compile(r"\s*[-+]?[0-9][0-9,]*(\.[0-9]+)?(/[0-9]+)?\s*%?\s*")


WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")


def as_math(answer: str) -> str:
    r"""Return a reference answer as math-verify reads it: bare LaTeX gets dollars, numbers and prose stay as they are.

    Without dollars `2\sqrt{3}` would be read as its last number; with them `3 apples` would be a product of letters.
    """
    if MATH_MARK.search(answer) or PLAIN_NUMBER.fullmatch(answer) or WORD.search(answer):
        return answer
    return f"${answer}$"


def verify_math(text: str, answer: str) -> Verdict:
    """Return right when the response's final expression equals the answer.

    math-verify's own time limits use SIGALRM and would cancel the caller's; they are off, the scorer's deadline holds.

    Raises:
        ValueError: if the reference answer has no mathematical reading.
    """
    expected = parse(as_math(answer), parsing_timeout=0)
    if not expected:
        raise ValueError(
            f"the reference answer {shown(answer)!r} has no mathematical reading; "
            "write it as a number or in LaTeX, or use the verifier 'exact'"
        )
    found = parse(text[-LONGEST_RESPONSE:], parsing_timeout=0)
    if not found:
        return Verdict(False, f"no mathematical expression in the response, expected {shown(answer)}")
    # The last element is the text the expression was read from; printing the expression itself could take forever.
    if verify(expected, found, timeout_seconds=0):
        return Verdict(True, f"{shown(str(found[-1]))} equals {shown(answer)}")
    return Verdict(False, f"{shown(str(found[-1]))} differs from {shown(answer)}")
