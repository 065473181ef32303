r"""Where a response marks its answer: by a box, a tag, `#### 5`, `The final answer is 5`. The last mark decides."""

from __future__ import annotations

import re

LONGEST_RESPONSE = 4096
"""Characters read from the end of a response, where the answer stands; parsing is slower than linear."""


PERCENT = r"\s*(?:\\?%|[Pp]ercent(?:age)?\b|[Pp]ct\b)"


PERCENT_BEHIND = re.compile(rf"\s*\$?{PERCENT}")


BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?!\s|\{)((?:\\[A-Za-z]+(?:\s*\{[^{}]*\})*)[^\s${}]*|[^\s${}\\]+(?:\{[^{}]*\})?)"
)
r"""A box without braces: `\boxed 5`, `\boxed\frac{1}{2}`."""


BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")


EMPTY = re.compile(r"(?:[\s~${}.?_]|\\[,;:!() ]|\\l?dots|\\(?:c|q)?quad)*")


BETWEEN = re.compile(
    r"(?:[\s$,;&]|\\[,;:!()\[\] ]|\\quad|\\(?:text|mbox|mathrm)\s*\{(?:[^{}]{0,40}\b(?:and|or))?\s*\}"
    r"|(?:\b(?!and\b|or\b)[a-z]+\s+)?\b(?:and|or)\b|\\[A-Za-z]+\s*=|[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=)*"
)
r"""What stands between two boxes of one answer: `\boxed{3} and x = \boxed{4}`, `\boxed{3} pens or \boxed{4}`."""


THOUGHTS = re.compile(r"<think(?:ing)?>(?:(?!<think(?:ing)?>).)*?</think(?:ing)?>", re.DOTALL)


THOUGHTS_START = re.compile(r"<think(?:ing)?>.*", re.DOTALL)


TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)


MARKED_LINE = re.compile(r"^\s*####\s*(?P<number>[-+]?\s*\$?\s*[-+]?[0-9.][0-9.,/ ]*%?)\s*$", re.MULTILINE)


LAST_LINE = re.compile(r"^\s*####[ \t]*(?P<number>\S[^\n]*)\s*\Z", re.MULTILINE)


FINAL = re.compile(r"final answer(?:\s+is)?\s*:?[\s*]*(?=\$|\\\(|\\\[|[-+]?\.?[0-9])", re.IGNORECASE)


def last_answer(text: str) -> str:
    r"""Return the part of a response that math-verify shall read: the last box, or boxes that make one answer.

    `<answer>…</answer>`, a line `#### 5` and `The final answer is 5` behind the last box decide as a box does.
    Without any of them it is all of the text. Thoughts count only where nothing else is there.
    """
    text = _without_thoughts(BARE_BOX.sub(r"\\boxed{\1}", text))
    boxes = [box for box in find_boxes(text) if not EMPTY.fullmatch(BOX.sub("", text[box[0] : box[1]]))]
    last_box = boxes[-1][1] if boxes else 0
    if (marked := marked_answer(text, last_box)) is not None:
        return marked
    if not boxes:
        return BOX.sub("", text)
    start, end = boxes[-1]
    for earlier, its_end in reversed(boxes[:-1]):
        if BETWEEN.fullmatch(text, its_end, start) is None:
            break
        start = earlier
    percent = PERCENT_BEHIND.match(text, end)
    return text[start : percent.end() if percent else end]


def _without_thoughts(text: str) -> str:
    """Return what stands outside thoughts, or all of the text when nothing does."""
    behind = re.split(r"</think(?:ing)?>", THOUGHTS.sub("", text))[-1]
    spoken = THOUGHTS_START.sub("", behind)
    return spoken if spoken.strip() else text


def marked_answer(text: str, last_box: int = 0) -> str | None:
    """Return the last answer that is marked otherwise than by a box, if it ends behind the last box."""
    found: list[tuple[int, str]] = [(match.end(), match[1]) for match in TAG.finditer(text) if match[1].strip()]
    found += [(match.end("number"), match["number"]) for match in MARKED_LINE.finditer(text)]
    found += [(match.end("number"), match["number"]) for match in LAST_LINE.finditer(text)]
    if last_box:
        found += [(match.end(), text[match.start() :]) for match in FINAL.finditer(text)]
    end, marked = max(found, default=(0, ""))
    return _box_inside(marked) if end > last_box else None


def _box_inside(text: str) -> str:
    """Return what stands between an answer's marks, of which a box inside is the answer."""
    boxes = find_boxes(text)
    return text[boxes[-1][0] : boxes[-1][1]] if boxes else text


def find_boxes(text: str) -> list[tuple[int, int]]:
    r"""Return where each `\boxed{…}` begins and ends; one that is not closed ends with the text."""
    found: list[tuple[int, int]] = []
    for match in BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue  # inside another box
        found.append((match.start(), _closing(text, match.end())))
    return found


def _closing(text: str, start: int) -> int:
    """Return the end of the group of braces whose inside begins at `start`."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    return len(text)


def end_of(text: str) -> str:
    """Return the last characters of a response; of a box that begins before them nothing is read."""
    cut = len(text) - LONGEST_RESPONSE
    if cut <= 0:
        return text
    at = text.rfind("boxed{", 0, cut)
    end = _closing(text, at + len("boxed{")) if at >= 0 else 0
    return text[max(cut, end) :]
