"""What people's ratings are worth: how many, how positive, by how few, and whether they change."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from klimb.experience.feedback import Feedback
from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    CLAIM_ALPHA,
    at_least,
    at_most,
    counted,
    ends,
    is_rated,
    numbered,
    percent,
    prompt_text,
    prompt_units,
    short,
    unknown,
    user_of,
)
from klimb.findings.audit.poisoning import bursts_of_ratings, contradicting_raters
from klimb.findings.audit.raters import AGREEMENT, ByUser, agreement_finding, constant_raters, ratings_of_samples
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import Interval, Tested, difference_of_groups

DRIFT = "drift in time"


NOT_AT_RANDOM = (
    "people rate few answers, and not at random: the rated ones are no picture of all. Compare label rates of slices "
    "before believing a mean"
)


def feedback_block(
    samples: Sequence[Sample],
    thresholds: Thresholds,
    *,
    by_user: ByUser | None = None,
    agreement: Interval | None = None,
    ratings: Sequence[Feedback] = (),
) -> Block:
    """Ratings as feedback. An unrated sample is unrated, never negative.

    Args:
        samples: rated or not.
        thresholds: of the checks.
        by_user: each person's ratings, where they are known one by one.
        agreement: of those people.
        ratings: one by one, with their times.
    """
    rated = [sample for sample in samples if is_rated(sample)]
    of_users = ratings_of_samples(rated) if by_user is None else by_user
    title = "What the ratings are worth"
    if not rated:
        return Block(name="feedback", title=title, findings=(unknown("label rate", "no sample has a rating"),))
    return Block(
        name="feedback",
        title=title,
        findings=(
            _label_rate(len(rated), len(samples), thresholds),
            _positive(rated),
            _concentration(rated, thresholds),
            unknown(AGREEMENT, "needs the ratings one by one, and a sample holds one reward")
            if agreement is None
            else agreement_finding(agreement, thresholds),
            constant_raters(of_users, thresholds),
            contradicting_raters(of_users, thresholds),
            bursts_of_ratings(ratings, thresholds),
            _drift(rated, thresholds),
        ),
        notes=(NOT_AT_RANDOM,) if len(rated) < len(samples) else (),
    )


def _label_rate(num_rated: int, num_samples: int, thresholds: Thresholds) -> Finding:
    share = num_rated / num_samples
    return Finding(
        name="label rate",
        evidence=f"{percent(share)} of {counted(num_samples, 'sample')}",
        status=at_least(share, good=thresholds.min_reward_share),
        title="" if share == 1 else "the others are unrated, which is not negative",
        threshold=f"at least {percent(thresholds.min_reward_share)}",
        source="own choice",
        number=share,
    )


def _positive(rated: Sequence[Sample]) -> Finding:
    """Above 0.5 is positive. KTO's weights keep w⁺n⁺ : w⁻n⁻ between 1:1 and 4:3."""
    num_positive = sum((sample.reward or 0.0) > 0.5 for sample in rated)
    num_negative = len(rated) - num_positive
    share = num_positive / len(rated)
    one_sided = not (num_positive and num_negative)
    balance = "only one side was rated" if one_sided else _kto_weights(num_positive, num_negative)
    return Finding(
        name="positive share",
        evidence=percent(share),
        status="warning" if one_sided else "good",
        title=balance,
        threshold="both sides present",
        source="TRL's documentation of KTO: w⁺n⁺ : w⁻n⁻ between 1:1 and 4:3",
        number=share,
    )


def _kto_weights(num_positive: int, num_negative: int) -> str:
    ratio = num_positive / num_negative
    if 1 <= ratio <= 4 / 3:
        return "balanced: weights of 1 and 1 suit KTO"
    side, weight = ("undesirable", ratio) if ratio > 1 else ("desirable", 1 / ratio)
    return f"for KTO weigh the {side} side {weight:.2f} times"


def _concentration(rated: Sequence[Sample], thresholds: Thresholds) -> Finding:
    name = "ratings of the most active user"
    users = Counter(user for sample in rated if (user := sample.metadata.get("user", "")))
    if not users:
        return unknown(name, "no rating says which user it came from")
    share = users.most_common(1)[0][1] / users.total()
    return Finding(
        name=name,
        evidence=f"{percent(share)} of {counted(users.total(), 'rating')} by {counted(len(users), 'user')}",
        status=at_most(share, good=thresholds.max_top_user_share),
        title="" if share <= thresholds.max_top_user_share else "one person's taste weighs much",
        threshold=f"at most {percent(thresholds.max_top_user_share)}",
        source="own choice",
        number=share,
    )


def _drift(rated: Sequence[Sample], thresholds: Thresholds) -> Finding:
    """Mean reward after the stamp nearest to the middle minus that before it; rows of one stamp stay together."""
    dated = sorted(_without_repeats(rated), key=lambda sample: sample.created_at)
    middle = _middle(np.array([sample.created_at for sample in dated]))
    if middle is None:
        return unknown(DRIFT, "no two ratings have different times")
    found = _change(dated, middle)
    drift = found.interval.value
    if not math.isfinite(found.p_value):
        return replace(unknown(DRIFT, f"no test: {found.interval.reason}"), evidence=_signed(drift), number=drift)
    moved = abs(drift) > thresholds.max_drift and found.p_value < CLAIM_ALPHA
    sides = f"{counted(middle, 'rating')} before and {len(dated) - middle:,} after"
    return Finding(
        name=DRIFT,
        evidence=f"{_signed(drift)} ({ends(found.interval)}), p {short(found.p_value)}, {sides}",
        status="warning" if moved else "good",
        title="later ratings are otherwise; hold out the latest rows, not random ones" if moved else "",
        threshold=f"at most ±{thresholds.max_drift:g}, or p from {short(CLAIM_ALPHA)}",
        source="own choice; the p is a third of 5 %, for three claims on rewards",
        number=drift,
    )


def _signed(number: float) -> str:
    return f"{number:+.3f}" if abs(number) < MANY_DIGITS else f"{number:+.3g}"


MANY_DIGITS = 1e6


def _without_repeats(rated: Sequence[Sample]) -> list[Sample]:
    """Return the rows with a time; of those equal in prompt, response, reward, user and time the first."""
    first: dict[Hashable, Sample] = {}
    for sample in rated:
        if sample.created_at > 0:
            first.setdefault(
                (prompt_text(sample), sample.response, sample.reward, user_of(sample), sample.created_at), sample
            )
    return list(first.values())


def _middle(times: NDArray[np.float64]) -> int | None:
    """Return how many of the ordered rows come before the change of time stamp that is nearest to the middle."""
    changes = np.flatnonzero(np.diff(times)) + 1
    if not changes.size:
        return None
    return int(changes[np.abs(2 * changes - len(times)).argmin()])


def _change(dated: Sequence[Sample], middle: int) -> Tested:
    """Return the later mean minus the earlier one, with prompts as units or, if that is less certain, users.

    A single user is no sample of users, nor a single prompt one of prompts: then the claim is on this one.
    """
    rewards = np.array([sample.reward for sample in dated], dtype=np.float64)
    users, prompts = [user_of(sample) for sample in dated], prompt_units(dated)
    units = {"prompt": prompts}
    if len(set(users)) > 1:
        named = [f"user {user}" if user else f"prompt {prompt}" for user, prompt in zip(users, prompts, strict=True)]
        units = {"prompt": prompts, "user": numbered(named)} if prompts.any() else {"user": numbered(named)}
    tests = [
        difference_of_groups(rewards[:middle], unit[:middle], rewards[middle:], unit[middle:], unit=noun)
        for noun, unit in units.items()
    ]
    return max(tests, key=lambda test: test.p_value if math.isfinite(test.p_value) else math.inf)
