"""Samples that a program made, as a store: with conditions in SQL, as any other has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from klimb.experience.samples import Sample
from klimb.experience.store import Store


@dataclass(frozen=True)
class SamplesInMemory:
    """What training needs of a store, over samples that are in no store; its files go when it does."""

    _store: Store
    _aside: TemporaryDirectory[str] = field(repr=False)

    def count(self, where: str = "") -> int:
        """As a store does."""
        return self._store.count(where)

    def group_ids(self, *, where: str = "") -> list[str]:
        """As a store does."""
        return self._store.group_ids(where=where)

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        """As a store does."""
        return self._store.groups(group_ids, where=where)


def store_in_memory(samples: Sequence[Sample]) -> SamplesInMemory:
    """Return the samples as a store.

    Raises:
        ValueError: there are none, one has no id, or two that differ have the same id.
    """
    if not samples:
        raise ValueError("there are no samples")
    aside = TemporaryDirectory(prefix="klimb-samples-", ignore_cleanup_errors=True)
    store = Store(Path(aside.name))
    conflicts = store.append(samples).conflicts
    if conflicts:
        raise ValueError(
            f"{len(conflicts)} samples have the sample_id of another that differs, such as {conflicts[0]!r}; give each "
            "its own"
        )
    return SamplesInMemory(store, aside)
