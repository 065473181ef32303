"""JSON in which no name is lost: what Python's own reader lets pass is refused."""

import json

from klimb.experience.reading.records import RowError


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Python keeps the last of two equal names silently: a second `reward` would win."""
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowError("a name twice in one object", f"{twice!r}")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition)
