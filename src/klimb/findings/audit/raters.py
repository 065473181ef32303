"""Who rated: people who give one value whatever they see, and how far people agree about the same answer."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from klimb.experience.feedback import Feedback, is_by_machine
from klimb.experience.samples import Sample
from klimb.findings.audit.evidence import (
    QUIRK_ALPHA,
    at_least,
    at_most,
    both_at_least,
    counted,
    ends,
    is_rated,
    percent,
    short,
    unknown,
    user_of,
)
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding
from klimb.findings.statistics import Interval, krippendorff_alpha

AGREEMENT = "agreement of raters"


CONSTANT = "raters who give one value"


LEAST_OF_RATER = 10
"""Ratings of a person from which on one value alone can be told from luck."""


ByUser = Mapping[str, Mapping[str, float]]
"""Sample -> user -> the rating that counts."""


def latest_ratings(ratings: Iterable[Feedback]) -> ByUser:
    """Return each person's latest rating of each sample; of several names the mean of each latest one.

    What a reward model or a judge gave is left out.
    """
    latest: dict[tuple[str, str, str], Feedback] = {}
    for rating in ratings:
        key = (rating.sample_id, rating.user, rating.name)
        if rating.value is None or is_by_machine(rating.name):
            continue
        if key not in latest or latest[key].created_at <= rating.created_at:
            latest[key] = rating
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (sample_id, user, _), rating in latest.items():
        values[sample_id][user].append(rating.value or 0.0)
    return {
        sample_id: {user: math.fsum(each) / len(each) for user, each in of_users.items()}
        for sample_id, of_users in values.items()
    }


def ratings_of_samples(samples: Sequence[Sample]) -> ByUser:
    """Return the reward of each rated sample as the rating of the user that it names."""
    return {sample.sample_id: {user_of(sample): sample.reward or 0.0} for sample in samples if is_rated(sample)}


def measure_agreement(ratings: ByUser) -> Interval:
    """Return Krippendorff's α over the answers that several people rated."""
    return krippendorff_alpha([list(of_users.values()) for of_users in ratings.values()], unit="answer")


def agreement_finding(found: Interval, thresholds: Thresholds) -> Finding:
    """Krippendorff's α against its limit: a warning where the whole interval is below, bad where it is not above 0."""
    if not math.isfinite(found.value):
        return unknown(AGREEMENT, f"{found.reason}: let two people rate the same 30 answers")
    if not found.is_known:
        return unknown(AGREEMENT, f"α {short(found.value)}, and {found.reason}")
    limit = thresholds.min_agreement
    # Only what the whole interval says is claimed.
    status = at_least(found.high, good=limit, bad=None)
    is_chance = status == "warning" and found.low <= 0
    return Finding(
        name=AGREEMENT,
        evidence=f"α {short(found.value)} ({ends(found)})",
        status="bad" if is_chance else status,
        title=(
            "people agree no better than chance would"
            if is_chance
            else "people often rate the same answer differently: say in two sentences what a good answer is"
            if status == "warning"
            else ""
        ),
        threshold=both_at_least(f"{limit:g}", "more than 0") + ", by the whole interval",
        source="Krippendorff 2004: 0.667 for tentative conclusions",
        number=found.value,
    )


def constant_raters(ratings: ByUser, thresholds: Thresholds) -> Finding:
    """People with at least 10 ratings who gave one value alone, where the others' ratings make that unlikely.

    With k ratings of a value that is a share s of all other people's, (n·s + 1)/(n + 2) to the power k is its chance
    for one who rates as they do. Those below a level shared by all people asked are named.
    """
    of_user: dict[str, list[float]] = defaultdict(list)
    for of_users in ratings.values():
        for user, value in of_users.items():
            of_user[user].append(value)
    known = {user: values for user, values in of_user.items() if user}
    total = sum(map(len, known.values()))
    if len(known) < 2:
        return unknown(CONSTANT, "fewer than two raters are named")
    asked = [user for user, values in known.items() if len(values) >= LEAST_OF_RATER]
    found = [user for user in asked if _chance_of_one_value(user, known) < QUIRK_ALPHA / len(asked)]
    share = sum(len(known[user]) for user in found) / total
    limit = thresholds.max_constant_raters
    return Finding(
        name=CONSTANT,
        evidence=f"{len(found):,} of {counted(len(known), 'rater')}, with {percent(share)} of the ratings",
        status=at_most(share, good=limit),
        title="their ratings say nothing of the answers: leave them out" if share > limit else "",
        threshold=f"at most {percent(limit)} of ratings",
        source="own choice; the level is a part of 5 % for all checks of what ratings follow",
        number=share,
    )


def _chance_of_one_value(user: str, ratings: Mapping[str, Sequence[float]]) -> float:
    values = ratings[user]
    if len(set(values)) > 1:
        return 1.0
    others = [value for other, each in ratings.items() if other != user for value in each]
    share = (sum(value == values[0] for value in others) + 1) / (len(others) + 2)
    return share ** len(values)
