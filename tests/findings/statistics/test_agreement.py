"""Krippendorff's α is that of the published examples, and says of few units that they are few."""

import numpy as np
import pytest

from klimb.findings.statistics import krippendorff_alpha

FIRST = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0)
SECOND = (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)


def test_two_raters_of_two_values_are_krippendorffs_example():
    found = krippendorff_alpha(list(zip(FIRST, SECOND, strict=True)), unit="answer")
    assert found.value == pytest.approx(0.095, abs=5e-4)
    assert found.low < 0 < found.high < 1


def test_four_raters_with_gaps_are_krippendorffs_interval_example():
    rows = [
        "1 1 . 1",
        "2 2 3 2",
        "3 3 3 3",
        "3 3 3 3",
        "2 2 2 2",
        "1 2 3 4",
        "4 4 4 4",
        "1 1 2 1",
        "2 2 2 2",
        ". 5 5 5",
        ". . 1 1",
        ". . 3 .",
    ]
    units = [[float(value) for value in row.split() if value != "."] for row in rows]
    assert krippendorff_alpha(units, unit="unit").value == pytest.approx(0.849, abs=5e-4)


def test_full_agreement_is_one_and_coins_are_zero():
    generator = np.random.default_rng(0)
    coins = generator.integers(0, 2, (400, 2)).astype(float)
    found = krippendorff_alpha(coins.tolist(), unit="answer")
    assert found.low < 0 < found.high and abs(found.value) < 0.15
    agreed = krippendorff_alpha([(value, value) for value, _ in coins], unit="answer")
    assert (agreed.value, agreed.low, agreed.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("ratings", "reason"),
    [([(1.0,)] * 9, "two ratings"), ([(1.0, 1.0)] * 9, "equal"), ([(1.0, 0.0), (1.0, 1.0)], "2 answers")],
)
def test_without_enough_there_is_no_interval_and_the_reason(ratings: list[tuple[float, ...]], reason: str):
    found = krippendorff_alpha(ratings, unit="answer")
    assert not found.is_known and reason in found.reason
