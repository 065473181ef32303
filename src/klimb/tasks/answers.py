"""Finding the answer in a response, and comparing it with the reference where that needs no library.

Built-in verifiers by name: response text and reference answer in, right or wrong out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from klimb.tasks.protocol import Problem, Response, Score, right_or_wrong

# A minus is a sign only where no operand stands before it: the last number of "7-3" is 3, that of "= -3" is -3.
NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)\]}])[-\u2212\u2013])?"
    r"(?:[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+(?![0-9])|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}(?![0-9])"
    r"|(?:[0-9]{1,3}(?:(?:,(?:\\!)?|\{,\}|\\[,;:! ]|['\u2019\u00a0\u2009\u202f])[0-9]{3})+(?![0-9])|[0-9]+)"
    r"(?:\.[0-9]+)?"
    r"|(?<![0-9A-Za-z])\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+(?![0-9A-Za-z]|\.[0-9]))?"
)
"""A number with commas, LaTeX, apostrophes or narrow spaces between its thousands, or with points where nothing else
is meant: `1.000,50`, `1.000.000`."""


THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!|\{,\}|\\[,;:! ]|['\u2019])(?=[0-9]{3})")


POINTS = re.compile(r"([-\u2212+]?[0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)|([-\u2212+]?[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,})")


TOGETHER = re.compile(rf"(?:{NUMBER.pattern})(?:[/\u2044\u2215^:](?:{NUMBER.pattern})| ?[\u00bc-\u00be\u2150-\u215e])*")
"""A number, or a fraction, a power, a ratio: the parts of one are no numbers of their own."""


INTEGER = re.compile(r"([-\u2212\u2013+]?)([0-9][0-9,\s]*|)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,4}))?")


SPACED = re.compile(r"(?:^|[=:]|\bis)\s*([-\u2212]?[0-9]{1,3}(?: [0-9]{3})+)\s*[.!]?\s*$")
"""A number with spaces between its thousands, where nothing else is said behind a mark: `= 1 000`. Elsewhere two
numbers may stand side by side."""


ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


LONGEST_SHOWN = 40


@dataclass(frozen=True)
class Verdict:
    """Whether the answer is right, and one line that says why."""

    correct: bool
    reason: str


def last_number(text: str) -> str | None:
    """Return the last number in the text as written (`-1,234`, `7.0`, `.5`, `1e3`, `1/2`, `= 1 000`), or None."""
    if (spaced := SPACED.search(text)) is not None:
        return spaced[1]
    last = None
    for match in TOGETHER.finditer(text):
        last = match.group()
    return last


def as_integer(number: str) -> str | None:
    """Return an integer's shortest spelling (`007`, `7.0`, `7e0` and `7` are `7`), or None for another number.

    It stays a string: Python refuses to convert thousands of digits, and a model may well write them.
    """
    number = THOUSANDS.sub("", number.strip())
    if (points := POINTS.fullmatch(number)) is not None:
        number = (points[1] or points[3]).replace(".", "") + ("." + points[2] if points[2] else "")
    match = INTEGER.fullmatch(number)
    if match is None or not (match[2] or match[3]):
        return None
    whole, part, power = re.sub(r"[,\s]", "", match[2]), (match[3] or "").rstrip("0"), int(match[4] or 0)
    if power >= 0:
        whole, part = whole + part[:power].ljust(power, "0"), part[power:]
    else:
        at = max(0, len(whole) + power)
        whole, part = whole[:at], (whole[at:].rjust(-power, "0") + part).rstrip("0")
    if part:
        return None
    digits = whole.lstrip("0") or "0"
    is_negative = match[1] in ("-", "\u2212", "\u2013") and digits != "0"
    return f"-{digits}" if is_negative else digits


def verify_integer(text: str, answer: str) -> Verdict:
    """Return right when the last number in the text is the integer `answer`."""
    found = last_number(text)
    if found is None:
        return Verdict(False, f"no number in the response, expected {shown(answer)}")
    if as_integer(found) == as_integer(answer):
        return Verdict(True, f"the last number is {shown(answer)}")
    return Verdict(False, f"the last number is {shown(found)}, expected {shown(answer)}")


def verify_exact(text: str, answer: str) -> Verdict:
    """Return right when the text is the answer, apart from white space around it."""
    if text.strip() == answer.strip():
        return Verdict(True, "the response is the answer")
    return Verdict(False, f"the response is {shown(text)!r}, expected {shown(answer)!r}")


def shown(text: str) -> str:
    """Return the text cut to a length that fits a reason line."""
    text = text.strip()
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def whole_text(text: str) -> str:
    """Return the text without white space around it."""
    return text.strip()


def last_line(text: str) -> str:
    """Return the last line that is not blank, or an empty string."""
    return text.strip().rpartition("\n")[2].strip()


def last_number_or_nothing(text: str) -> str:
    """Return the last number in the text, or an empty string."""
    return last_number(text) or ""


def answer_tag(text: str) -> str:
    """Return what the last `<answer>...</answer>` holds, or an empty string."""
    found = ANSWER_TAG.findall(text)
    return found[-1].strip() if found else ""


EXTRACTIONS = {
    "text": whole_text,
    "last-line": last_line,
    "last-number": last_number_or_nothing,
    "answer-tag": answer_tag,
}
"""Ways to cut the answer out of a response, by the name a configuration uses."""


Verify = Callable[[str, str], Verdict]


VERIFIERS = {
    "math-verify": "klimb.tasks.math_answers:verify_math",
    "exact": "klimb.tasks.answers:verify_exact",
    "integer": "klimb.tasks.answers:verify_integer",
}
"""Name -> where its function is. Strings, because math-verify is imported only where it is used."""


TRUSTED_VERIFIERS = frozenset({"exact", "integer"})


@dataclass(frozen=True)
class VerifierScore:
    """Scores 1 when the named verifier finds the answer right, else 0."""

    verifier: str

    def prepare(self) -> None:
        """Import what the verifier needs."""
        load_verifier(self.verifier)

    def __call__(self, problem: Problem, response: Response) -> Score:
        """Return the score of a response."""
        verdict = load_verifier(self.verifier)(response.text, problem.answer)
        return right_or_wrong(verdict.correct, verdict.reason)


@cache
def load_verifier(name: str) -> Verify:
    """Return the function of a verifier in `VERIFIERS`."""
    module, _, function = VERIFIERS[name].partition(":")
    return getattr(import_module(module), function)
