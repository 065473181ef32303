"""Rollouts that are trained on later: a buffer to replay from, and a queue that delays.

Both hold samples in memory. A checkpoint names them only, by the step that drew them and their ids: their content is
in the run's own `rollouts/`, from where a resumed run reads it back.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from klimb.experience import Sample, SegmentError, read_samples
from klimb.training.checkpoints import CheckpointError
from klimb.training.settings import ReplaySettings


@dataclass(frozen=True, kw_only=True)
class ReplayGroup:
    """One group of rollouts.

    Attributes:
        step: of the loop at which it was drawn.
        samples: those of its responses that are trained on.
    """

    step: int
    samples: tuple[Sample, ...]

    @property
    def version(self) -> int:
        """Optimiser steps that the policy had seen which drew it."""
        return self.samples[0].policy_version

    @property
    def mean_reward(self) -> float:
        """Over its responses that have a reward; 0 when none has."""
        rewards = [sample.reward for sample in self.samples if sample.reward is not None]
        return sum(rewards) / len(rewards) if rewards else 0.0


def group_samples(samples: Sequence[Sample], *, step: int) -> list[ReplayGroup]:
    """Return the samples by group, in the order in which the groups first appear."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group_id, []).append(sample)
    return [ReplayGroup(step=step, samples=tuple(group)) for group in groups.values()]


class ReplayBuffer:
    """Groups that may be used again, in the order in which they were drawn.

    Attributes:
        num_dropped: groups that grew too old or were too many, since the run began.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        self.settings = settings
        self.num_dropped = 0
        self._groups: list[ReplayGroup] = []

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, groups: Sequence[ReplayGroup]) -> None:
        """Keep these groups, the newest; drops the oldest beyond `max_groups`."""
        self._groups += groups
        self._keep(self._groups[-self.settings.max_groups :])

    def draw(self, count: int, *, policy_version: int, generator: torch.Generator) -> list[ReplayGroup]:
        """Up to `count` different groups by the rule, as samples of source `replay`; drops what is too old first.

        A sample's `log_ref` is taken off: it belongs to the reference of its time.
        """
        self._keep([group for group in self._groups if policy_version - group.version <= self.settings.max_age])
        order = torch.randperm(len(self._groups), generator=generator).tolist()
        if self.settings.rule == "recent":
            order = sorted(order, key=lambda index: -self._groups[index].version)
        elif self.settings.rule == "hard":
            order = sorted(order, key=lambda index: self._groups[index].mean_reward)
        return [as_replayed(self._groups[index]) for index in order[:count]]

    def state(self) -> dict[str, Any]:
        """Numbers that `load_state` takes back."""
        return {"groups": _named(self._groups), "num_dropped": self.num_dropped}

    def load_state(self, state: dict[str, Any], *, rollouts: Path) -> None:
        """Continues from a saved state, with the samples from the run's rollouts."""
        self.num_dropped = int(state["num_dropped"])
        self._groups = _read_samples(state["groups"], rollouts)

    def _keep(self, groups: list[ReplayGroup]) -> None:
        self.num_dropped += len(self._groups) - len(groups)
        self._groups = groups


class DelayQueue:
    """Batches that wait for their turn, first in, first out."""

    def __init__(self) -> None:
        self._batches: list[list[ReplayGroup]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, groups: list[ReplayGroup]) -> None:
        """Append a batch."""
        self._batches.append(groups)

    def get(self) -> list[ReplayGroup]:
        """Take the oldest batch out, without the `log_ref` of its time."""
        return [without_log_ref(group) for group in self._batches.pop(0)]

    def state(self) -> list[list[Any]]:
        """Numbers that `load_state` takes back."""
        return [_named(batch) for batch in self._batches]

    def load_state(self, state: list[list[Any]], *, rollouts: Path) -> None:
        """Continues from a saved state, with the samples from the run's rollouts."""
        self._batches = [_read_samples(batch, rollouts) for batch in state]


def without_log_ref(group: ReplayGroup) -> ReplayGroup:
    """Return the group to be scored by today's reference."""
    return replace(group, samples=tuple(replace(each, log_ref=None) for each in group.samples))


def as_replayed(group: ReplayGroup) -> ReplayGroup:
    """Return the group as a source of its own, to be scored by today's reference."""
    return replace(group, samples=tuple(replace(each, source="replay", log_ref=None) for each in group.samples))


def _named(groups: Sequence[ReplayGroup]) -> list[Any]:
    return [[group.step, [sample.sample_id for sample in group.samples]] for group in groups]


def _read_samples(named: Sequence[Any], rollouts: Path) -> list[ReplayGroup]:
    groups: list[ReplayGroup] = []
    for step, entries in itertools.groupby(named, key=lambda entry: int(entry[0])):
        path = rollouts / f"step-{step:06d}.parquet"
        try:
            found = {sample.sample_id: sample for sample in read_samples(path)}
            groups += [ReplayGroup(step=step, samples=tuple(found[each] for each in ids)) for _, ids in entries]
        except (FileNotFoundError, SegmentError, KeyError) as error:
            raise CheckpointError(_without_rollouts(path, error)) from error
    return groups


def _without_rollouts(path: Path, error: Exception) -> str:
    why = {FileNotFoundError: "is not there", KeyError: "does not hold all of its responses any more"}
    folder = path.parent.parent
    return (
        f"the checkpoint trains on again what {path} held, and that file {why.get(type(error), 'is damaged')}; put a "
        f"copy of it back, or take the newest folder out of {folder / 'checkpoints'} to go on from the one before it, "
        f"or begin the run anew with klimb train --resume {folder} --restart"
    )
