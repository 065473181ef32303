"""Is the reward a reward for length, and how many responses are cut off or empty?"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    CLAIM_ALPHA,
    at_most,
    counted,
    ends,
    is_rated,
    percent,
    prompt_units,
    short,
    unknown,
    without_copies,
)
from klimb.findings.audit.report import Block, Figure
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.conversations import is_cut
from klimb.findings.finding import Finding
from klimb.findings.statistics import Tested, correlation

_NUM_BINS = 8


def length_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Correlation of reward and length; lengths are drawn tokens, or characters if some sample has no token ids."""
    in_tokens = all(sample.response_ids or not sample.response for sample in samples)
    unit = "tokens" if in_tokens else "characters"
    rated = without_copies([sample for sample in samples if is_rated(sample)])
    prompts = prompt_units(rated)
    lengths = np.array([s.num_drawn if in_tokens else len(s.response) for s in rated], dtype=np.float64)
    rewards = np.array([sample.reward for sample in rated], dtype=np.float64)
    return Block(
        name="length",
        title="Whether length is rewarded",
        findings=(
            _correlation(
                "correlation of reward and length", correlation(lengths, rewards, prompts, unit="prompt"), thresholds
            ),
            _correlation(
                "rank correlation of reward and length",
                correlation(lengths, rewards, prompts, unit="prompt", of_ranks=True),
                thresholds,
            ),
            _cut_off(samples, thresholds),
            _empty(samples, thresholds),
        ),
        figures=(_by_length(lengths, rewards, unit),) if len(rated) else (),
        notes=(f"lengths in {unit}",),
    )


def _correlation(name: str, found: Tested | None, thresholds: Thresholds) -> Finding:
    if found is None:
        return unknown(name, "needs three samples with rewards, and rewards and lengths that differ")
    value, limit = found.interval.value, thresholds.max_length_correlation
    if not math.isfinite(found.p_value):
        return replace(unknown(name, f"no test: {found.interval.reason}"), evidence=f"{value:+.2f}", number=value)
    is_claimed = abs(value) > limit and found.p_value < CLAIM_ALPHA
    return Finding(
        name=name,
        evidence=f"{value:+.2f} ({ends(found.interval)}), p {short(found.p_value)}",
        status="warning" if is_claimed else "good",
        title="length control first: compare rewards at equal length before training" if is_claimed else "",
        threshold=f"at most ±{limit:g}, or p from {short(CLAIM_ALPHA)}",
        source="own choice; the p is a third of 5 %, for three claims on rewards",
        number=value,
    )


def _cut_off(samples: Sequence[Sample], thresholds: Thresholds) -> Finding:
    name = "responses cut off"
    known = [sample for sample in samples if sample.finish_reason != "unknown"]
    if not known:
        return unknown(name, "no sample says why it ended")
    share = sum(map(is_cut, known)) / len(known)
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
