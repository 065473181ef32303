"""What people said of a response, as a number. Nothing said is None, never a bad rating."""

from collections.abc import Mapping
from types import MappingProxyType

from klimb.experience.importing.cells import number
from klimb.experience.importing.rows import Row, RowError
from klimb.experience.importing.rules import ImportRules

THUMBS: Mapping[str, float] = MappingProxyType({"up": 1.0, "down": 0.0, "thumbs_up": 1.0, "thumbs_down": 0.0})


def rating(value: object, rules: ImportRules, row: Row) -> float | None:
    """The value of a rating, in [0, 1] unless a map of the user says otherwise.

        thumbs and booleans:  up, true -> 1; down, false -> 0
        with a scale:         (value − lowest)/(highest − lowest)
        with a map:           what the map says; nothing else is a rating

    Raises:
        RowError: a text without a map, or a number outside [0, 1] without a scale.
    """
    if value is None:
        return None
    if rules.value_map:
        return _mapped(value, rules.value_map)
    if isinstance(value, str) and value.strip().lower() in THUMBS:
        return THUMBS[value.strip().lower()]
    if isinstance(value, str) and not row.is_text:
        raise RowError("a rating that is text", f"{value[:40]!r}; say what it stands for: --map {value[:40]}=1")
    as_float = number(value, what="the rating", row=row)
    low, high = rules.scale if rules.scale is not None and not isinstance(value, bool) else (0.0, 1.0)
    if not low <= as_float <= high:
        advice = "" if rules.scale else "; state the scale: --scale MIN MAX"
        raise RowError("a rating outside its scale", f"{as_float:g} is not in {low:g} to {high:g}{advice}")
    return (as_float - low) / (high - low)


def reward(value: object, rules: ImportRules, row: Row) -> float | None:
    """A reward as it is; on the scale or by the map of the user if there is one.

    Raises:
        RowError: text, NaN, infinite.
    """
    if value is None:
        return None
    if rules.scale is not None or rules.value_map:
        return rating(value, rules, row)
    return number(value, what="the reward", row=row)


def _mapped(value: object, value_map: Mapping[str, float]) -> float:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text not in value_map:
        raise RowError("a rating that the map does not name", f"{text[:40]!r}; it names {', '.join(value_map)}")
    return value_map[text]
