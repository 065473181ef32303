"""What is in a store, counted: one pass over its narrow columns, then sums. No printing here."""

# duckdb ships no complete type information:
# pyright: basic

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.experience.store import Store

MOST_DISTINCT_REWARDS = 10


NUM_BINS = 10


_CELLS = """
select source, log_mu_provenance, model, policy_version, count(*) as num_samples, count(reward) as num_rated,
  coalesce(sum(reward), 0) as reward_sum, sum(len(response_ids))::bigint as num_tokens,
  sum(len(prompt_ids))::bigint as num_prompt_tokens, count(*) filter (len(response_ids) = 0) as num_text_only
from samples group by all order by all
"""


_SPANS = """
select count(distinct group_id) as num_groups, min(reward) as lowest, max(reward) as highest,
  count(distinct reward) as num_rewards, min(created_at) filter (created_at > 0) as oldest,
  max(created_at) filter (created_at > 0) as newest from samples
"""


_DISTINCT = "select reward as low, reward as high, count(*) as n from samples where reward is not null group by all"


_BINS = """
select {low} + bin * {width} as low, {low} + (bin + 1) * {width} as high, count(*) as n
from (select least({last}, greatest(0, floor((reward - {low}) / {width}))) as bin from samples where reward is not null)
group by bin
"""


_FEEDBACK = """
select count(*) as num_rows, count(distinct sample_id) as num_samples,
  count(distinct sample_id) filter (sample_id not in (select sample_id from samples)) as num_waiting
from feedback
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Samples that agree in source, provenance, model and policy version."""

    source: str
    log_mu_provenance: str
    model: str
    policy_version: int
    num_samples: int
    num_rated: int
    reward_sum: float
    num_tokens: int
    num_prompt_tokens: int
    num_text_only: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """Samples of one kind.

    Attributes:
        label: what they have in common.
        num_samples: how many there are.
        num_tokens: response tokens in all.
        reward: mean over the rated ones; None if none is.
    """

    label: str
    num_samples: int
    num_tokens: int
    reward: float | None


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """A store in numbers.

    Attributes:
        cells: the samples, counted.
        num_groups: distinct group ids.
        rewards: (from, to, count), ascending; single values where there are few.
        created: oldest and newest time in seconds since the epoch; None if no sample says.
        feedback: ratings, samples they speak of, and those of them that are not there.
        segments: (files, bytes) of samples and of feedback.
        unfinished: files that are no part of the store.
    """

    cells: tuple[Cell, ...]
    num_groups: int
    rewards: tuple[tuple[float, float, int], ...]
    created: tuple[float, float] | None
    feedback: tuple[int, int, int]
    segments: tuple[tuple[int, int], tuple[int, int]]
    unfinished: tuple[Path, ...]

    def total(self, count: Callable[[Cell], float]) -> float:
        """Return the sum of one count over all cells."""
        return sum(count(cell) for cell in self.cells)

    def by(self, label: Callable[[Cell], str]) -> list[Part]:
        """Return the samples parted by a label, the most numerous part first."""
        labels = dict.fromkeys(label(cell) for cell in self.cells)
        parts = [_part(name, [cell for cell in self.cells if label(cell) == name]) for name in labels]
        return sorted(parts, key=lambda part: -part.num_samples)


def summarise(store: Store, *, where: str = "") -> StoreSummary:
    """Count what is in the store, or those of its samples for which `where` holds."""
    (spans,) = _rows(store, _SPANS, where)
    files = store.files()
    (feedback,) = _rows(store, _FEEDBACK, "")
    return StoreSummary(
        cells=tuple(Cell(**row) for row in _rows(store, _CELLS, where)),
        num_groups=spans["num_groups"],
        rewards=_rewards(store, where, spans),
        created=None if spans["oldest"] is None else (spans["oldest"], spans["newest"]),
        feedback=(feedback["num_rows"], feedback["num_samples"], feedback["num_waiting"]),
        segments=(
            (len(files.samples), sum(segment.num_bytes for segment in files.samples)),
            (len(files.feedback), sum(segment.num_bytes for segment in files.feedback)),
        ),
        unfinished=files.unfinished,
    )


def _rewards(store: Store, where: str, spans: dict[str, Any]) -> tuple[tuple[float, float, int], ...]:
    if not spans["num_rewards"]:
        return ()
    width = (spans["highest"] - spans["lowest"]) / NUM_BINS
    binned = _BINS.format(low=f"'{spans['lowest']!r}'::double", width=f"'{width!r}'::double", last=NUM_BINS - 1)
    sql = _DISTINCT if spans["num_rewards"] <= MOST_DISTINCT_REWARDS else binned
    return tuple((row["low"], row["high"], row["n"]) for row in _rows(store, f"{sql} order by 1", where))


def _rows(store: Store, sql: str, where: str) -> list[dict[str, Any]]:
    return store.query(sql, where=where).to_pylist()


def _part(label: str, cells: Sequence[Cell]) -> Part:
    num_rated = sum(cell.num_rated for cell in cells)
    return Part(
        label=label,
        num_samples=sum(cell.num_samples for cell in cells),
        num_tokens=sum(cell.num_tokens for cell in cells),
        reward=sum(cell.reward_sum for cell in cells) / num_rated if num_rated else None,
    )
