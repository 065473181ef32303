"""Several rewards in training: their values with each sample, their sum in units of each one's spread, their metrics.

The reward of a sample is the weighted sum as it was scored, and its parts add up to it. What each reward said, before
its weight, stands in the sample's metadata, so that a replayed or logged sample can be scaled anew.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Sample
from klimb.experience.advantages import are_equal, scaled
from klimb.tasks import RewardSettings

PREFIX = "reward/"
"""Of the keys of a sample's metadata that hold what each reward said."""


Rewards = Mapping[str, RewardSettings]


NO_REWARDS: Rewards = MappingProxyType({})


def is_scaled(rewards: Rewards) -> bool:
    """Return whether one of the rewards is put into units of its own spread."""
    return any(settings.scale != "none" for settings in rewards.values())


def as_metadata(values: Mapping[str, float]) -> dict[str, str]:
    """Return what each reward said, as a sample's metadata holds it."""
    return {f"{PREFIX}{name}": repr(value) for name, value in values.items()}


def values_of(sample: Sample) -> dict[str, float]:
    """Return what each reward said of this sample, before its weight."""
    return {key.removeprefix(PREFIX): float(text) for key, text in sample.metadata.items() if key.startswith(PREFIX)}


def rewards_to_compare(samples: Sequence[Sample], rewards: Rewards) -> Float[Tensor, " batch"]:
    """Return the number of each sample that its baseline is taken from: its reward, scaled where that is asked for.

    With scaled rewards it is Σ_k w_k·(r_k − mean_k) / (std_k + 1e-6) over those, and the parts of the others as they
    are. Where no reward is needed, 0 stands for a missing one and is not read.

    Raises:
        ValueError: a sample does not say what each of its rewards was.
    """
    plain = [0.0 if sample.reward is None else sample.reward for sample in samples]
    if not is_scaled(rewards):
        return torch.tensor(plain, dtype=torch.float64)
    values = [values_of(sample) for sample in samples]
    for sample, said in zip(samples, values, strict=True):
        if sample.reward is not None and not rewards.keys() & said.keys():
            raise ValueError(f"sample {sample.sample_id} has a reward and says nothing of {_names(rewards)}: {ADVICE}")
    moved = {name: settings for name, settings in rewards.items() if settings.scale != "none"}
    total = torch.tensor([_sum_of_others(sample, moved) for sample in samples], dtype=torch.float64)
    group_ids = [sample.group_id for sample in samples]
    for name, settings in moved.items():
        found = torch.tensor([said.get(name, math.nan) for said in values], dtype=torch.float64)
        total += settings.weight * scaled(found, group_ids, over=settings.scale)
    return total


ADVICE = (
    "scaling reads the value of each reward, which runs with [rewards] record; leave out rewards.NAME.scale, or the "
    "samples of other runs"
)


def _names(rewards: Rewards) -> str:
    return ", ".join(f"rewards.{name}" for name in rewards)


def _sum_of_others(sample: Sample, moved: Rewards) -> float:
    return math.fsum(value for name, value in sample.reward_parts.items() if name not in moved)


def has_equal_parts(scored: Iterable[Sample]) -> bool:
    """Return whether all samples have the same reward for the same reasons: then no scale tells them apart."""
    parts = [sample.reward_parts for sample in scored]
    names = {name for each in parts for name in each}
    return all(set(each) == names for each in parts) and all(
        are_equal([each[name] for each in parts]) for name in names
    )


def measure_values(samples: Iterable[Sample]) -> dict[str, float]:
    """Return mean and standard deviation of what each reward said, over the responses it applies to."""
    said: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in values_of(sample).items() if sample.reward is not None else ():
            said.setdefault(name, []).append(value)
    means = {f"rewards/{name}/mean": statistics.fmean(values) for name, values in said.items()}
    return means | {f"rewards/{name}/std": statistics.pstdev(values) for name, values in said.items()}
