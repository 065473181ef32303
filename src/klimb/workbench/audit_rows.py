"""Which rows an audit reads and which it scores: whole groups at random, so that no group is judged by a part of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from klimb.experience import Sample
from klimb.experience.store import Store
from klimb.workbench.config import ConfigError

PORTION = 256
"""Groups read from the store at once."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was read.

    Attributes:
        samples: of whole groups.
        num_stored: how many there are in the store that meet the condition.
    """

    samples: tuple[Sample, ...]
    num_stored: int


def read_rows(store: Store, *, where: str, max_rows: int, seed: int) -> Rows:
    """All samples that meet the condition; if they are more than `max_rows`, whole groups drawn at random.

    Groups are taken in random order until the next one would exceed `max_rows`; the first is taken at any size.

    Raises:
        ConfigError: nothing meets the condition.
        ValueError: the condition is no expression over the columns.
    """
    num_stored = store.count(where)
    if num_stored == 0:
        condition = f" where {where}" if where else ""
        raise ConfigError(f"{store.folder} holds no samples{condition}; there is nothing to audit")
    if num_stored <= max_rows:
        return Rows(samples=tuple(store.samples(where=where)), num_stored=num_stored)
    group_ids = store.group_ids(where=where)
    random.Random(seed).shuffle(group_ids)
    samples: list[Sample] = []
    for start in range(0, len(group_ids), PORTION):
        for group in store.groups(group_ids[start : start + PORTION], where=where):
            if samples and len(samples) + len(group) > max_rows:
                return Rows(samples=tuple(samples), num_stored=num_stored)
            samples += group
    return Rows(samples=tuple(samples), num_stored=num_stored)


def chosen_rows(samples: Sequence[Sample], candidates: Sequence[int], *, most: int, seed: int) -> list[int]:
    """Of the candidate row numbers, those of whole groups drawn at random, in ascending order.

    Groups are taken in random order until the next one would exceed `most`; the first is taken at any size.
    """
    groups: dict[str, list[int]] = {}
    for row in candidates:
        groups.setdefault(samples[row].group_id, []).append(row)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    for rows in order:
        if chosen and len(chosen) + len(rows) > most:
            break
        chosen += rows
    return sorted(chosen)
