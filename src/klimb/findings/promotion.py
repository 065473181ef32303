"""Is a candidate better than the policy that serves? Evidence that may be looked at as often as one likes.

Evidence is a sequence of differences in [-1, 1] in the order in which they came, each with a mean of at most 0 if the
candidate is not better. The capital of somebody who bets on the candidate is then a supermartingale, and by Ville's
inequality it reaches 1/level with a chance of at most the level, over all looks together:

    capital = mean over λ of Π_t (1 + λ·d_t),    λ = 0.05, 0.10, ..., 0.95

Source: Waudby-Smith and Ramdas 2024 (arXiv 2010.09686), betting on the mean of bounded observations with diversified
bets (dKelly); Ville 1939. Why these differences: docs/learning-loop.md.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from klimb.findings.off_policy_evaluation.trust import LEAST_ESS_SHARE, effective_number
from klimb.findings.promotion_rules import Spending, Verdict
from klimb.findings.statistics import expected_share

BETS: NDArray[np.float64] = np.arange(1, 20) / 20
"""Shares of the capital that are put on each difference, each by one of those who share the capital."""


MOST_TO_ONE = 10
"""Ratings of the serving policy, at most, that one of the candidate is compared with; more would tell little more."""


LEAST_WEIGHTS = 20
"""Answers below which nothing is said of their weights."""


Kind = Literal["held-out ratings", "live ratings", "held-out rewards"]


@dataclass(frozen=True, kw_only=True)
class RatedChange:
    """A rated answer that neither policy was trained on.

    Attributes:
        rating: within [0, 1].
        change: log π(candidate) − log π(serving) of the whole answer, in nats.
        is_of_serving: whether the serving policy drew it, so that exp(change) is its importance weight.
    """

    rating: float
    change: float
    is_of_serving: bool = True


@dataclass(frozen=True, kw_only=True)
class PreferredChange:
    """Two answers to one prompt, of which a person preferred one.

    Attributes:
        better: change of the answer that was preferred, in nats.
        worse: change of the other one.
    """

    better: float
    worse: float


@dataclass(frozen=True, kw_only=True)
class LiveRating:
    """A rating of an answer that was given while a candidate had its share of the requests.

    Attributes:
        rating: within [0, 1].
        is_of_candidate: whether the candidate gave the answer.
    """

    rating: float
    is_of_candidate: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one candidate from one kind of observations.

    Attributes:
        kind: of the observations.
        differences: in [-1, 1], in the order in which they came; positive ones speak for the candidate.
        num_observations: ratings (or prompts) that were looked at to make them.
        what: the numbers for people, as a part of a sentence.
        distrust: why the observations cannot tell whatever the differences are; empty if they can.
    """

    kind: Kind
    differences: tuple[float, ...]
    num_observations: int
    what: str = ""
    distrust: str = ""

    @property
    def mean(self) -> float:
        """Mean difference; nan without any."""
        return float(np.mean(self.differences)) if self.differences else math.nan


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says at one look.

    Attributes:
        verdict: promote, keep looking, or reject: it is worse, or the evidence is at its end.
        sentence: why, with the numbers.
        capital: of the bet that the candidate is better; 1 at the beginning.
        level: chance of promoting this candidate, over all looks, if it is not better.
        num_observations: looked at so far.
        num_more: so many more would tell, if they are like those seen; None where none are expected to.
    """

    verdict: Verdict
    sentence: str
    capital: float
    level: float
    num_observations: int
    num_more: int | None = None


def level_of(number: int, *, alpha: float, spending: Spending) -> float:
    """Return the level of the candidate of this number, counted from 1 since the last promotion.

        each: α          of all candidates that are not better, at most the share α is promoted
        all:  α/(k(k+1)) they add up to α: the chance that any of them is promoted is at most α

    Raises:
        ValueError: the number is below 1, or α no chance.
    """
    if number < 1 or not 0 < alpha < 1:
        raise ValueError(f"a candidate's number begins at 1 and alpha is in (0, 1), got {number} and {alpha}")
    return alpha if spending == "each" else alpha / (number * (number + 1))


def log_capital(differences: Sequence[float]) -> float:
    """Return the log of the capital after these differences; 0 without any.

    Raises:
        ValueError: one of them is outside of [-1, 1] or no number.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not (np.abs(values) <= 1).all():
        raise ValueError(f"differences must be in [-1, 1], got {values[~(np.abs(values) <= 1)][0]}")
    logs = np.log1p(np.multiply.outer(BETS, values)).sum(axis=1)
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).mean()))


def growth(differences: Sequence[float]) -> float:
    """Return by how much the log of the best bet's capital grew with each difference; 0 if no bet gained."""
    if not differences:
        return 0.0
    return max(0.0, float(np.log1p(np.multiply.outer(BETS, np.asarray(differences))).mean(axis=1).max()))


def preference_evidence(rows: Iterable[RatedChange | PreferredChange]) -> Evidence:
    """Return what held-out ratings say, without an answer of the candidate's own.

    An answer is paired with the oldest answer before it that is not paired yet and was rated otherwise; a preference is
    a pair by itself. With g the change of the better-rated minus that of the worse-rated one,

        d = clip(g/(2·s), −1, 1)·(difference of the ratings),    s² = mean of g² over the pairs before

    and d = ½ of g's sign in the first pair. If the candidate's changes have nothing to do with the ratings, as after
    training on noise, the mean of d is exactly 0 whatever the weights are; if the better-rated gained less, it is
    below.

    Raises:
        ValueError: a rating is outside of [0, 1], or a change is not finite.
    """
    rows = list(rows)
    pairs = _pair_up(rows)
    differences: list[float] = []
    sum_of_squares = 0.0
    for place, (gain, step) in enumerate(pairs):
        scale = 2 * math.sqrt(sum_of_squares / place) if sum_of_squares else 2 * abs(gain)
        differences.append(step * min(1.0, max(-1.0, gain / scale)) if scale else 0.0)
        sum_of_squares += gain * gain
    num_right = sum(gain > 0 for gain, _ in pairs)
    what = f"of {len(pairs):,} pairs of held-out answers, the better-rated one gained more in {num_right:,}"
    own = [row for row in rows if isinstance(row, RatedChange) and row.is_of_serving]
    return Evidence(
        kind="held-out ratings",
        differences=tuple(differences),
        num_observations=sum(1 if isinstance(row, RatedChange) else 2 for row in rows),
        what=what + _estimate(own),
        distrust=reason_against_weights([row.change for row in own]),
    )


def live_evidence(rows: Iterable[LiveRating], *, fraction: float) -> Evidence:
    """Return what ratings of the traffic say: each of the candidate's minus the mean of k of the serving policy.

    k is as many as come in the time of one of the candidate's, (1 − fraction)/fraction, from 1 to 10. Both arms answer
    requests of the same time, drawn by chance.

    Args:
        rows: in the order in which they came.
        fraction: share of the requests that the candidate gets.

    Raises:
        ValueError: a rating is outside of [0, 1], or the fraction is not in (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the candidate's share must be in (0, 1), got {fraction}")
    rows = list(rows)
    num_each = min(MOST_TO_ONE, max(1, round((1 - fraction) / fraction)))
    waiting: tuple[deque[float], deque[float]] = deque(), deque()
    differences: list[float] = []
    for row in rows:
        waiting[row.is_of_candidate].append(_checked(row.rating))
        serving, candidate = waiting
        while candidate and len(serving) >= num_each:
            mean = sum(serving.popleft() for _ in range(num_each)) / num_each
            differences.append(candidate.popleft() - mean)
    arms = [[row.rating for row in rows if row.is_of_candidate == is_candidate] for is_candidate in (True, False)]
    told = [
        f"{len(arm):,} live ratings of {name} average {np.mean(arm):.2f}" if arm else f"{name} has no live rating"
        for arm, name in zip(arms, ("the candidate", "the serving policy"), strict=True)
    ]
    return Evidence(
        kind="live ratings",
        differences=tuple(differences),
        num_observations=len(rows),
        what=" and ".join(told),
    )


def reward_evidence(before: Sequence[float], after: Sequence[float], *, bounds: tuple[float, float]) -> Evidence:
    """Return what rewards of held-out prompts say, each prompt answered by both policies.

    Args:
        before: of the serving policy.
        after: of the candidate, in the same order.
        bounds: the least and the largest reward that there can be.

    Raises:
        ValueError: the numbers of rewards differ, or one is out of bounds.
    """
    low, high = bounds
    if len(before) != len(after) or not low < high:
        raise ValueError(f"{len(before)} and {len(after)} rewards within {bounds}; give pairs, and the lower end first")
    first, last = ([_checked((value - low) / (high - low)) for value in rewards] for rewards in (before, after))
    means = f"from {np.mean(before):.3f} to {np.mean(after):.3f}" if before else ""
    what = f"the mean reward on {len(before):,} held-out prompts went {means}"
    return Evidence(
        kind="held-out rewards",
        differences=tuple(late - early for early, late in zip(first, last, strict=True)),
        num_observations=len(before),
        what=what if before else "",
    )


def decide(evidence: Evidence, *, level: float, give_up_after: int) -> Decision:
    """Return what the evidence says at this look.

    Promote once the capital of the bet on the candidate is 1/level; reject once that of the bet against it is, or after
    so many observations; never promote on weights that cannot tell.

    Args:
        evidence: all of it so far.
        level: of this candidate.
        give_up_after: observations after which a candidate that is not shown to be better is rejected.
    """
    capital = log_capital(evidence.differences)
    against = log_capital([-difference for difference in evidence.differences])
    wanted = math.log(1 / level)
    more = _num_more(evidence, wanted - capital)
    numbers = f"{evidence.what}; the bet on the candidate stands at {_times(capital)}, {1 / level:,.0f} are needed"

    def made(verdict: Verdict, sentence: str, num_more: int | None = None) -> Decision:
        return Decision(
            verdict=verdict,
            sentence=sentence,
            capital=math.exp(min(capital, 700.0)),
            level=level,
            num_observations=evidence.num_observations,
            num_more=num_more,
        )

    if against >= wanted:
        return made(
            "reject", f"Worse than the serving policy: {evidence.what} (the bet against it: {_times(against)})."
        )
    is_last = evidence.num_observations >= give_up_after
    if evidence.distrust:
        said = f"Cannot tell: {evidence.distrust} ({evidence.what})."
        return made("reject" if is_last else "keep looking", said)
    if capital >= wanted:
        return made("promote", f"Better than the serving policy: {numbers}.")
    if is_last:
        seen = f"{evidence.num_observations:,} {_noun(evidence)}"
        return made("reject", f"Not shown to be better after {seen}, the most that are waited for: {numbers}.")
    until = (
        f"about {more:,} more {_noun(evidence)} like these would tell"
        if more is not None
        else f"if the next {_noun(evidence)} are like these, no number of them will show that it is better"
    )
    return made("keep looking", f"Not decided: {numbers}; {until}.", more)


def reason_against_weights(changes: Sequence[float]) -> str:
    """Why answers of the serving policy say too little of the candidate; empty if they can tell.

    The effective share of the answers is Kish's, or what the spread of the log-weights leads to expect if that is less
    (the largest weights may be missing).

    Args:
        changes: log-weights of answers that the serving policy drew, in nats.
    """
    if len(changes) < LEAST_WEIGHTS:
        return ""
    log_w = np.asarray(changes, dtype=np.float64)
    seen = effective_number(np.exp(log_w - log_w.max())) / len(log_w)
    share = min(seen, expected_share(log_w))
    if share >= LEAST_ESS_SHARE:
        return ""
    return (
        f"the candidate is so far from the serving policy that {len(log_w):,} of its answers count like "
        f"{share * len(log_w):.1f}, below {LEAST_ESS_SHARE:.0%}: most of what it would say was never rated. Give it a "
        "share of the traffic (--candidate-fraction), or train it less far"
    )


def _pair_up(rows: Sequence[RatedChange | PreferredChange]) -> list[tuple[float, float]]:
    """Return of each pair how much more the better-rated answer gained, and by how much it was rated better."""
    pairs: list[tuple[float, float]] = []
    waiting: deque[RatedChange] = deque()  # all with one rating: whatever differs has been paired
    for row in rows:
        if isinstance(row, PreferredChange):
            pairs.append((_finite(row.better) - _finite(row.worse), 1.0))
            continue
        _checked(row.rating)
        _finite(row.change)
        if not waiting or waiting[0].rating == row.rating:
            waiting.append(row)
            continue
        earlier = waiting.popleft()
        better, worse = (row, earlier) if row.rating > earlier.rating else (earlier, row)
        pairs.append((better.change - worse.change, better.rating - worse.rating))
    return pairs


def _estimate(own: Sequence[RatedChange]) -> str:
    """Return the self-normalised estimate of the mean rating, in words; empty without answers or with bad weights."""
    if len(own) < LEAST_WEIGHTS or reason_against_weights([row.change for row in own]):
        return ""
    log_w, ratings = np.array([row.change for row in own]), np.array([row.rating for row in own])
    w = np.exp(log_w - log_w.max())
    return f"; the mean rating {ratings.mean():.2f} is estimated to become {float((w * ratings).sum() / w.sum()):.2f}"


def _num_more(evidence: Evidence, missing: float) -> int | None:
    rate = growth(evidence.differences)
    if rate <= 0 or not evidence.differences:
        return None
    num_differences = max(0.0, missing) / rate
    return math.ceil(num_differences * evidence.num_observations / len(evidence.differences))


def _noun(evidence: Evidence) -> str:
    return "prompts" if evidence.kind == "held-out rewards" else "ratings"


def _times(log_of_capital: float) -> str:
    return f"{math.exp(min(log_of_capital, 700.0)):.3g} times its stake"


def _checked(rating: float) -> float:
    if not 0 <= rating <= 1:
        raise ValueError(f"a rating must be within [0, 1], got {rating}; give the bounds that every rating is in")
    return rating


def _finite(change: float) -> float:
    if not math.isfinite(change):
        raise ValueError("the log-probability of a held-out answer is not finite; score it again with both policies")
    return change
