"""Text of a model or of strangers, made safe for a page: nothing in it acts, and nothing in it is hidden."""

import re
import unicodedata
from html import escape

from klimb.ui.text import UNSEEN_CATEGORIES

KEPT = frozenset("\n\t")


LINE_SEPARATORS = frozenset({"Zl", "Zp"})


WHITESPACE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


_WHOLE = re.compile(
    r"((?<![\w-])--[a-z]+(?:-[a-z]+)*"
    r"|\[[−+-]?\d[\d.,]*, [−+-]?\d[\d.,]*\](?: %| points)?"
    r"|(?:± |[−+-])?(?<![\w.])\d[\d.,]* (?:%|points))"
)


_CODE = re.compile(r"`([^`]+)`")


_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")


_EMPHASIS = re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])")


def escaped(text: str) -> str:
    """HTML in which the text stands for itself, in an element or in a quoted attribute.

    >>> escaped("<b>" + chr(0x202E))
    '&lt;b&gt;[U+202E]'
    """
    return escape(visible(text), quote=True)


def visible(text: str) -> str:
    """Return the text with every character that cannot be seen as its code point in brackets.

    Control, format (bidirectional, zero-width), surrogate, private and unassigned characters are such: what a reader
    sees is in the order in which it is stored.
    """
    return "".join(_shown(character) for character in text)


def cut(text: str, limit: int) -> str:
    """Return `limit` characters of the text at most; how many are left out stands at the end."""
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} more characters]"


def one_line(token: str, *, limit: int = 80) -> str:
    """One token on one line: spaces, line breaks and tabs are shown as ␣, ⏎ and ⇥."""
    return cut("".join(WHITESPACE.get(character, character) for character in token), limit)


def whole_html(text: str) -> str:
    """HTML of a sentence in which no line break tears an option, an interval, or a number from its per cent sign.

    >>> whole_html("above 5 % with --model")
    'above <span class="whole">5 %</span> with <span class="whole">--model</span>'
    """
    return _WHOLE.sub(r'<span class="whole">\1</span>', escaped(text))


def markdown_html(text: str) -> str:
    """HTML of one line of Markdown: code, emphasis and the words of links; everything else as it stands."""
    return _EMPHASIS.sub(r"<em>\1</em>", _CODE.sub(r"<code>\1</code>", _LINK.sub(r"\1", escaped(text))))


def _shown(character: str) -> str:
    if character in KEPT:
        return character
    category = unicodedata.category(character)
    is_unseen = category in UNSEEN_CATEGORIES or category in LINE_SEPARATORS
    return f"[U+{ord(character):04X}]" if is_unseen else character
