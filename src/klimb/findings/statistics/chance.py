"""Tests against chance, and what it costs to look often."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Numbers = NDArray[np.float64]


MOST_COUNTED = 200_000_000
"""Cells of the tables in which deals are counted, a second of work; beyond it deals are drawn."""


NUM_DEALS = 200_000


def sign_test(*, num_worse: int, num_better: int) -> float:
    """Probability of at least `num_worse` worse ones, if each that changed was as likely to get better.

    Σ_{k ≥ worse} C(n, k) / 2ⁿ = I_½(worse, better + 1),  n = worse + better; 1 when none got worse.
    """
    return 1.0 if num_worse == 0 else float(special.betainc(num_worse, num_better + 1, 0.5))


def permutation_test(first: Numbers, second: Numbers, *, steps: int) -> float:
    """Probability that `second` gets so large a sum, if all units were dealt out to the two sides at random.

    Exact where the units are exchangeable, however they are distributed: it is the share of the C(N, n) ways to choose
    the n units of `second` that give at least its sum. With values 0 and 1 it is Fisher's exact test of the units.
    Where there are too many ways to count, it is (1 + hits)/(1 + deals) of 200,000 deals, which keeps the level too.

    Args:
        first: one value a unit, in [0, 1].
        second: the same for the other side.
        steps: values are rounded to multiples of 1/steps, so that sums are whole; the answers of a unit, for shares.

    Source: Pitman 1937; the counting by Pagano and Tritchler 1983.
    """
    scores = np.rint(np.concatenate((first, second)) * steps).astype(np.int64)
    number, least = len(second), int(scores[len(first) :].sum())
    if np.count_nonzero(scores) * (number + 1) * (int(scores.sum()) + 1) > MOST_COUNTED:
        return _drawn(scores, number, least)
    ways = _ways(scores, number)
    return float(ways[least:].sum() / ways.sum())


def _ways(scores: NDArray[np.int64], number: int) -> Numbers:
    """For each sum, the ways to choose so many units with it, up to a common factor."""
    counting = scores[scores > 0]
    table = np.zeros((number + 1, int(scores.sum()) + 1))
    table[0, 0] = 1.0
    for score in counting:
        halved = table / 2  # keeps the counts of a thousand units within range
        halved[1:, score:] += table[:-1, :-score] / 2
        table = halved
    zeros = len(scores) - len(counting)
    chosen = number - np.arange(number + 1)
    log_ways = np.where(
        chosen <= zeros,
        special.gammaln(zeros + 1) - special.gammaln(chosen + 1) - special.gammaln(np.maximum(zeros - chosen, 0) + 1),
        -np.inf,
    )
    return np.exp(log_ways - log_ways.max()) @ table


def _drawn(scores: NDArray[np.int64], number: int, least: int) -> float:
    kinds, counts = np.unique(scores, return_counts=True)
    dealt = np.random.default_rng(0).multivariate_hypergeometric(counts, number, size=NUM_DEALS, method="marginals")
    return float((1 + np.count_nonzero(dealt @ kinds >= least)) / (1 + NUM_DEALS))


@dataclass(frozen=True)
class AlarmBudget:
    """A chance of false alarms, spent over the looks that are taken: the sum of their levels never exceeds it.

    Whatever the looks have in common, the chance that any of them alarms is at most the sum of their levels (Boole).
    A part is always left, so that looks can be added after the last one that was planned.

    Attributes:
        rate: chance of any alarm when nothing changed.
        spent: sum of the levels of the looks so far.
    """

    rate: float
    spent: float = 0.0

    def level(self, num_left: int) -> float:
        """Return the level of the next look, of so many still planned, itself included: (rate − spent)/(left + 1)."""
        return max(self.rate - self.spent, 0.0) / (num_left + 1)

    def after(self, level: float) -> "AlarmBudget":
        """Return what is left when a look at this level has been taken."""
        return AlarmBudget(self.rate, self.spent + level)
