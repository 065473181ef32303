"""Which runs belong together: those whose settings differ by the seed only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klimb.findings.run.record import RunRecord
from klimb.ui.text import printable

UNIMPORTANT = ("seed", "run", "checkpoints")
"""Sections and keys that change no result, or that seeds may differ in."""


LONGEST_LABEL = 60


MOST_KEYS = 2
"""A label names at most this many settings; beyond, the folder's name says more."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs with the same settings and different seeds.

    Attributes:
        label: what tells it from the other groups.
        runs: one or more.
    """

    label: str
    runs: tuple[RunRecord, ...]


def group_runs(records: Sequence[RunRecord]) -> tuple[Group, ...]:
    """Return the records in groups, in the order in which each group first appears.

    Two runs with the same settings and the same seed are not put together: the second begins a group of its own.
    """
    groups: list[list[RunRecord]] = []
    for record in records:
        settings = _compared(record)
        home = next((runs for runs in groups if _compared(runs[0]) == settings and _is_new_seed(record, runs)), None)
        if home is None:
            groups.append([record])
        else:
            home.append(record)
    labels = _labels([runs[0] for runs in groups])
    return tuple(Group(label=label, runs=tuple(runs)) for label, runs in zip(labels, groups, strict=True))


def flat(tables: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, prefix=f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differing(records: Sequence[RunRecord]) -> list[str]:
    """Dotted keys of the settings in which these runs are not all equal."""
    settings = [flat(record.config) for record in records]
    keys = dict.fromkeys(key for tables in settings for key in tables)
    return [key for key in keys if len({_text(tables.get(key)) for tables in settings}) > 1]


def _compared(record: RunRecord) -> str:
    return _text({key: value for key, value in record.config.items() if key not in UNIMPORTANT})


def _is_new_seed(record: RunRecord, runs: Sequence[RunRecord]) -> bool:
    return all(run.seed != record.seed for run in runs)


def _labels(firsts: Sequence[RunRecord]) -> list[str]:
    """One name for each, all different: the recipe if that tells them apart, else few settings, else the folder."""
    names = [record.name for record in firsts]
    if len(firsts) < 2:
        return [printable(name, limit=LONGEST_LABEL) for name in names]
    recipes = [str(record.setting("objective.recipe", "")) for record in firsts]
    keys = [key for key in differing(firsts) if key.split(".")[0] not in UNIMPORTANT]
    by_key = [", ".join(f"{key}={_value(record, key)}" for key in keys) for record in firsts]
    for candidate in (recipes, by_key if len(keys) <= MOST_KEYS else names, names):
        if len(set(candidate)) == len(firsts) and all(candidate):
            return [printable(label, limit=LONGEST_LABEL) for label in candidate]
    return [printable(f"{number}. {name}", limit=LONGEST_LABEL) for number, name in enumerate(names, start=1)]


def _value(record: RunRecord, key: str) -> str:
    value = record.setting(key)
    return value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
