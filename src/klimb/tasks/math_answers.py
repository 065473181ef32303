r"""Mathematical equality by math-verify. Importing this file imports sympy, so only a scoring process does.

math-verify compares; which part of a response is the answer is decided here: the last one. Of several boxes that is
the last, not the set of all. And what is written without LaTeX is read whole: `(0, 1]`, `1,2`, `x = 3 or x = 4`.
"""

from __future__ import annotations

import re
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

from klimb.tasks.answer_marks import BOX, PERCENT, PERCENT_BEHIND, end_of, find_boxes, last_answer, marked_answer
from klimb.tasks.answers import Verdict, shown
from klimb.tasks.math_notation import as_formula, rewrite_notation

LONGEST_ANSWER = 1024
"""Characters of an answer that are compared; a longer one is wrong, for comparing takes seconds."""


TOO_LONG = "\\text{too long}"


DEEPEST = 40
"""Brackets inside each other; parsing takes several times as long for each further one."""


MOST_SPANS = 8
"""Formulas that are tried, from the last to the first, when the last has no reading."""


BARE = re.compile(r"(?=.*[0-9A-Za-z])(?!.*[0-9A-Za-z)\]}]\s+[0-9A-Za-z])[-+.0-9A-Za-z\\([{][^\n*=<>:;?!%\u2014]{0,199}")
"""What a response can be that is an expression and nothing else; two numbers side by side are none."""


MATH_MARK = re.compile(r"(?<!\\)\$|\\boxed|\\\(|\\\[")


GROUPED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|0,[0-9]+|\.[0-9]+"
"""A number; a comma stands before groups of three digits, or is the decimal comma of `0,5`."""


PLAIN_NUMBER = re.compile(rf"\s*[-+]?\s*(?:{GROUPED})(/[0-9]+)?\s*%?\s*")


PART = r"[-+]?\s*[0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?"


LIST = re.compile(rf"(?<![\w.,]){PART}(?:(?:\s*[,;]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+){PART})+")


SHORT_WORDS = (
    "am|an|as|at|be|by|cl|cm|dl|dm|do|eV|ft|go|Hz|he|hr|if|in|is|it|kg|km|kN|kW|lb|me|mg|ml|mL|mm|mV|my|nm|no|No|"
    "of|on|or|oz|Pa|pm|so|So|to|up|us|we|yd"
)
"""Words and units of two letters; other pairs of letters are products of variables."""


WORD = re.compile(
    rf"(?<![\\A-Za-z{{])(?:[A-Za-z]{{3,}}|(?:{SHORT_WORDS})(?![A-Za-z]))|[\u0400-\u04ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


EQUALS = re.compile(r"(?<![<>!=])=(?!=)")


SPAN = re.compile(
    r"(?<![\\0-9])(?P<dollars>\$\$?)(?P<first>(?:[^$\\]|\\.)+)(?P=dollars)(?![0-9])"
    r"|\\\[(?P<second>.+?)\\\]|\\\((?P<third>.+?)\\\)",
    re.DOTALL,
)
"""A formula between its marks."""


PUNCTUATION = re.compile(r"(?<![.\s,;])(?:\\[,;! ]|\s)*[.,;](?:\\[,;! ]|\s)*$")
"""The end of a sentence inside a formula. Three points are no such end."""


PERCENT_AT_END = re.compile(rf"{PERCENT}\s*$")


FRACTION_PERCENT = re.compile(rf"(-?[0-9]+/[0-9]+){PERCENT}")


NUMBERS_ON_LINES = re.compile(r"(?<=[0-9])[ \t]*\n\s*(?=[-+]?[0-9])")


EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")


AROUND_NUMBERS = re.compile(
    r"</?[A-Za-z]+>|[`\"'\u201c\u201d\u2018\u2019~\u2248#\[\]|]|(?<![0-9A-Za-z])_+|_+(?![0-9A-Za-z])|(?<![\w)\]])\((?=\s*-?[0-9.,/]+%?\s*\)(?:[.,:;!?\s]|$))"
    r"|(?<=[A-Za-z*]):(?=[-.0-9(])"
)
"""What stands before a number where math-verify would see none: quotes, brackets, tags."""


APPROXIMATELY = re.compile(r"^\s*(?:\\approx|\\simeq|\\sim|\u2248)\s*")


SPACED_NUMBER = re.compile(r"\s*[-+]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?\s*")


LETTER = re.compile(r"\s*\$?\(?[A-Z]\)?\$?\s*")


CHOICE = re.compile(r"\s*(?:\\(?:text|math)\w*\s*|\\mbox\s*)?\{?\s*\(?([A-Z])[).:}]")
r"""A letter before what it stands for: `\textbf{(B)}\ 12`, `B. 12`."""


CHOSEN = re.compile(
    r"(?i:answer)(?:\s+is)?\s*:?\s*\(?([A-Z])(?![\w'\u2019])\)?(?!\s*(?:or\b|and\b|[,/&])\s*\(?[A-Z]\b)"
)


UNIT_WORDS = re.compile(r"(?<=[0-9}])\s+(?!(?:percent|pct|and\b|or\b|mod\b))[A-Za-z]{3,}(?:[ -][A-Za-z]+)*\s*$")
"""What is counted, behind a number in a box: `5 apples`."""


def as_math(answer: str) -> str:
    r"""Return a reference answer as math-verify reads it: bare LaTeX gets dollars, numbers and prose stay as they are.

    Without dollars `2\sqrt{3}` would be read as its last number; with them `3 apples` would be a product of letters.
    """
    if MATH_MARK.search(answer):
        return _tidy(answer)
    if PLAIN_NUMBER.fullmatch(answer):
        return FRACTION_PERCENT.sub(r"$\1$ %", answer)
    formula = as_formula(answer)
    return answer if WORD.search(formula) else f"${formula}$"


def _tidy(text: str) -> str:
    r"""Return the text with formulas that end as math-verify can read: `$\frac{1}{3}.$`, `$\frac12\%$`, `1/2%`."""
    parts: list[str] = []
    at = 0
    for match in SPAN.finditer(text):
        inside = match["first"] or match["second"] or match["third"]
        start = match.group().index(inside)
        mark, its_end = match.group()[:start], match.group()[start + len(inside) :]
        inside, percent = _tidy_formula(inside) if len(inside) <= LONGEST_ANSWER else (TOO_LONG, "")
        parts += [FRACTION_PERCENT.sub(r"$\1$ %", text[at : match.start()]), mark, inside, its_end, percent]
        at = match.end()
    return "".join(parts) + FRACTION_PERCENT.sub(r"$\1$ %", text[at:])


def _tidy_formula(inside: str) -> tuple[str, str]:
    """Return a formula without its sentence's punctuation, and the percent sign of a fraction for behind its mark."""
    inside = APPROXIMATELY.sub("", PUNCTUATION.sub("", inside)).replace("~", " ")
    percent = PERCENT_AT_END.search(inside) if "/" in inside or "frac" in inside else None
    return (inside[: percent.start()], " %") if percent else (inside, "")


def _tidy_boxes(response: str) -> str:
    r"""Return the boxes with numbers and ends that math-verify can read: `\boxed{1 000.}`, `\boxed{1/2}\%`."""
    boxes = find_boxes(response)
    parts: list[str] = []
    at = 0
    for start, end in boxes:
        inside = BOX.sub("", response[start : end - response.startswith("}", end - 1)], count=1)
        inside, percent = _tidy_formula(inside)
        inside = inside.replace(" ", "") if SPACED_NUMBER.fullmatch(inside) else UNIT_WORDS.sub("", inside)
        parts += [response[at:start], f"\\boxed{{{inside}}}"]
        at = end
        if len(boxes) == 1 and (percent or PERCENT_BEHIND.match(response, end)) and "$" not in inside:
            return f"${parts[-1]}$ %".replace("\n", " ")
    return "".join(parts) + response[at:]


def _last_formula(text: str) -> str:
    """Return what stands between or behind the words of the last line that has a formula, as LaTeX."""
    for line in reversed(text.strip().split("\n")):
        parts = WORD.split(as_formula(line))
        if end := _trimmed(parts[-1], r"[0-9A-Za-z\\]"):
            return end
        for part in reversed(parts[:-1]):  # a letter between words is no formula: `which is a point`
            if formula := _trimmed(part, r"[0-9\\]"):
                return formula
    return ""


def _last_side(text: str) -> str:
    """Return what stands behind the last word and equals sign of the last line, as LaTeX."""
    line = text.strip().rpartition("\n")[2]
    return _trimmed(EQUALS.split(WORD.split(as_formula(line))[-1])[-1], r"[0-9A-Za-z\\]")


def _trimmed(part: str, characters: str) -> str:
    """Return a part of a sentence without what punctuates it, or nothing unless it has one of the characters."""
    part = re.sub(r"\.(?![0-9])|[*`]", " ", part).strip(" \t:,;!?\"'")
    return part if len(part) <= LONGEST_ANSWER and re.search(characters, part) else ""


def _plain_answer(text: str, *, reference: str, is_number: bool) -> str:
    """Return a response without LaTeX as math-verify shall read it, where it would read a part of the answer only."""
    text = NUMBERS_ON_LINES.sub(",\n", EMPHASIS.sub(r"\2", text))
    if _is_list(reference) and (lists := list(LIST.finditer(text))):
        return f"${as_formula(lists[-1].group())}$"
    formula = _last_side(text) if is_number else _last_formula(text)
    if formula and (not is_number or re.search(r"\\|\^\{|[0-9]_[0-9]", formula)):
        return f"${formula}$"
    return FRACTION_PERCENT.sub(r"$\1$ %", AROUND_NUMBERS.sub(" ", text) if is_number else text)


def _bare_formula(text: str) -> str:
    """Return a response that is an expression and nothing else as a formula; empty for any other.

    Of `2x+1` and `2, 4` math-verify would read one number, and of `-.5` none.
    """
    bare = text.strip().removesuffix(".")
    if BARE.fullmatch(bare) is None or WORD.search(bare) or (PLAIN_NUMBER.fullmatch(text) and _parse(text)):
        return ""
    return f"${bare}$" if _parse(f"${bare}$") else ""


def _plain_list_behind(text: str) -> str:
    """Return a list that stands behind the last formula of a response, as LaTeX: `$x^2=4$, so x = 2 or x = -2`."""
    behind = SPAN.split(text)[-1]
    formula = "" if MATH_MARK.search(behind) else _last_formula(behind)
    return f"${formula}$" if "," in formula else ""


def _letter(response: str) -> str | None:
    """Return the letter that a response chooses, if it says more than the letter."""
    if BOX.match(response):
        found = CHOICE.match(BOX.sub("", response, count=1))
        return found[1] if found else None
    text = EMPHASIS.sub(r"\2", response).strip()
    if chosen := CHOSEN.findall(text):
        return chosen[-1]
    found = CHOICE.match(text.rpartition("\n")[2])
    return found[1] if found else None


def _depth(text: str) -> int:
    """Return how many brackets stand inside each other at most."""
    depth = deepest = 0
    for character in text:
        depth = max(0, depth + (character in "({[") - (character in ")}]"))
        deepest = max(deepest, depth)
    return deepest


def _is_list(reference: str) -> bool:
    return LIST.fullmatch(reference.strip(" \n$")) is not None


def _is_number(expected: list[Any], reference: str) -> bool:
    """Return whether the reference is one rational number, which math-verify finds in a response without LaTeX."""
    value = expected[0]
    is_rational = getattr(value, "is_number", False) and getattr(value, "is_rational", None) is not False
    return bool(is_rational) and ":" not in reference and not _is_list(reference)


def _parse(text: str) -> list[Any]:
    """Return math-verify's readings; a number inside a formula that has no reading is none of them."""
    found = parse(text, parsing_timeout=0, extraction_mode="first_match")
    if BOX.match(text) or not found or not isinstance(found[0], str):
        return found
    for match in list(SPAN.finditer(text))[: -MOST_SPANS - 1 : -1]:
        reading = parse(match.group(), [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=0)
        if not reading:
            text = text[: match.start()] + " (no reading) " + text[match.end() :]
    return parse(text, parsing_timeout=0) or found


def _reference(answer: str) -> str:
    """Return the answer of a reference, which may be a whole solution that marks it."""
    reference = rewrite_notation(answer)
    marked = last_answer(reference)
    if BOX.match(marked):
        return _tidy_boxes(marked) if marked.count("{") == marked.count("}") else reference
    return marked_answer(reference) or reference


def _expected(reference: str) -> list[Any]:
    """Return the readings of a reference; of one in words what it says last, if that has a number."""
    if expected := _parse(as_math(reference)) if reference.strip() else []:
        return expected
    formula = _last_formula(reference)
    return _parse(f"${formula}$") if re.search("[0-9]", formula) else []


def verify_math(text: str, answer: str) -> Verdict:
    """Return right when the response's final expression equals the answer.

    math-verify's own time limits use SIGALRM and would cancel the caller's; they are off, the scorer's deadline holds.

    Raises:
        ValueError: if the reference answer has no mathematical reading.
    """
    reference = _reference(answer)
    expected = _expected(reference)
    if not expected:
        raise ValueError(
            f"the reference answer {shown(answer)!r} has no mathematical reading; "
            "write it as a number or in LaTeX, or use the verifier 'exact'"
        )
    response = last_answer(rewrite_notation(end_of(text)))
    if LETTER.fullmatch(reference) and (letter := _letter(response)):
        response = f"${letter}$"
    if _depth(response) > DEEPEST or (BOX.match(response) and len(response) > LONGEST_ANSWER):
        return Verdict(False, f"the answer is too long or too deep to be compared, expected {shown(answer)}")
    if BOX.match(response):
        response = _tidy_boxes(response)
    elif MATH_MARK.search(response):
        response = (_is_list(reference) and _plain_list_behind(response)) or _tidy(response)
    else:
        plain = _plain_answer(response, reference=reference, is_number=_is_number(expected, reference))
        response = _bare_formula(response) or plain
    found = _parse(response)
    if not found:
        return Verdict(False, f"no mathematical expression in the response, expected {shown(answer)}")
    # The last element is the text the expression was read from; printing the expression itself could take forever.
    if verify(expected, found, timeout_seconds=0):
        return Verdict(True, f"{shown(str(found[-1]))} equals {shown(answer)}")
    return Verdict(False, f"{shown(str(found[-1]))} differs from {shown(answer)}")
