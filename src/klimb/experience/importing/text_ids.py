"""Ids in tables of text, as programs write them that hold a column of whole numbers as floats where one is missing."""

import re
from collections.abc import Mapping

from klimb.experience.importing.users import NO_IDS, USER_NAMES
from klimb.experience.reading.records import RowError

ID_NAMES = (
    *("id", "group", "group_id", "completion_id", "sample_id", "observation_id", "observationId", "response_id"),
    *("feedback_id", "score_id", "traceId", "trace_id", *USER_NAMES),
)
"""Our names of the columns that hold ids."""


_FLOAT = re.compile(r"([0-9]{1,16})\.0+")


_ROUNDED = re.compile(r"[0-9]\.[0-9]+[eE]\+?[0-9]{2,3}")


def with_whole_ids(values: Mapping[str, object], columns: Mapping[str, str]) -> Mapping[str, object]:
    """Return the cells with 12 for `12.0` and no id for `nan`; every other text stays.

    Args:
        values: the cells of a row of a table of text.
        columns: our name -> the file's, where the user maps them.

    Raises:
        RowError: a number that was rounded, as Excel writes one of more than 11 digits.
    """
    changed: dict[str, object] = {}
    for ours in ID_NAMES:
        name = columns.get(ours, ours)
        cell = values.get(name)
        if isinstance(cell, str) and (whole := _whole_id(cell, name)) != cell:
            changed[name] = whole
    return {**values, **changed} if changed else values


def _whole_id(text: str, name: str) -> str | None:
    if text.strip().lower() in NO_IDS:
        return None
    if _ROUNDED.fullmatch(text):
        raise RowError("an id that has lost digits", f"{name} is {text}; format the column as text and export it again")
    found = _FLOAT.fullmatch(text)
    return found[1] if found else text
