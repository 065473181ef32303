"""Long curves made short enough for a page, without losing their spikes."""

import math
from collections.abc import Sequence
from itertools import accumulate

MOST_POINTS = 400


def thinned(values: Sequence[float], *, most: int = MOST_POINTS) -> list[int]:
    """The indices to keep, in order and `most` at most: the lowest and the highest of each of most/2 equal stretches.

    The first and the last are always kept, and so is every extreme of a stretch: a spike of one step stays visible.

    Raises:
        ValueError: `most` is below 4.
    """
    if most < 4:
        raise ValueError(f"thinned: most must be 4 or more, got {most}")
    count = len(values)
    if count <= most:
        return list(range(count))
    num_stretches = (most - 2) // 2
    kept = {0, count - 1}
    for stretch in range(num_stretches):
        part = range(count * stretch // num_stretches, count * (stretch + 1) // num_stretches)
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(kept)


def spread(count: int, *, most: int = MOST_POINTS) -> list[int]:
    """Indices at equal distances, the first and the last among them; `most` at most."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def smoothed(values: Sequence[float], *, window: int) -> list[float]:
    """The mean of each value and its neighbours, as many before it as behind it, `window` at most altogether.

    Near the ends there are fewer neighbours, so that the curve neither lags nor leans: a straight line stays as it is.

    Raises:
        ValueError: the window is not positive.
    """
    if window < 1:
        raise ValueError(f"smoothed: the window must be 1 or more, got {window}")
    # Around their mean, so that a small change of large values is not rounded away by the running sum.
    middle = math.fsum(values) / max(1, len(values))
    sums = [0.0, *accumulate(value - middle for value in values)]
    last = len(values) - 1
    reaches = [min((window - 1) // 2, index, last - index) for index in range(len(values))]
    return [
        middle + (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)
        for index, reach in enumerate(reaches)
    ]
