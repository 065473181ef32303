"""How many ratings of one person count, so that nobody alone decides what is learnt."""

from collections.abc import Iterable

FEWEST_RATERS = 2
"""With k raters a share is at least this over k: a smaller one is impossible, or lets whoever rated least decide how
many ratings of everybody count."""


def ratings_that_count(num_ratings: Iterable[int], *, max_fraction: float) -> int | None:
    """Return the most ratings of one person that count; None where all do.

    The largest whole number c with c ≤ s·Σ_i min(n_i, c), where n_i are the ratings of person i, k the people and
    s = max(max_fraction, 2/k): nobody has more than the share s of the ratings that count.

    >>> ratings_that_count([900] + [100] * 9, max_fraction=0.1)  # s = 0.2: 225 of 1,125
    225
    >>> ratings_that_count([50, 40], max_fraction=0.1) is None
    True

    Args:
        num_ratings: of each person, above 0.
        max_fraction: in (0, 1].
    """
    if not 0 < max_fraction <= 1:
        raise ValueError(f"max_fraction must be in (0, 1], got {max_fraction}; 1 counts all")
    counts = sorted(num_ratings)
    if not counts:
        return None
    share = max(max_fraction, FEWEST_RATERS / len(counts))
    low, high = 1, counts[-1]
    if share >= 1 or _is_within(high, counts, share):
        return None
    # Σ min(n_i, c) is concave in c, and 1 fulfils it: those that do are 1 to the answer.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_within(middle, counts, share) else (low, middle)
    return low


def _is_within(most: int, counts: Iterable[int], share: float) -> bool:
    return most <= share * sum(min(count, most) for count in counts) + 1e-9
