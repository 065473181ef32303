"""Raters who may mean harm: who says the opposite of everybody, and who rates faster than anybody can read."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from klimb.experience.feedback import Feedback, is_by_machine
from klimb.findings.audit.evidence import at_most, counted, percent, unknown
from klimb.findings.audit.raters import LEAST_OF_RATER, ByUser
from klimb.findings.audit.thresholds import Thresholds
from klimb.findings.finding import Finding

CONTRADICTING = "raters who contradict the others"


BURSTS = "ratings in bursts"


CONTRADICTION_ALPHA = 0.001
"""Level at which a rater is called so, shared by all who are asked."""


MINUTE = 60.0


DAY = 86_400.0


MOST_NAMED = 3
"""Raters named in a finding."""


def contradicting_raters(ratings: ByUser, thresholds: Thresholds) -> Finding:
    """People whose high ratings fall where the others' are low, more than chance would have it.

    Asked is who shares at least 10 answers with others. A rating is high if it is above the mean of the person's own on
    these answers, the others' mean of an answer if it is above the mean of those. Of n answers, K are high to the
    person, M to the others and a to both: P(X ≤ a), X hypergeometric in n, K, M (Fisher's exact test, one-sided).
    """
    shared = _shared_ratings(ratings)
    asked = {user: pairs for user, pairs in shared.items() if len(pairs) >= LEAST_OF_RATER}
    if len(asked) < 2:
        return unknown(CONTRADICTING, f"fewer than two named raters share {LEAST_OF_RATER} answers with others")
    level = CONTRADICTION_ALPHA / len(asked)
    found = [user for user, pairs in asked.items() if chance_of_agreement(pairs) < level]
    num_ratings: dict[str, int] = defaultdict(int)
    for of_users in ratings.values():
        for user in of_users:
            num_ratings[user] += 1
    share = sum(num_ratings[user] for user in found) / sum(num_ratings.values())
    most = thresholds.max_contradicting_raters
    return Finding(
        name=CONTRADICTING,
        evidence=f"{len(found):,} of {counted(len(asked), 'rater')}, with {percent(share)} of the ratings"
        + named(found),
        status=at_most(share, good=most),
        title=_advice("read some of theirs; if they mean harm") if share > most else "",
        threshold=f"at most {percent(most)} of ratings",
        source="own choice; Fisher's exact test at 0.1 % over the raters asked",
        number=share,
    )


def chance_of_agreement(pairs: Sequence[tuple[float, float]]) -> float:
    """Return P(X ≤ a) as `contradicting_raters` has it, of pairs of a person's rating and the others' mean.

    >>> round(chance_of_agreement([(1, 0), (0, 1)] * 5), 6)  # 1/C(10, 5)
    0.003968
    """
    own_mean, other_mean = (math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))
    highs = [(own > own_mean, other > other_mean) for own, other in pairs]
    num, num_own = len(highs), sum(own for own, _ in highs)
    num_other, num_both = sum(other for _, other in highs), sum(own and other for own, other in highs)
    ways = sum(math.comb(num_own, both) * math.comb(num - num_own, num_other - both) for both in range(num_both + 1))
    return ways / math.comb(num, num_other)


def bursts_of_ratings(ratings: Iterable[Feedback], thresholds: Thresholds) -> Finding:
    """Measure the share of dated ratings that are among more than 30 of one person within a minute.

    Dates without a time are left out, and people all of whose ratings have one time: that is when they were written
    down, not when they were given.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        is_dated = rating.created_at > 0 and rating.created_at % DAY
        if rating.value is not None and rating.user and is_dated and not is_by_machine(rating.name):
            times[rating.user].append(rating.created_at)
    dated = {user: sorted(each) for user, each in times.items() if len(set(each)) > 1}
    total = sum(map(len, dated.values()))
    if not total:
        return unknown(BURSTS, "no ratings of named people with a time of day")
    limit = thresholds.max_ratings_per_minute
    in_bursts = {user: number for user, each in dated.items() if (number := _num_in_bursts(each, limit))}
    share = sum(in_bursts.values()) / total
    most = thresholds.max_burst_share
    return Finding(
        name=BURSTS,
        evidence=f"{percent(share)} of {counted(total, 'rating')}, by {counted(len(in_bursts), 'rater')}"
        + named(sorted(in_bursts, key=lambda user: -in_bursts[user])),
        status=at_most(share, good=most),
        title=_advice("nobody reads so fast: if a program gave them") if share > most else "",
        threshold=f"at most {percent(most)} among more than {limit:g} of one person in a minute",
        source="own choice",
        number=share,
    )


def named(raters: Sequence[str]) -> str:
    """Return the first raters in words, as they are called in the store; empty for none."""
    more = f" and {len(raters) - MOST_NAMED:,} more" if len(raters) > MOST_NAMED else ""
    return f": {', '.join(raters[:MOST_NAMED])}{more}" if raters else ""


def _advice(why: str) -> str:
    return f"{why}, klimb experience quarantine STORE --rater HASH leaves a rater out"


def _shared_ratings(ratings: ByUser) -> Mapping[str, list[tuple[float, float]]]:
    """Return by named user the pairs of the own rating and the others' mean of an answer."""
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for of_users in ratings.values():
        total = math.fsum(of_users.values())
        for user, value in of_users.items():
            if user and len(of_users) > 1:
                shared[user].append((value, (total - value) / (len(of_users) - 1)))
    return shared


def _num_in_bursts(times: Sequence[float], limit: float) -> int:
    """Return how many of the ascending times lie in a minute with more than `limit` of them."""
    is_in = bytearray(len(times))
    first = 0
    for last, time in enumerate(times):
        while time - times[first] >= MINUTE:
            first += 1
        if last - first + 1 > limit:
            is_in[first : last + 1] = b"\1" * (last - first + 1)
    return sum(is_in)
