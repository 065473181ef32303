"""What to collect next, and what it would be worth: how much surer the mean rating would be."""

import math
from collections.abc import Sequence

import numpy as np

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import is_rated, prompt_units, without_copies
from klimb.findings.audit.report import Collecting
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.statistics import MeanReward, mean_reward, perplexity, units_for_any_share

NARROWER = 0.7
"""Where the data are enough: the share of today's interval that the next collecting would leave, with about twice as
many."""


def plan_collecting(samples: Sequence[Sample], thresholds: Thresholds, *, is_vain: bool = False) -> Collecting:
    """Return what would make the interval of the mean rating as narrow as the hoped gain, or narrower than it is.

    Args:
        samples: rated or not.
        thresholds: with the hoped gain.
        is_vain: more of such ratings would not help.
    """
    rated = without_copies([sample for sample in samples if is_rated(sample)])
    if not rated:
        return Collecting(num_rated_prompts=0)
    rewards = np.array([sample.reward for sample in rated], dtype=np.float64)
    prompts = prompt_units(rated)
    expected = mean_reward(rewards, prompts, unit="prompt")
    counts = np.bincount(prompts).astype(np.float64)
    num_now, effective = len(counts), perplexity(counts)
    half = expected.interval.half_width if expected.interval.is_known else None
    is_enough = half is not None and half <= thresholds.hoped_gain and effective >= thresholds.min_effective_prompts
    wanted = thresholds.hoped_gain if half is None or not is_enough else NARROWER * half
    needed = _prompts_for(expected, wanted)
    if needed is not None and effective < thresholds.min_effective_prompts:
        needed = max(needed, math.ceil(thresholds.min_effective_prompts * num_now / effective))
    return Collecting(
        num_rated_prompts=num_now,
        num_more=None if needed is None else max(needed - num_now, 1),
        half_now=half,
        half_then=None if needed is None else wanted,
        is_enough=is_enough,
        is_vain=is_vain,
    )


def _prompts_for(expected: MeanReward, half_width: float) -> int | None:
    if expected.interval.is_known:
        return expected.units_for(half_width)
    # Without an interval the share may be any; with one value of reward so far, the other may come.
    return units_for_any_share(half_width / (expected.span or 1.0))
