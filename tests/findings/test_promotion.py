import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from klimb.findings.promotion import (
    BETS,
    Evidence,
    LiveRating,
    PreferredChange,
    RatedChange,
    decide,
    level_of,
    live_evidence,
    log_capital,
    preference_evidence,
    reason_against_weights,
    reward_evidence,
)

LEVEL = 0.05


def evidence(differences: list[float], **others) -> Evidence:
    return Evidence(
        kind="held-out ratings", differences=tuple(differences), num_observations=len(differences), **others
    )


def ratings(number: int, *, gain: float, seed: int, liked: float = 0.4, noise: float = 0.5) -> list[RatedChange]:
    """Liked answers gain `gain` nats more than the others, on noise."""
    draw = np.random.default_rng(seed)
    found = (draw.random(number) < liked).astype(float)
    changes = gain * found + noise * draw.normal(size=number) - noise**2 / 2
    return [RatedChange(rating=float(r), change=float(c)) for r, c in zip(found, changes, strict=True)]


def test_the_capital_is_the_mean_over_the_bets_of_what_each_of_them_has():
    differences = [0.5, -0.25, 1.0]
    expected = sum((1 + bet * 0.5) * (1 - bet * 0.25) * (1 + bet) for bet in BETS) / len(BETS)
    assert math.exp(log_capital(differences)) == pytest.approx(expected, rel=1e-12)
    assert log_capital([]) == 0


def test_a_fair_coin_reaches_the_needed_capital_with_a_chance_of_at_most_the_level_over_all_looks():
    """Every path of 10 tosses is enumerated, and each is looked at after each toss."""
    wanted = math.log(4)
    crossed = [
        any(log_capital(path[:look]) >= wanted for look in range(1, 11)) for path in product((-1.0, 1.0), repeat=10)
    ]
    assert 0 < Fraction(sum(crossed), len(crossed)) <= Fraction(1, 4)


def test_differences_beyond_one_are_refused():
    with pytest.raises(ValueError, match="must be in"):
        log_capital([0.5, 1.01])
    with pytest.raises(ValueError, match="must be in"):
        log_capital([math.nan])


def test_answers_are_paired_once_in_the_order_in_which_they_came():
    rows = [
        RatedChange(rating=1.0, change=0.5),
        RatedChange(rating=1.0, change=0.1),
        RatedChange(rating=0.0, change=0.2),
        RatedChange(rating=0.0, change=0.4),
    ]
    found = preference_evidence(rows)
    # Pairs: 0.5 − 0.2 = 0.3 and 0.1 − 0.4 = −0.3; the first counts ±½, the second over twice the root mean square.
    assert found.differences == pytest.approx((0.5, -0.5))
    assert found.num_observations == 4
    assert "2 pairs" in found.what and "gained more in 1" in found.what


def test_a_preference_is_a_pair_by_itself_and_graded_ratings_count_by_their_distance():
    rows = [
        PreferredChange(better=0.2, worse=-0.2),
        RatedChange(rating=0.75, change=0.0),
        RatedChange(rating=0.25, change=-0.8),
    ]
    assert preference_evidence(rows).differences == pytest.approx((0.5, 0.5 * min(1.0, 0.8 / (2 * 0.4))))


def test_equal_ratings_say_nothing():
    assert preference_evidence([RatedChange(rating=1.0, change=float(place)) for place in range(9)]).differences == ()


def test_what_is_not_changed_is_never_promoted():
    rows = [RatedChange(rating=float(place % 2), change=0.0) for place in range(400)]
    decision = decide(preference_evidence(rows), level=LEVEL, give_up_after=1000)
    assert decision.verdict == "keep looking"
    assert decision.num_more is None
    assert "no number of them" in decision.sentence


def num_promoted(num_updates: int, *, gain: float, looks: range) -> int:
    def is_promoted(rows: list[RatedChange], end: int) -> bool:
        return decide(preference_evidence(rows[:end]), level=LEVEL, give_up_after=1000).verdict == "promote"

    updates = [ratings(looks[-1], gain=gain, seed=seed) for seed in range(num_updates)]
    return sum(any(is_promoted(rows, end) for end in looks) for rows in updates)


def test_null_updates_are_seldom_promoted_though_they_are_looked_at_again_and_again():
    assert num_promoted(40, gain=0.0, looks=range(20, 81, 20)) <= LEVEL * 40


@pytest.mark.slow
def test_of_200_null_updates_at_most_the_configured_share_is_promoted_over_50_looks():
    assert num_promoted(200, gain=0.0, looks=range(10, 501, 10)) <= LEVEL * 200


def test_liked_answers_that_gain_are_promoted_within_a_hundred_ratings_and_lost_ones_are_rejected():
    """A gain of 0.42 nats at 40 % liked is ten points: Cov(w, r) ≈ 0.42·0.4·0.6."""
    better = [
        decide(preference_evidence(ratings(150, gain=0.42, seed=s)), level=LEVEL, give_up_after=1000) for s in range(20)
    ]
    assert sum(decision.verdict == "promote" for decision in better) >= 14
    worse = [
        decide(preference_evidence(ratings(150, gain=-0.42, seed=s)), level=LEVEL, give_up_after=1000)
        for s in range(20)
    ]
    assert sum(decision.verdict == "reject" for decision in worse) >= 14
    assert not any(decision.verdict == "promote" for decision in worse)


def test_the_scale_of_the_changes_does_not_matter():
    rows = ratings(100, gain=0.3, seed=1)
    small = [RatedChange(rating=row.rating, change=row.change / 1000) for row in rows]
    assert preference_evidence(small).differences == pytest.approx(preference_evidence(rows).differences)


def test_a_candidate_too_far_away_cannot_be_told_and_is_not_promoted():
    draw = np.random.default_rng(0)
    rows = [
        RatedChange(rating=float(place % 2), change=float(6 * (place % 2) + 3 * draw.normal())) for place in range(200)
    ]
    found = preference_evidence(rows)
    assert log_capital(found.differences) > math.log(20)
    decision = decide(found, level=LEVEL, give_up_after=1000)
    assert decision.verdict == "keep looking"
    assert decision.sentence.startswith("Cannot tell")
    assert "--candidate-fraction" in decision.sentence
    assert decide(found, level=LEVEL, give_up_after=200).verdict == "reject"


def test_weights_are_judged_by_the_answers_of_the_serving_policy_alone():
    assert reason_against_weights([0.0] * 100) == ""
    others = [RatedChange(rating=float(p % 2), change=9.0 * (p % 7), is_of_serving=False) for p in range(100)]
    assert preference_evidence(others).distrust == ""


def test_live_ratings_are_compared_in_the_order_and_the_number_of_the_traffic():
    rows = [
        LiveRating(rating=r, is_of_candidate=c) for r, c in [(1, False), (0, False), (1, True), (1, True), (1, False)]
    ]
    assert live_evidence(rows, fraction=1 / 3).differences == (0.5,)
    assert live_evidence(rows, fraction=0.5).differences == (0.0, 1.0)
    with pytest.raises(ValueError, match="share"):
        live_evidence(rows, fraction=0.0)


def test_ten_points_of_live_ratings_are_seen_in_the_end():
    draw = np.random.default_rng(2)
    rows = [
        LiveRating(rating=float(draw.random() < (0.7 if place % 2 else 0.4)), is_of_candidate=bool(place % 2))
        for place in range(400)
    ]
    assert decide(live_evidence(rows, fraction=0.5), level=LEVEL, give_up_after=1000).verdict == "promote"


def test_rewards_are_paired_by_prompt_within_their_bounds():
    assert reward_evidence([0.0, 1.0], [2.0, 1.0], bounds=(0.0, 2.0)).differences == (1.0, 0.0)
    with pytest.raises(ValueError, match="within"):
        reward_evidence([0.0], [3.0], bounds=(0.0, 2.0))
    with pytest.raises(ValueError, match="give pairs"):
        reward_evidence([0.0], [], bounds=(0.0, 2.0))


def test_what_is_still_to_come_is_told_in_ratings():
    decision = decide(evidence([0.5, -0.25] * 10), level=LEVEL, give_up_after=1000)
    assert decision.verdict == "keep looking"
    assert decision.num_more is not None and 10 < decision.num_more < 100
    assert f"about {decision.num_more} more ratings" in decision.sentence


def test_a_candidate_that_is_not_shown_to_be_better_is_given_up():
    decision = decide(evidence([0.5, -0.5] * 50), level=LEVEL, give_up_after=100)
    assert decision.verdict == "reject"
    assert decision.sentence.startswith("Not shown to be better after 100 ratings")


def test_levels_are_the_same_each_or_add_up_to_alpha():
    assert level_of(7, alpha=0.05, spending="each") == 0.05
    assert sum(level_of(k, alpha=0.05, spending="all") for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    with pytest.raises(ValueError, match="begins at 1"):
        level_of(0, alpha=0.05, spending="each")
