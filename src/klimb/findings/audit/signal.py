"""What there is to learn from: rewards, their spread within groups, and how well the data can show a gain."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    at_least,
    at_most,
    both_at_most,
    counted,
    ends,
    is_rated,
    numbered,
    percent,
    prompt_units,
    short,
    unknown,
    without_copies,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import MeanReward, mean_reward, units_for_any_share

REWARDED = "samples with a reward"


DISTINCT = "different rewards"


ZERO_VARIANCE = "groups without a difference"


INTERVAL = "expected interval"


GROUPED = "rewards in groups of two or more"


_NUM_BINS = 10


def signal_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Rewards and groups. A sample without a reward is left out, never counted as 0."""
    rated = [sample for sample in samples if is_rated(sample)]
    title = "What there is to learn from"
    share = len(rated) / len(samples)
    rewarded = Finding(
        name=REWARDED,
        evidence=f"{len(rated):,} of {counted(len(samples), 'sample')}",
        status="bad" if not rated else at_least(share, good=thresholds.min_reward_share),
        title=_rewards_missing(samples, len(rated)),
        threshold=f"good from {percent(thresholds.min_reward_share)}, bad without any",
        source="own choice",
        number=share,
    )
    if not rated:
        return Block(name="signal", title=title, findings=(rewarded, unknown(INTERVAL, "there are no rewards")))
    rewards = np.array([sample.reward for sample in rated], dtype=np.float64)
    groups = numbered([sample.group_id for sample in rated])
    prompts = prompt_units(rated)
    expected = _expected(rated)
    findings = (
        rewarded,
        _distinct(rewards),
        _mean(rewards, expected, thresholds),
        _group_sizes(groups),
        _grouped(groups),
        _zero_variance(rewards, groups, thresholds),
        _interval(expected, thresholds),
    )
    return Block(name="signal", title=title, findings=findings, figures=_pass_rates(rewards, prompts))


def _rewards_missing(samples: Sequence[Sample], num_rated: int) -> str:
    if not num_rated:
        return "no reward at all: nothing says which answer is better"
    not_finite = sum(sample.reward is not None for sample in samples) - num_rated
    return f"{counted(not_finite, 'reward')} left out for NaN or infinite values" if not_finite else ""


def equal_groups(samples: Sequence[Sample]) -> list[str]:
    """Return groups of two or more rewarded samples whose rewards are all equal."""
    rewards: dict[str, list[float]] = {}
    for sample in samples:
        if sample.reward is not None and is_rated(sample):
            rewards.setdefault(sample.group_id, []).append(sample.reward)
    return [group for group, values in rewards.items() if len(values) > 1 and len(set(values)) == 1]


def _distinct(rewards: NDArray[np.float64]) -> Finding:
    counts: Counter[float] = Counter(rewards.tolist())
    named = ", ".join(f"{value:g} ({percent(n / len(rewards))})" for value, n in counts.most_common(4))
    return Finding(
        name=DISTINCT,
        evidence=f"{len(counts):,}: {named}" + (" and more" if len(counts) > 4 else ""),
        status="bad" if len(counts) == 1 else "good",
        title="every reward is the same: nothing says which answer is better" if len(counts) == 1 else "",
        threshold="at least 2",
        source="equal rewards have no advantage",
        number=float(len(counts)),
    )


def _expected(rated: Sequence[Sample]) -> MeanReward:
    once = without_copies(rated)
    rewards = np.array([sample.reward for sample in once], dtype=np.float64)
    return mean_reward(rewards, prompt_units(once), unit="prompt")


def _mean(rewards: NDArray[np.float64], expected: MeanReward, thresholds: Thresholds) -> Finding:
    mean = float((rewards / len(rewards)).sum())  # the sum of huge ones is no number
    with np.errstate(over="ignore", invalid="ignore"):
        variance = float(rewards.var())
    is_binary = set(rewards.tolist()) <= {0.0, 1.0}
    low, high = thresholds.min_pass_share, thresholds.max_pass_share
    interval = expected.interval
    is_below, is_above = interval.high < low, interval.low > high
    inside = not is_binary or low <= mean <= high
    return Finding(
        name="mean reward",
        evidence=f"{short(mean)}, variance {short(variance) if math.isfinite(variance) else 'too large'}",
        status="good" if inside else "warning" if is_below or is_above else "unknown",
        title=(
            ""
            if inside
            else "the prompts are too hard"
            if is_below
            else "the prompts are nearly learnt"
            if is_above
            else f"outside by no more than chance: {ends(interval)}"
            if interval.is_known
            else f"outside, and {interval.reason}"
        ),
        threshold=f"between {low:g} and {high:g} for rewards of 0 and 1, or within the expected interval",
        source="ART's FAQ (0.3); ScaleRL, arXiv 2510.13786 (0.9)",
        number=mean,
    )


def _group_sizes(groups: NDArray[np.int64]) -> Finding:
    sizes = np.bincount(groups)
    middle = float(np.median(sizes))
    return Finding(
        name="rewarded samples a group",
        evidence=f"{sizes.min()} to {sizes.max()}, median {middle:g}, {counted(len(sizes), 'group')}",
        status="good" if middle >= 2 else "warning",
        title="" if middle >= 2 else "most groups have one response: baselines must compare different prompts",
        threshold="at least 2; 8 is a usual choice",
        source="prime-rl's rule of thumb",
        number=middle,
    )


def _grouped(groups: NDArray[np.int64]) -> Finding:
    sizes = np.bincount(groups)
    share = float(sizes[sizes >= 2].sum() / sizes.sum())
    return Finding(
        name=GROUPED,
        evidence=percent(share),
        status=at_least(share, good=0.5),
        title="" if share >= 0.5 else "single responses, as users' ratings are; groups decide nothing then",
        threshold="at least half",
        source="own choice",
        number=share,
    )


def _zero_variance(rewards: NDArray[np.float64], groups: NDArray[np.int64], thresholds: Thresholds) -> Finding:
    sizes = np.bincount(groups)
    highest, lowest = np.full(len(sizes), -np.inf), np.full(len(sizes), np.inf)
    np.maximum.at(highest, groups, rewards)
    np.minimum.at(lowest, groups, rewards)
    compared = sizes >= 2
    if not compared.any():
        return unknown(ZERO_VARIANCE, "no group has two rewarded responses")
    share = float((highest == lowest)[compared].mean())
    worst = _most_equal(rewards, sizes[compared], thresholds)
    return Finding(
        name=ZERO_VARIANCE,
        evidence=f"{percent(share)} of {counted(int(compared.sum()), 'group')}",
        status=at_most(share, good=worst / 2, bad=worst),
        title="all answers of such a group have the same reward, so their advantage is 0",
        threshold=both_at_most(percent(worst / 2), percent(worst)),
        source="DAPO, arXiv 2503.14476, drops them; own choice of the number",
        number=share,
    )


def _most_equal(rewards: NDArray[np.float64], sizes: NDArray[np.int64], thresholds: Thresholds) -> float:
    """Return the share of groups with equal rewards beyond which they are no use.

    Of groups as small as pairs chance alone leaves half and more: (1 + chance)/2 then, with chance the mean over groups
    of Σ s^n, the shares s of the rewards' values to the power of the group's size.
    """
    shares = np.unique(rewards, return_counts=True)[1] / len(rewards)
    kinds, counts = np.unique(sizes, return_counts=True)
    chance = sum(count * float((shares ** int(size)).sum()) for size, count in zip(kinds, counts, strict=True)) / len(
        sizes
    )
    limit = thresholds.max_zero_variance
    return (1 + chance) / 2 if limit / 2 < chance < 1 else limit


def _interval(expected: MeanReward, thresholds: Thresholds) -> Finding:
    interval, gain = expected.interval, thresholds.hoped_gain
    if not interval.is_known:
        return replace(unknown(INTERVAL, interval.reason), advice=_prompts_for_any(expected, gain))
    half = interval.half_width
    return Finding(
        name=INTERVAL,
        evidence=f"± {short(half)} ({ends(interval)})",
        status=at_most(half, good=gain / 2, bad=gain),
        title=f"of the mean reward, from {counted(expected.num_values, 'response')}",
        advice=_prompts_for(expected, gain) if half > gain else "",
        threshold=both_at_most(f"half the hoped gain, {gain / 2:g}", f"the hoped gain, {gain:g}"),
        source="prompts are the independent units",
        number=half,
    )


def _prompts_for(expected: MeanReward, gain: float) -> str:
    now, needed = expected.interval.num_units, expected.units_for(gain)
    if needed is None:
        return "Give rewards that differ less, or hope for a larger gain: no number of prompts would do"
    return (
        f"Collect answers to {counted(needed, 'different prompt')} in all, {needed / now:.1f} times as many as now, as "
        f"many to each; that is enough for ± {gain:g} with a chance of 4 in 5"
    )


def _prompts_for_any(expected: MeanReward, gain: float) -> str:
    needed = units_for_any_share(gain / expected.span) if expected.span else None
    return "" if needed is None else f"{counted(needed, 'different prompt')} are enough for ± {gain:g} at any pass rate"


def _pass_rates(rewards: NDArray[np.float64], prompts: NDArray[np.int64]) -> tuple[Figure, ...]:
    """Return the histogram; none of rewards whose range, or sum, is beyond the largest number."""
    means = np.bincount(prompts, weights=rewards) / np.bincount(prompts)
    bounds = (min(0.0, float(means.min())), max(1.0, float(means.max())))
    if not math.isfinite(bounds[1] - bounds[0]):
        return ()
    counts, edges = np.histogram(means, bins=_NUM_BINS, range=bounds)
    figure = Figure(
        title="Mean reward of prompts",
        kind="histogram",
        x=tuple(edges.tolist()),
        y=tuple(counts.astype(float).tolist()),
        x_label="mean reward",
        y_label="prompts",
        note="prompts at either end teach little; those in the middle teach most",
    )
    return (figure,)
