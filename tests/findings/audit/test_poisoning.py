"""Raters who may mean harm, found by what they say and how fast, and honest ones left alone."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import hypergeom

from klimb.experience.feedback import Feedback
from klimb.findings.audit.poisoning import bursts_of_ratings, chance_of_agreement, contradicting_raters
from klimb.findings.audit.thresholds import Thresholds

LIMITS = Thresholds()


def panel(*, num_inverting: int, num_raters: int = 10, num_answers: int = 20, noise: float = 0.0, seed: int = 0):
    """Every rater's thumb on every answer, of which every second is good; the last ones invert."""
    generator = np.random.default_rng(seed)
    wrong = generator.random((num_answers, num_raters)) < noise
    return {
        f"s{answer}": {
            f"u{rater}": float((answer % 2 == 0) ^ bool(wrong[answer, rater]) ^ (rater >= num_raters - num_inverting))
            for rater in range(num_raters)
        }
        for answer in range(num_answers)
    }


def test_a_tenth_that_inverts_is_found_and_named():
    found = contradicting_raters(panel(num_inverting=1), LIMITS)
    assert (found.status, found.number) == ("warning", 0.1)
    assert found.evidence.endswith(": u9")
    assert "quarantine" in found.title
    assert contradicting_raters(panel(num_inverting=2, noise=0.1, num_answers=60), LIMITS).number == 0.2


def test_raters_who_err_or_guess_contradict_nobody():
    for seed in range(30):
        assert contradicting_raters(panel(num_inverting=0, noise=0.3, seed=seed), LIMITS).number == 0.0
        assert contradicting_raters(panel(num_inverting=0, noise=0.5, seed=seed), LIMITS).number == 0.0


def test_strict_raters_who_order_alike_contradict_nobody():
    ratings = {f"s{n}": {"mild": 4.0 + n % 2, "strict": 1.0 + n % 2, "third": 3.0 + n % 2} for n in range(40)}
    assert contradicting_raters(ratings, LIMITS).number == 0.0


def test_who_shares_few_answers_is_not_asked():
    assert contradicting_raters(panel(num_inverting=1, num_answers=9), LIMITS).status == "unknown"
    alone = {f"s{n}": {"u": 1.0} for n in range(50)}
    assert contradicting_raters(alone, LIMITS).status == "unknown"


def test_the_chance_is_the_hypergeometric_tail():
    for counts in product(range(4), repeat=4):
        pairs = [pair for pair, count in zip(product((0.0, 1.0), repeat=2), counts, strict=True) for _ in range(count)]
        own, other = ({value for value in column} for column in zip(*pairs, strict=True)) if pairs else ({1}, {1})
        if len(own) < 2 or len(other) < 2:
            continue
        both, num_own = counts[3], counts[2] + counts[3]
        expected = hypergeom.cdf(both, len(pairs), num_own, counts[1] + counts[3])
        assert chance_of_agreement(pairs) == pytest.approx(expected)
    assert chance_of_agreement([(1.0, 0.0), (1.0, 1.0)] * 9) == 1.0, "who says one thing alone contradicts nobody"


def rated_at(user: str, *times: float, value: float | None = 1.0) -> list[Feedback]:
    return [
        Feedback(feedback_id=f"{user}{n}", sample_id=f"s{n}", value=value, user=user, created_at=1e9 + time)
        for n, time in enumerate(times)
    ]


def test_ratings_faster_than_reading_are_bursts_and_their_rater_is_named():
    slow = rated_at("slow", *(20.0 * n for n in range(60)))
    fast = rated_at("fast", *(1.0 * n for n in range(40)))
    found = bursts_of_ratings([*slow, *fast], LIMITS)
    # All 40 lie within one minute, and 40 is more than 30; 3 a minute is none.
    assert (found.status, found.number) == ("warning", 0.4)
    assert found.evidence.endswith("by 1 rater: fast")


@pytest.mark.parametrize(("seconds", "share"), [(2.0, 0.0), (1.9, 1.0)])
def test_thirty_a_minute_are_none_and_thirty_one_are(seconds: float, share: float):
    times = [seconds * n for n in range(100)]
    assert bursts_of_ratings(rated_at("u", *times), LIMITS).number == share


def test_dates_without_a_time_nobody_named_and_comments_are_no_bursts():
    day = 86_400 * 12_000 - 1e9
    for ratings in (
        rated_at("u", *([day] * 50)),
        rated_at("u", *([5.0] * 50)),
        rated_at("", *(0.1 * n for n in range(50))),
        rated_at("u", *(0.1 * n for n in range(50)), value=None),
    ):
        assert bursts_of_ratings(ratings, LIMITS).status == "unknown"
