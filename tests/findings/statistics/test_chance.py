"""Tests against chance, and the false alarms of many looks."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from klimb.findings.statistics import AlarmBudget, permutation_test, sign_test
from klimb.findings.statistics.chance import _drawn


@pytest.mark.parametrize(("num_worse", "num_better"), [(0, 0), (1, 0), (5, 0), (4, 1), (0, 7), (30, 12), (900, 800)])
def test_the_sign_test_is_the_one_sided_binomial_test(num_worse: int, num_better: int):
    total = num_worse + num_better
    expected = binomtest(num_worse, total, alternative="greater").pvalue if total else 1.0
    assert sign_test(num_worse=num_worse, num_better=num_better) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("first", "of_first", "last", "of_last"), [(0, 8, 0, 8), (0, 8, 4, 8), (3, 16, 3, 16), (1, 40, 9, 30), (5, 5, 5, 5)]
)
def test_the_permutation_test_of_zeros_and_ones_is_fishers_exact_test(
    first: int, of_first: int, last: int, of_last: int
):
    _, expected = fisher_exact([[last, of_last - last], [first, of_first - first]], alternative="greater")
    sides = [np.repeat([1.0, 0.0], [ones, number - ones]) for ones, number in ((first, of_first), (last, of_last))]
    assert permutation_test(*sides, steps=1) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_permutation_test_is_the_share_of_the_deals_with_as_large_a_sum(seed: int):
    values = np.random.default_rng(seed).integers(0, 5, 9) / 4
    first, second = values[:5], values[5:]
    sums = [sum(deal) for deal in combinations(values, 4)]
    expected = np.mean([total >= second.sum() - 1e-9 for total in sums])
    assert permutation_test(first, second, steps=4) == pytest.approx(expected, rel=1e-9)


def test_deals_that_are_drawn_tell_what_those_that_are_counted_tell():
    scores = np.random.default_rng(0).integers(0, 9, 24)
    least = int(np.sort(scores)[8:20].sum())
    counted = permutation_test(np.delete(scores, np.argsort(scores)[8:20]) / 8, np.sort(scores)[8:20] / 8, steps=8)
    assert _drawn(scores, 12, least) == pytest.approx(counted, abs=4 * np.sqrt(0.25 / 200_000))


@pytest.mark.parametrize("correlation", [0.1, 0.7])
def test_the_permutation_test_keeps_its_level_with_few_prompts_before_and_many_now(correlation: float):
    # Welch's t exceeds 0.05 twofold here: 8 prompts before, 40 now, share 0.18.
    generator = np.random.default_rng(0)
    size = (1 - correlation) / correlation
    chances = generator.beta(0.18 * size, 0.82 * size, (2000, 48))
    means = generator.binomial(8, chances) / 8
    p = np.array([permutation_test(row[:8], row[8:], steps=8) for row in means])
    for level in (0.05, 0.01):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 2000)


def test_a_budget_is_spent_evenly_over_the_looks_and_one_part_is_left():
    budget = AlarmBudget(0.05)
    for left in range(20, 0, -1):
        assert budget.level(left) == pytest.approx(0.05 / 21)
        budget = budget.after(budget.level(left))
    assert budget.spent == pytest.approx(0.05 * 20 / 21)
    assert budget.level(1) == pytest.approx(0.05 / 42)


@pytest.mark.parametrize("seed", range(5))
def test_no_plan_that_changes_on_the_way_spends_more_than_the_rate(seed: int):
    budget, generator = AlarmBudget(0.05), np.random.default_rng(seed)
    for _ in range(1000):
        budget = budget.after(budget.level(int(generator.integers(1, 30))))
    assert 0.045 < budget.spent <= 0.05


def test_a_rate_that_was_lowered_below_what_is_spent_leaves_nothing():
    assert AlarmBudget(0.01, spent=0.03).level(5) == 0
