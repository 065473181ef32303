"""Tests, and what many of them cost."""

from math import comb


def paired_chance(*, num_worse: int, num_better: int) -> float:
    """Probability of at least `num_worse` worse ones, if each that changed was as likely to get better: a sign test.

    Σ_{k ≥ worse} C(n, k) / 2ⁿ,  n = worse + better; 1 when nothing changed.
    """
    total = num_worse + num_better
    return sum(comb(total, k) for k in range(num_worse, total + 1)) / 2**total


def unpaired_chance(*, num_first: int, of_first: int, num_last: int, of_last: int) -> float:
    """Probability that the last share is so far above the first, if both are the same: Fisher's exact test.

    Σ_{k ≥ last} C(K, k)·C(N − K, n − k) / C(N, n),  N = both together, K = those that count, n = `of_last`.
    """
    total, counting = of_first + of_last, num_first + num_last
    tail = range(num_last, min(counting, of_last) + 1)
    return sum(comb(counting, k) * comb(total - counting, of_last - k) for k in tail) / comb(total, of_last)
