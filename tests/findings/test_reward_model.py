"""What is said of a reward model, from numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from klimb.findings.reward_model import (
    HeldOutPairs,
    HeldOutRatings,
    calibration_error,
    in_order,
    judge_reward_model,
)

NO_RATINGS = HeldOutRatings(
    values=(),
    scores=(),
    predicted=(),
    length_scores=(),
    length_predicted=(),
    constant=0.5,
    units=(),
    sources=(),
    thumbs=None,
)
NO_PAIRS = HeldOutPairs(margins=(), length_margins=(), units=(), kinds=(), sources=())


def pairs(margins, length_margins=None, kinds=None) -> HeldOutPairs:
    number = len(margins)
    return HeldOutPairs(
        margins=tuple(margins),
        length_margins=tuple(length_margins or [0.0] * number),
        units=tuple(f"u{place}" for place in range(number)),
        kinds=tuple(kinds or ["preference"] * number),
        sources=("feedback",) * number,
    )


def thumbs(values, predicted, *, length=None, units=None) -> HeldOutRatings:
    number = len(values)
    return HeldOutRatings(
        values=tuple(values),
        scores=tuple(predicted),
        predicted=tuple(predicted),
        length_scores=tuple(length or [0.0] * number),
        length_predicted=(0.5,) * number,
        constant=0.5,
        units=tuple(units or [f"u{place}" for place in range(number)]),
        sources=("feedback",) * number,
        thumbs=(0.0, 1.0),
    )


def found(report) -> dict:
    return {each.name: each for block in report.blocks for each in block.findings}


def test_a_pair_in_order_counts_one_and_a_tie_one_half():
    assert in_order([2.0, -0.1, 0.0]).tolist() == [1.0, 0.0, 0.5]


def test_a_model_that_only_repeats_the_length_is_not_called_better():
    margins = [1.0] * 30 + [-1.0] * 10
    report = judge_reward_model(pairs(margins, margins), NO_RATINGS, unit="prompt")
    assert found(report)["pairs in order"].status == "good", "it is better than a coin"
    assert report.verdict.status == "warning" and report.verdict.number == 0
    assert report.verdict.title == "no better than the baseline, as far as this can tell"


@pytest.mark.parametrize(("sign", "status"), [(1, "good"), (-1, "bad")])
def test_the_verdict_follows_the_whole_interval(sign: int, status: str):
    report = judge_reward_model(pairs([sign * 1.0] * 40, [-sign * 1.0] * 40), NO_RATINGS, unit="prompt")
    assert (report.verdict.status, report.verdict.number) == (status, sign * 1.0)


def test_few_units_cannot_tell_whatever_they_say():
    report = judge_reward_model(pairs([1.0] * 4, [-1.0] * 4), NO_RATINGS, unit="user")
    assert report.verdict.status == "unknown"
    assert report.verdict.title == "cannot be told: 4 users, and 5 are the least for an interval"
    assert judge_reward_model(NO_PAIRS, NO_RATINGS, unit="user").verdict.status == "unknown"


def test_many_pairs_of_few_users_are_few():
    many = replace(pairs([1.0] * 40, [-1.0] * 40), units=tuple(f"u{place % 4}" for place in range(40)))
    assert judge_reward_model(many, NO_RATINGS, unit="user").verdict.status == "unknown"


def test_the_verdict_is_by_the_judgements_of_more_units_whatever_they_say():
    values = [float(place % 2) for place in range(40)]
    mostly = [1 - value if place > 5 else value for place, value in enumerate(values)]
    backwards = thumbs(values, mostly, units=[f"u{place // 2}" for place in range(40)])
    few, as_many = pairs([1.0] * 6, [-1.0] * 6), pairs([1.0] * 40, [-1.0] * 40)
    assert judge_reward_model(few, backwards, unit="user").verdict.status == "bad"
    assert judge_reward_model(as_many, backwards, unit="user").verdict.status == "good"
    # Ratings that are all alike say nothing of order, however many they are.
    assert judge_reward_model(few, thumbs([1.0] * 40, [0.9] * 40), unit="user").verdict.status == "good"


def test_kinds_are_told_apart_where_there_are_several():
    kinds = ["preference"] * 20 + ["ratings"] * 20
    report = judge_reward_model(pairs([1.0] * 20 + [-1.0] * 20, kinds=kinds), NO_RATINGS, unit="prompt")
    names = found(report)
    assert names["pairs in order, of kind preference"].number == pytest.approx(1)
    assert names["pairs in order, of kind ratings"].status == "bad"


def test_brier_and_its_baselines_are_those_of_the_definition():
    report = judge_reward_model(NO_PAIRS, thumbs([1, 0, 1, 0, 1] * 4, [0.9, 0.1, 0.6, 0.4, 0.8] * 4), unit="prompt")
    names = found(report)
    brier = (0.01 + 0.01 + 0.16 + 0.16 + 0.04) / 5
    assert names["Brier score"].number == pytest.approx(brier)
    assert names["better than a constant"].number == pytest.approx(0.25 - brier)
    assert names["AUC"].number == 1
    assert names["calibration"].status == "unknown", "20 thumbs, and 50 are the least"


def test_chances_that_are_shares_are_calibrated_and_exaggerated_ones_are_not():
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.2, 0.8, size=400)
    values = (rng.random(400) < chances).astype(float).tolist()
    right = judge_reward_model(NO_PAIRS, thumbs(values, chances.tolist()), unit="prompt")
    exaggerated = np.where(chances > 0.5, 0.99, 0.01).tolist()
    wrong = judge_reward_model(NO_PAIRS, thumbs(values, exaggerated), unit="prompt")
    assert found(right)["calibration"].status == "good"
    assert found(wrong)["calibration"].status == "warning"
    (figure,) = right.blocks[0].figures
    assert len(figure.x) == 10 and list(figure.x) == sorted(figure.x)


def test_the_calibration_error_is_the_gap_weighed_by_the_bins():
    forecasts, outcomes = np.array([0.1, 0.3, 0.9]), np.array([0.0, 1.0, 1.0])
    bins = [np.array([0, 1]), np.array([2])]
    assert calibration_error(forecasts, outcomes, bins) == pytest.approx((2 * 0.3 + 1 * 0.1) / 3)
