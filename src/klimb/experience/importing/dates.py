# ruff: noqa: RUF001 (names of months are words of their languages)
"""Dates as people and programs write them, to seconds since the epoch. None is guessed.

A date says year, month and day; a time of day may follow, and a zone behind that. Without a zone it is UTC. Three
numbers say a date in several orders: `01/05/2026` is in May for some and in January for others, so `readings` gives
all of them, and the whole column decides.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from klimb.experience.reading.records import DateOrder

WITHOUT_ZONE = "dates without a zone, taken as UTC"
"""What is remarked of a row."""


UNDATED = "rows left undated: a date that cannot be read"
"""The same."""


OFF_ORDER = "rows left undated: a date that is none in the order of the others"
"""The same."""


IN_FUTURE = "rows left undated: a date in the future"
"""The same."""


ORDERS: tuple[DateOrder, ...] = get_args(DateOrder)[1:]


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and time of day.

    Attributes:
        seconds: since the epoch.
        has_zone: its zone was written; else it was taken as UTC.
    """

    seconds: float
    has_zone: bool


Readings = Mapping[DateOrder, Moment]
"""What a text may say, by the order of its numbers; one that can be said in one order alone stands under `""` too."""


_MONTHS = (
    "january jan januar jänner janvier janv enero ene января январь янв",
    "february feb februar février févr fév febrero февраля февраль фев",
    "march mar märz mrz mär mars marzo марта март мар",
    "april apr avril avr abril abr апреля апрель апр",
    "may mai mayo мая май",
    "june jun juni juin junio июня июнь июн",
    "july jul juli juillet juil julio июля июль июл",
    "august aug août agosto ago августа август авг",
    "september sep sept septembre septiembre setiembre сентября сентябрь сен сент",
    "october oct oktober okt octobre octubre октября октябрь окт",
    "november nov novembre noviembre ноября ноябрь ноя нояб",
    "december dec dezember dez décembre déc diciembre dic декабря декабрь дек",
)
"""From January on, in English, German, French, Spanish and Russian, with what is written short."""


_WEEKDAYS = (
    "monday mon tuesday tue tues wednesday wed thursday thu thur thurs friday fri saturday sat sunday sun "
    "montag mo dienstag di mittwoch mi donnerstag do freitag fr samstag sonnabend sa sonntag so "
    "lundi lun mardi mercredi mer jeudi jeu vendredi ven samedi sam dimanche dim "
    "lunes martes miércoles mié jueves jue viernes vie sábado sáb domingo dom "
    "понедельник пн вторник вт среда ср четверг чт пятница пт суббота сб воскресенье вс"
)


_BETWEEN = "at um à a las los le el de del of the den am uhr в г года"
"""Words that a date may have and that say nothing of it."""


_HOURS_OF_ZONES: Mapping[str, float] = {
    **{name: 0 for name in ("z", "ut", "utc", "gmt", "wet")},
    **{"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7},
    **{"west": 1, "cet": 1, "cest": 2, "mez": 1, "mesz": 2, "eet": 2, "eest": 3, "msk": 3, "мск": 3},
}
"""Names of zones that mean one zone. Source: RFC 5322, section 4.3; CET and its like as in the tz database."""


def _plain(text: str) -> str:
    """In small letters, without accents and without the blanks that browsers put before AM and PM."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


_NUMBER_OF_MONTH = {name: number for number, names in enumerate(_MONTHS, 1) for name in _plain(names).split()}
_SKIPPED = frozenset(_plain(f"{_WEEKDAYS} {_BETWEEN}").split())

_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_COMPACT = re.compile(r"([12][0-9]{3})([01][0-9])([0-3][0-9])(?:([0-2][0-9])([0-5][0-9])([0-5][0-9])?)?")
_WEEK = re.compile(r"[0-9]{4}-?W[0-9]{2}(?!-?[0-9])")
_ZONE = (
    r"(?:[a-zа-я]{1,4}\s*)?[+-][0-9]{1,2}(?::?[0-9]{2})?(?:\s*[a-z]{2,5})?|[a-z]+/[a-z_]+(?:/[a-z_]+)?|[a-zа-я]{1,4}\b"
)
_TIME = re.compile(
    r"(?<![0-9])([0-9]{1,2})(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|h([0-9]{2})|(?=\s*[ap]\.?\s?m\b))"
    rf"\s*(?:([ap])\.?\s?m\b\.?)?\s*(?:uhr|ч\b\.?)?\s*({_ZONE})?"
)
_DOTTED_TIME = re.compile(r"([0-9]{4}|[0-9]{2}|\bum),?\s+([0-9]{1,2})\.([0-9]{2})(?=\s*(?:uhr)?\s*$)")
_ORDINAL = re.compile(r"\b([0-9]{1,2})(?:st|nd|rd|th|er|º|o)\b")
_YEAR_FIRST = re.compile(r"([0-9]{4})\s?([-/.年])\s?([0-9]{1,2})\s?([-/.月])\s?([0-9]{1,2})[.日]?")
_THREE = re.compile(r"([0-9]{1,2})\s?([-/.])\s?([0-9]{1,2})\s?\2\s?([0-9]{4}|[0-9]{2})\.?")
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")


def readings(text: str) -> Readings:
    """Return what the text says, by the order of its numbers; empty where it is no date, or a part of one.

    Every form of ISO 8601 that has a day; RFC 2822; seconds, milliseconds, microseconds and nanoseconds as
    `moment_of_number` reads them; `20260501`; three numbers with `/`, `.` or `-` between; the name of a month with day
    and year in any order. A time of day may have AM or PM.
    """
    text = text.strip()
    if _DIGITS.fullmatch(text):
        return _one(_of_digits(text))
    if _WEEK.match(text):
        return {}
    try:
        return _one(_moment(datetime.fromisoformat(text)))
    except ValueError:
        pass
    rest, time_of_day, zone = _split_time(_without_brackets(_plain(text)))
    if rest is None:
        return {}
    found: dict[DateOrder, Moment] = {}
    for order, day in _days_in(rest):
        try:
            found[order] = _moment(datetime(*day, *time_of_day, tzinfo=zone))
        except ValueError:
            continue  # the month 13 shows that the numbers stand in another order
    return found if len(set(found.values())) > 1 or not found else {**found, "": next(iter(found.values()))}


def moment_of_iso(text: str) -> Moment | None:
    """Return the moment of the commonest form, `2026-05-01…`, without looking for others."""
    if text[4:5] != "-" or text[5:6] == "W":
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def moment_of_number(value: float) -> Moment | None:
    """Return the moment that a number of seconds, or of milli-, micro- or nanoseconds, is since the epoch.

    The ranges of the four from 1990 to 2100 have no number in common. None for a number in none of them.
    """
    for unit in (1, 10**3, 10**6, 10**9):
        if _EARLIEST * unit <= value < _LATEST * unit:
            return Moment(value / unit, has_zone=True)
    return None


_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC).timestamp()
_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


def moment_of_date(value: date) -> Moment:
    """Return the moment of a date, at its midnight where it has no time of day."""
    return _moment(value if isinstance(value, datetime) else datetime(value.year, value.month, value.day))


def orders_of(found: Readings) -> frozenset[DateOrder]:
    """Return the orders in which a text is a date; all of them for one whose order of numbers is plain."""
    named: frozenset[DateOrder] = frozenset(order for order in ORDERS if order in found)
    return named or frozenset(ORDERS)


def _one(moment: Moment | None) -> Readings:
    return {} if moment is None else {"": moment}


def _moment(value: datetime) -> Moment:
    return Moment((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp(), value.tzinfo is not None)


def _of_digits(text: str) -> Moment | None:
    compact = _COMPACT.fullmatch(text)
    if compact is None:
        return moment_of_number(float(text))
    year, month, day, hour, minute, second = (int(part) for part in compact.groups(default="0"))
    try:
        return _moment(datetime(year, month, day, hour, minute, second))
    except ValueError:
        return moment_of_number(float(text))


_BRACKETS = frozenset("[]()")


def _without_brackets(text: str) -> str:
    """Return the text without what only explains its zone, as in `+02:00[Europe/Berlin]` and `GMT+0200 (CEST)`."""
    if _BRACKETS.isdisjoint(text):
        return text
    text = re.sub(r"([+-][0-9:]{2,5}|z)\s*(?:\[[^\]]*\]|\([^)]*\))$", r"\1", text)
    return re.sub(r"[\[\]]", " ", text)


def _split_time(text: str) -> tuple[str | None, tuple[int, int, int, int], tzinfo | None]:
    """Return the text without its time of day, hour to microsecond, and the zone; no text for a time there cannot be.

    The first time of day counts, so what follows a second one makes the rest no date.
    """
    text = _DOTTED_TIME.sub(r"\1 \2:\3", text)
    match = _TIME.search(text)
    if match is None:
        return text, (0, 0, 0, 0), None
    hour, minute, second, fraction, minute_of_h, half, zone_text = match.groups()
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return None, (0, 0, 0, 0), None
        hours = hours % 12 + (12 if half == "p" else 0)
    zone, left = _zone(zone_text or "")
    if zone is None and zone_text and left is None:
        return None, (0, 0, 0, 0), None
    before = re.sub(r"(?<=[0-9])t$", "", text[: match.start()].rstrip(" :-"))
    rest = f"{before} {left or ''} {text[match.end() :]}"
    microsecond = int(f"{fraction or '0':0<6.6}")
    return rest, (hours, int(minute or minute_of_h or 0), int(second or 0), microsecond), zone


def _zone(text: str) -> tuple[tzinfo | None, str | None]:
    """Return the zone of what stands behind a time of day, or the text itself where it is a word of the date.

    `Fri, 10:00 May 1 2026` goes on with its month. A name that is neither is no zone and no word: the date is unread.
    """
    if not text or text in _NUMBER_OF_MONTH or text in _SKIPPED:
        return None, text
    if (hours := _HOURS_OF_ZONES.get(text)) is not None:
        return timezone(timedelta(hours=hours)), None
    if "/" in text:
        return _region(text), None
    offset = re.search(r"([+-])([0-9]{1,2}):?([0-9]{2})?", text)
    before = text[: offset.start()].strip() if offset else text
    if offset is None or before not in ("", "utc", "gmt", "z"):
        return None, None
    length = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    if length >= timedelta(hours=24):
        return None, None
    return timezone(-length if offset[1] == "-" else length), None


def _region(name: str) -> tzinfo | None:
    try:
        return ZoneInfo("/".join("_".join(map(str.capitalize, part.split("_"))) for part in name.split("/")))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _days_in(text: str) -> Iterator[tuple[DateOrder, tuple[int, int, int]]]:
    """Year, month and day as the text may say them, by their order; some of them are no day of any calendar."""
    words = [word for word in text.replace(",", " ").split() if word.strip(".") not in _SKIPPED]
    text = _ORDINAL.sub(r"\1", " ".join(words).strip(" .,"))
    if match := _YEAR_FIRST.fullmatch(text):
        if (match[2], match[4]) in (("-", "-"), ("/", "/"), (".", "."), ("年", "月")):
            yield "", (int(match[1]), int(match[3]), int(match[5]))
    elif match := _THREE.fullmatch(text):
        yield from _orders(match[1], match[3], match[4])
    else:
        yield from _with_month_name(_WORD.findall(text))


def _orders(first: str, second: str, third: str) -> Iterator[tuple[DateOrder, tuple[int, int, int]]]:
    """Nobody writes a year with one digit."""
    yield "day-first", (_year(third), int(second), int(first))
    yield "month-first", (_year(third), int(first), int(second))
    if len(first) == len(third) == 2:
        yield "year-first", (_year(first), int(second), int(third))


def _with_month_name(words: Sequence[str]) -> Iterator[tuple[DateOrder, tuple[int, int, int]]]:
    """May 1 2026, 1 May 2026, 2026 May 1; of 1 May 26 either number may be the year."""
    months = [place for place, word in enumerate(words) if word in _NUMBER_OF_MONTH]
    if len(words) != 3 or len(months) != 1:
        return
    month = _NUMBER_OF_MONTH[words[months[0]]]
    first, last = (word for place, word in enumerate(words) if place != months[0])
    if not (first.isdecimal() and last.isdecimal()) or sorted((len(first), len(last)))[1] not in (2, 4):
        return
    if len(first) == 4:
        yield "", (int(first), month, int(last))
    elif len(last) == 4:
        yield "", (int(last), month, int(first))
    elif len(last) == 2:
        yield "day-first" if months[0] else "", (_year(last), month, int(first))
        if months[0] == 1 and len(first) == 2:
            yield "year-first", (_year(first), month, int(last))


def _year(text: str) -> int:
    """Of two digits the year from 1969 to 2068. Source: POSIX, strptime, %y."""
    return int(text) if len(text) == 4 else int(text) + (1900 if int(text) >= 69 else 2000)
