r"""How people write numbers and formulas, rewritten to what math-verify reads with the value that they mean.

Characters first (`−`, `½`, `x²`, `π`), then groups of digits (`1 000`, `1'000`, `1.000,50`), then numbers of several
parts (`2 2/3`, `1e3`, `2×10³`).
"""

from __future__ import annotations

import re
import unicodedata

NO_NUMBER = "(no number)"


LONGEST_PART = 18
"""Digits of a mixed number's part; longer ones are no mixed number."""


CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2212\uff0d\ufe63", "-"),
        **dict.fromkeys("\u2044\u2215", "/"),
        **{"\u066b": ".", "\u066c": ",", "\uff0e": ".", "\uff0c": ",", "\uff05": "%", "\u00d7": " \\times "},
        **{"\u00b7": " \\cdot ", "\u22c5": " \\cdot ", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u00b1": "\\pm "},
        **{"\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap "},
        **{"\u3002": ". ", "\uff1a": ": ", "\uff08": "(", "\uff09": ")", "\uff1b": "; ", "\u3001": ", "},
        **{"\u2208": "\\in ", "\u2205": "\\emptyset ", "\u00b0": "^\\circ "},
    }
)


FRACTION = re.compile(r"([0-9]?)([\u00bc-\u00be\u2150-\u215e\u2189])")


SUPERSCRIPT = re.compile(r"(?<=[0-9A-Za-z)}\]])([\u207a\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")


ROOT = re.compile(r"\u221a\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|[A-Za-z]))")


BEHIND_A_CHARACTER = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[-+]?[0-9$\\(])")
"""A number behind Chinese, Japanese or Korean writing, which has no spaces."""


DEGREES = re.compile(r"\u00b0\s*[CF](?![A-Za-z])")


THOUSANDS = re.compile(r"(?<=[0-9])(?:\\[,!;: ]|\{,\}|[\u00a0\u2009\u202f~])(?=[0-9]{3}(?![0-9]))")


APOSTROPHES = re.compile(r"(?<![\w.,'\u2019])[0-9]{1,3}(?:['\u2019_][0-9]{3})+(?![0-9])")


POINTS = re.compile(
    r"(?<![\w.,])(?:([0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)|([1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}))(?![0-9]|[.,][0-9])"
)
"""Thousands with points, which no other reading has: `1.000,50` and `1.000.000`, but not `1.000`."""


CURRENCY = re.compile(
    r"\\(?:text|mbox|mathrm)\s*\{\s*[\u20ac\u00a3\u00a5\u20b9]\s*\}\s*|[\u20ac\u00a3\u00a5\u20b9]\s*(?=[0-9.])"
    r"|(?<=[0-9])(?:\\,|\s)*[\u20ac\u00a3\u00a5\u20b9]|\\\$\s*(?=[0-9.])"
)


SIGN = re.compile(r"(^|[=:(,{$\[]|\bis|\*\*)(\s*)(?:\+|([\u2013\u2014]))\s*(?=[0-9.])", re.MULTILINE)
"""A plus, or a dash for a minus, where no operand stands before it."""


MIXED = re.compile(r"(?<![\w./^)}\]])([0-9]{1,3}(?:[ ,][0-9]{3})+|[0-9]+)[ \u00a0]([0-9]+)/([0-9]+)(?![0-9/]|\.[0-9])")


POWER_OF_TEN = re.compile(r"(?<![\w.\\])([0-9]+(?:\.[0-9]+)?|\.[0-9]+)[eE]([-+]?[0-9]{1,3})(?![\w.]*[0-9A-Za-z])")


TIMES_TEN = re.compile(
    r"(?<![\w.\\^/])([0-9]+(?:\.[0-9]+)?)\s*(?:x|\*|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*)?([-+]?[0-9]{1,3})(?![0-9.])(?:\s*\})?"
)


UNITS = re.compile(
    r"(?<=[0-9])(?:\s*(?:(?:mm|cm|dm|km|ft|yd)\^(?:[23]|\{[23]\})|km/h|m/s(?:\^(?:2|\{2\}))?)|\s*m[\u00b2\u00b3]"
    r"|\s+m\^(?:[23]|\{[23]\}))(?!\s*[-+*/^=(\\A-Za-z0-9])"
)
"""Units behind a number that LaTeX would read as variables: `10 m^2`, `5 km/h`."""


UPRIGHT = re.compile(r"\\mathrm\s*\{\s*([ei])\s*\}")


MINUS = re.compile(r"(=\s*|\bis\s+)-\s+(?=[0-9.])")


BY_ZERO = re.compile(r"(?<![\w./])[0-9.]+/0+(?!\.?[0-9])")


FUNCTIONS = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|ln|log|exp|pi)(?![A-Za-z])")


PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\})")


JOINED = re.compile(r"\s*,?\s*(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])\s*")


def rewrite_notation(text: str) -> str:
    r"""Return the text with its notation as math-verify reads it.

        U+2212 5 → -5;  2 2/3 → 8/3;  2½ → 5/2;  1e3 → 1000;  1\,000 → 1000;  1.000,50 → 1000.50;  x² → x^{2}

    A mixed number that is none (`4 4/0`, `4 7/6`) becomes words, lest its whole part pass for it; so does `0/0`.
    """
    text = UPRIGHT.sub(r"\1", text.replace("\r", "").replace("\\varnothing", "\\emptyset"))
    text = UNITS.sub("", text)
    if not text.isascii():
        text = _ascii_mathematics(text)
    text = APOSTROPHES.sub(lambda match: re.sub(r"['\u2019_]", "", match[0]), THOUSANDS.sub("", text))
    text = POINTS.sub(_without_points, CURRENCY.sub("", text))
    text = SIGN.sub(lambda match: match[1] + match[2] + ("-" if match[3] else ""), text)
    text = MINUS.sub(r"\1-", text)
    text = BY_ZERO.sub(NO_NUMBER, MIXED.sub(_as_fraction, text))
    return TIMES_TEN.sub(_written_out, POWER_OF_TEN.sub(_written_out, text))


def as_formula(text: str) -> str:
    r"""Return what was written without LaTeX as LaTeX reads it: `sqrt(2)`, `sin x`, `{1, 2}`, `x = 3 or x = 4`."""
    text = FUNCTIONS.sub(r"\\\1 ", PLAIN_ROOT.sub(_rooted, text))
    text = JOINED.sub(", ", text).strip()
    if text.startswith("{") and text.endswith("}"):
        return f"\\{{{text[1:-1]}\\}}"
    return text


def _ascii_mathematics(text: str) -> str:
    """Return the text with fractions, powers, roots, signs and digits of one character as LaTeX writes them."""
    text = FRACTION.sub(lambda match: match[1] + " " * bool(match[1]) + _of_fraction(match[2]), text)
    text = SUPERSCRIPT.sub(lambda match: "^{" + unicodedata.normalize("NFKC", match[1]) + "}", text)
    text = DEGREES.sub("\u00b0", ROOT.sub(_rooted, text)).translate(CHARACTERS)
    digits = {character: str(unicodedata.decimal(character, character)) for character in set(text)}
    unseen = {character: "" for character in digits if unicodedata.category(character) == "Cf"}
    return BEHIND_A_CHARACTER.sub(" ", text.translate(str.maketrans(digits | unseen)))


def _of_fraction(character: str) -> str:
    return unicodedata.normalize("NFKC", character).replace("\u2044", "/")


def _rooted(match: re.Match[str]) -> str:
    inside = next((part for part in match.groups() if part is not None), "")
    return f"\\sqrt{{{inside}}}"


def _without_points(match: re.Match[str]) -> str:
    whole = (match[1] or match[3]).replace(".", "")
    return f"{whole}.{match[2]}" if match[2] else whole


def _as_fraction(match: re.Match[str]) -> str:
    parts = [re.sub("[ ,]", "", part) for part in match.groups()]
    if max(map(len, parts)) > LONGEST_PART:
        return NO_NUMBER
    whole, top, bottom = map(int, parts)
    return NO_NUMBER if top >= bottom else f"{whole * bottom + top}/{bottom}"


def _written_out(match: re.Match[str]) -> str:
    whole, _, part = match[1].partition(".")
    power = int(match[2])
    digits, point = whole + part, len(whole) + power
    if point <= 0:
        return f"0.{'0' * -point}{digits}"
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"
