"""Ratings that are written as text: words, stars, 4/5, 80 %, and what is written where there is none."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

UNRATED = frozenset(
    {
        *("", "-", "–", "—", "?", "n/a", "na", "#n/a", "null", "none", "nan", "nil"),
        *("unrated", "not rated", "no rating", "no response", "skipped", "offered", "unoffered", "not offered"),
    }
)
"""What a cell says where nobody rated, in small letters; `offered` is Zendesk's for a question that nobody answered.
None of it is 0, and none is bad."""


_GOOD = (
    "up thumbs_up thumb_up good yes true positive like liked upvote helpful correct satisfied 👍 "
    "gut ja positiv hilfreich bon bien oui positif utile bueno si positivo útil хорошо да положительно полезно"
)


_BAD = (
    "down thumbs_down thumb_down bad no false negative dislike disliked downvote unhelpful not_helpful incorrect wrong "
    "unsatisfied dissatisfied 👎 schlecht nein negativ mauvais non négatif inutile malo inútil плохо нет отрицательно "
    "бесполезно"
)


def _word(text: str) -> str:
    """Return a word in small letters, without accents, colours of skin and blanks within it."""
    plain = unicodedata.normalize("NFKD", text.strip().casefold())
    kept = (c for c in plain if not (unicodedata.combining(c) or "\U0001f3fb" <= c <= "\U0001f3ff" or c == "\ufe0f"))
    return re.sub(r"[\s_-]+", "", "".join(kept)).strip(":")


THUMBS: Mapping[str, float] = MappingProxyType(
    {**{_word(word): 1.0 for word in _GOOD.split()}, **{_word(word): 0.0 for word in _BAD.split()}}
)
"""Words that can be read in one way alone; any other needs a map of the user."""


@dataclass(frozen=True, slots=True)
class RatingText:
    """A number as a rating is written.

    Attributes:
        value: in the unit of the text: 4 of `4/5`, 80 of `80 %`.
        form: `number`, `comma`, `stars`, `percent`, or `of 5`. A column is of one form.
    """

    value: float
    form: str


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?(?:[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})|0,[0-9]+)")
_STAR_WORDS = r"(?:stars?|sterne?n?|étoiles?|estrellas?|зв[её]зд[аы]?|points?)"
_PARTS = re.compile(
    r"([0-9]+(?:[.,][0-9]{1,2})?)\s*(?:/|\b(?:out of|of|von|sur|de|из)\b)\s*([0-9]+)"
    rf"(?:\s*{_STAR_WORDS})?"
)
_STARS = re.compile(rf"([0-9]+(?:[.,][0-9]{{1,2}})?)\s*-?{_STAR_WORDS}")
_PERCENT = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*%")
_GLYPHS = re.compile(r"([★⭐🌟]+)([☆✩]*)")


def read_thumb(text: str) -> float | None:
    """Return 1 for a word or a sign that says good, 0 for one that says bad; None for all else."""
    return THUMBS.get(_word(text))


def is_unrated(text: str) -> bool:
    """Tell whether a cell says that nobody rated."""
    return text.strip().lower() in UNRATED


def read_rating(text: str) -> RatingText | None:
    """Return the number that a text is; None for one that is none, or that can be read in two ways, as `1,234`."""
    text = text.strip().casefold().replace("\ufe0f", "")
    if _NUMBER.fullmatch(text):
        return RatingText(float(text), "number")
    if _COMMA.fullmatch(text):
        return RatingText(_decimal(text), "comma")
    if match := _PARTS.fullmatch(text):
        return RatingText(_decimal(match[1]), f"of {int(match[2])}") if _decimal(match[1]) <= int(match[2]) else None
    if match := _PERCENT.fullmatch(text):
        return RatingText(_decimal(match[1]), "percent")
    if match := _STARS.fullmatch(text):
        return RatingText(_decimal(match[1]), "stars")
    if match := _GLYPHS.fullmatch(text):
        return RatingText(float(len(match[1])), "stars")
    return None


def _decimal(text: str) -> float:
    return float(text.replace(",", "."))
