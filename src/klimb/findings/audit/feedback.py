"""What people's ratings are worth: how many, how positive, by how few, and whether they change."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import at_least, at_most, counted, is_rated, percent, short, unknown
from klimb.findings.audit.report import Block
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

Z_95 = 1.959963984540054

NOT_AT_RANDOM = (
    "people rate few answers, and not at random: the rated ones are no picture of all. Compare label rates of slices "
    "before believing a mean"
)


def feedback_block(samples: Sequence[Sample], thresholds: Thresholds) -> Block:
    """Ratings as feedback. An unrated sample is unrated, never negative."""
    rated = [sample for sample in samples if is_rated(sample)]
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
            unknown("agreement of raters", "needs the ratings one by one, and a sample holds one reward"),
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
    """Mean reward of the second half in time minus that of the first, with the 95 % half width of the difference."""
    name = "drift in time"
    dated = sorted((sample.created_at, sample.reward or 0.0) for sample in rated if sample.created_at > 0)
    if len(dated) < 4 or dated[0][0] == dated[-1][0]:
        return unknown(name, "needs four ratings with different times")
    rewards = np.array([reward for _, reward in dated])
    first, second = rewards[: len(rewards) // 2], rewards[len(rewards) // 2 :]
    drift = float(second.mean() - first.mean())
    noise = float(Z_95 * np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)))
    moved = abs(drift) > thresholds.max_drift and abs(drift) > noise
    return Finding(
        name=name,
        evidence=f"{drift:+.3f} ± {short(noise)} (95 %)",
        status="warning" if moved else "good",
        title="the second half in time is rated otherwise; hold out the latest rows, not random ones" if moved else "",
        threshold=f"at most ±{thresholds.max_drift:g}, or within the noise",
        source="own choice",
        number=drift,
    )
