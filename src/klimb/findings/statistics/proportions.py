"""Intervals of a share, from an effective number of independent observations."""

import numpy as np
from scipy import special

from klimb.findings.statistics.interval import ALPHA

NUM_HALVINGS = 60
"""Of the bisection for the ends: 2⁻⁶⁰ is below the rounding of a share."""


def mid_p_ends(share: float, number: float, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the ends of the mid-p interval of a share seen in so many independent observations.

    The low end p solves P(X > x) + P(X = x)/2 = α/2 for a binomial X of chance p, the high end the same from below; x
    and n need not be whole (incomplete beta functions). With x = 0 the low end is 0, with x = n the high end is 1.

    Args:
        share: x/n, in [0, 1].
        number: n > 0.
        alpha: chance that the truth is outside, both sides together.

    Source: Lancaster 1961; Berry and Armitage 1995, (mid-p); Korn and Graubard 1998 (effective n).
    """
    x, rest = share * number, (1 - share) * number
    return _low_end(x, rest, alpha), 1 - _low_end(rest, x, alpha)


def _low_end(x: float, rest: float, alpha: float) -> float:
    if x <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        at_least = special.betainc(x, rest + 1, middle)
        more = special.betainc(x + 1, rest, middle) if rest > 0 else 0.0
        low, high = (middle, high) if (at_least + more) / 2 < alpha / 2 else (low, middle)
    return float(np.float64((low + high) / 2))
