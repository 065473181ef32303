"""The area under the ROC curve, by counting pairs, and how often its interval holds."""

import numpy as np
import pytest
from scipy import stats

from klimb.findings.statistics.discrimination import area_under_roc


def area(scores, positive, units=None, **given):
    named = units or [str(place) for place in range(len(scores))]
    return area_under_roc(scores, positive, named, unit="prompt", **given)


def test_it_is_the_share_of_pairs_in_order_and_ties_count_half():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, size=60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive].tolist() for b in scores[~positive].tolist()]
    assert area(scores.tolist(), positive.tolist()).value == pytest.approx(sum(pairs) / len(pairs))


def test_one_kind_has_no_area_and_few_units_no_interval():
    assert area([1.0, 2.0], [True, True]).reason == "all are of one kind"
    assert not area([1.0, 2.0, 3.0], [True, False, True]).is_known
    assert not area([1.0, 2.0] * 20, [True, False] * 20, units=["a", "b"] * 20).is_known


def test_what_is_told_apart_wholly_has_an_interval_that_is_no_point():
    found = area([float(place) for place in range(20)], [place >= 10 for place in range(20)])
    assert found.value == 1 and found.high == 1 and 0.6 < found.low < 0.9


def test_a_score_beside_itself_is_no_better():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=40).tolist()
    found = area(scores, [place % 2 == 0 for place in range(40)], than=scores)
    assert found.value == 0 and not found.is_positive


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Normal scores one apart: the area is Φ(1/√2). Two answers to a prompt share half of their noise."""
    rng, truth, held, rounds = np.random.default_rng(2), float(stats.norm.cdf(1 / np.sqrt(2))), 0, 200
    units = [str(place // 2) for place in range(60)]
    positive = np.arange(60) % 4 < 2
    for _ in range(rounds):
        shared, own = np.repeat(rng.normal(size=30), 2), rng.normal(size=60)
        found = area((positive + np.sqrt(0.5) * shared + np.sqrt(0.5) * own).tolist(), positive.tolist(), units)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / rounds <= 0.98
