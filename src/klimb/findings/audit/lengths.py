"""Is the reward a reward for length, and how many responses are cut off or empty?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import at_most, counted, is_rated, percent, short, unknown
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import pearson, spearman

_NUM_BINS = 8


def length_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Correlation of reward and length; lengths are tokens, or characters if some sample has no token ids."""
    in_tokens = all(sample.response_ids or not sample.response for sample in samples)
    unit = "tokens" if in_tokens else "characters"
    rated = [sample for sample in samples if is_rated(sample)]
    lengths = np.array([len(s.response_ids) if in_tokens else len(s.response) for s in rated], dtype=np.float64)
    rewards = np.array([sample.reward for sample in rated], dtype=np.float64)
    return Block(
        name="length",
        title="Whether length is rewarded",
        findings=(
            _correlation("correlation of reward and length", pearson(lengths, rewards), thresholds),
            _correlation("rank correlation of reward and length", spearman(lengths, rewards), thresholds),
            _cut_off(samples, thresholds),
            _empty(samples, thresholds),
        ),
        figures=(_by_length(lengths, rewards, unit),) if len(rated) else (),
        notes=(f"lengths in {unit}",),
    )


def _correlation(name: str, value: float | None, thresholds: Thresholds) -> Finding:
    if value is None:
        return unknown(name, "needs three samples with rewards, and rewards and lengths that differ")
    limit = thresholds.max_length_correlation
    return Finding(
        name=name,
        evidence=f"{value:+.2f}",
        status=at_most(abs(value), good=limit),
        title="" if abs(value) <= limit else "length control first: compare rewards at equal length before training",
        threshold=f"at most ±{limit:g}",
        source="own choice",
        number=value,
    )


def _cut_off(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    name = "responses cut off"
    known = [sample for sample in samples if sample.finish_reason != "unknown"]
    if not known:
        return unknown(name, "no sample says why it ended")
    share = sum(sample.finish_reason == "length" for sample in known) / len(known)
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(len(known), 'sample')}",
        status=at_most(share, good=thresholds.max_cut_off),
        title="" if share <= thresholds.max_cut_off else "raise max_new_tokens, or leave them out",
        threshold=f"at most {percent(thresholds.max_cut_off)}",
        source="own choice",
        number=share,
    )


def _empty(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    share = sum(not sample.response.strip() for sample in samples) / len(samples)
    return Finding(
        name="empty responses",
        evidence=percent(share),
        status=at_most(share, good=thresholds.max_empty),
        title="" if share <= thresholds.max_empty else "something failed where these were made",
        threshold=f"at most {percent(thresholds.max_empty)}",
        source="prime-rl: above 5 % is a smell",
        number=share,
    )


def _by_length(lengths: NDArray[np.float64], rewards: NDArray[np.float64], unit: str) -> Figure:
    """Mean reward in bins of about equally many responses."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _NUM_BINS + 1)))
    bins = np.searchsorted(edges[1:-1], lengths, side="left")
    present = np.unique(bins)
    return Figure(
        title="Mean reward by length",
        kind="line",
        x=tuple(float(lengths[bins == number].mean()) for number in present),
        y=tuple(float(rewards[bins == number].mean()) for number in present),
        x_label=f"mean length in {unit} (last bin: {short(float(lengths.max()))} at most)",
        y_label="mean reward",
        note="a rising line rewards length, or length goes with being right",
    )
