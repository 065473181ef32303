"""Differences between two methods whose runs are paired by seed and whose scores are paired by problem.

For each task there is a table `d[seed, problem]` of differences. Both its seeds and its problems are samples: another
seed would have trained another policy, other held-out problems would have asked for something else. The variance of the
grand mean of a table with S seeds and P problems is estimated from its mean squares (two-way, crossed, random effects)

    Var = (max(MS_seed, MS_rest) + max(MS_problem - MS_rest, 0)) / (S·P)

and the test is Student's t with Satterthwaite's degrees of freedom. Tasks are fixed: the difference is the mean over
tasks, its variance the sum of theirs over the number of tasks squared.

Source: Searle, Casella & McCulloch 1992, "Variance Components", chapter 4; Satterthwaite 1946; Holm 1979.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from klimb.findings.statistics.interval import ALPHA, CONFIDENCE, Interval
from klimb.findings.statistics.runs import NUM_RESAMPLES

Array = NDArray[np.float64]


Tables = Sequence[Array]


POWER = 0.8


MOST_SEEDS = 100


EXACT_UP_TO = 12
"""Pairs up to which the sign-flip test goes through every assignment of signs; 4,096 of them."""


@dataclass(frozen=True)
class Part:
    """A part of the variance of a mean difference: `variance` has `freedom` degrees of freedom behind it.

    `shrinks` is true for the part that falls as one over the number of seeds.
    """

    variance: float
    freedom: float
    num_seeds: int
    shrinks: bool


@dataclass(frozen=True)
class PairedTest:
    """Mean difference with its 95 % interval and two-sided p; both are nan where the pairs cannot tell."""

    difference: Interval
    p_value: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class SeedsNeeded:
    """How many more seeds would tell, if the true difference is the one seen.

    `more` is None if it would be more than 100; then `for_problems` says that no number of seeds would be enough,
    because the held-out problems are too few.
    """

    more: int | None
    for_problems: bool = False


def paired_test(tables: Tables) -> PairedTest:
    """Return the t test over seeds and problems described above.

    Args:
        tables: of each task the differences [seed, problem]; a column of one value tests over seeds only.

    Raises:
        ValueError: no table, or one that is empty or holds a value that is not finite.
    """
    _check(tables)
    value = float(np.mean([table.mean() for table in tables]))
    parts = tuple(part for table in tables for part in _parts(table, num_tasks=len(tables)))
    variance = math.fsum(part.variance for part in parts)
    if not math.isfinite(variance) or (variance <= 0 and value != 0):
        return PairedTest(Interval(value), math.nan, parts)
    if variance <= 0:
        return PairedTest(Interval(0.0, 0.0, 0.0), 1.0, parts)
    error, freedom = math.sqrt(variance), _freedom(parts)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(value) / error, freedom))
    return PairedTest(Interval(value, value - reach, value + reach), p_value, parts)


def paired_bootstrap(tables: Tables, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Interval:
    """Mean difference with the percentile interval of drawing seeds and problems again, within each task.

    It shows the spread without a distribution assumed, and decides nothing: with few seeds it is too narrow where the
    differences between seeds dominate, and too wide where the noise of single problems does.

    Raises:
        ValueError: as `paired_test`.
    """
    _check(tables)
    value = float(np.mean([table.mean() for table in tables]))
    if any(len(table) < 2 for table in tables):
        return Interval(value)
    drawn = [_redrawn(table, num_resamples=num_resamples, seed=(seed, at)) for at, table in enumerate(tables)]
    low, high = np.quantile(np.mean(drawn, axis=0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


def sign_flip_p(tables: Tables, *, num_resamples: int = 20_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test: how often do random signs of the pairs' differences reach this far.

    Exact up to 12 pairs, so that its smallest value is 2 / 2^pairs: five pairs cannot get below 0.0625. It assumes no
    distribution, only that a difference is as likely as its negative when the methods are equally good.

    Raises:
        ValueError: as `paired_test`.
    """
    _check(tables)
    weights = np.concatenate([table.mean(axis=1) / (len(table) * len(tables)) for table in tables])
    if len(weights) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(weights))))
        return float(np.mean(_reaches(signs @ weights, float(weights.sum()))))
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(num_resamples, len(weights)))
    hits = float(np.sum(_reaches(signs @ weights, float(weights.sum()))))
    return (hits + 1) / (num_resamples + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given; a nan stays one and does not count as a comparison.

    With p sorted ascending, `adjusted_i = max over j <= i of min(1, (m - j) · p_j)`, j from 0.
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if math.isfinite(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[index] = highest
    return tuple(adjusted)


def seeds_needed(test: PairedTest, *, alpha: float = ALPHA) -> SeedsNeeded:
    """Seeds to add to each task until the difference seen would be found with a chance of 80 %, at this alpha.

    The smallest number N of seeds with `|difference| / se(N) >= t(1 - alpha/2) + t(0.8)`, less those there are.
    """
    size = abs(test.difference.value)
    if not math.isfinite(test.p_value) or size == 0:
        return SeedsNeeded(None)
    more = np.arange(1, MOST_SEEDS + 1)
    enough = size >= _reach(test.parts, more=more, alpha=alpha)
    if enough.any():
        return SeedsNeeded(int(more[enough.argmax()]))
    fixed = [part for part in test.parts if not part.shrinks and part.variance > 0]
    return SeedsNeeded(None, for_problems=bool(fixed) and size < float(_reach(fixed, more=more, alpha=alpha)[0]))


def _check(tables: Tables) -> None:
    shapes = [table.shape for table in tables]
    if not shapes or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise ValueError(f"differences of shapes {shapes}: give a table [seed, problem] of each task, none empty")
    if not all(np.isfinite(table).all() for table in tables):
        raise ValueError("a difference is not finite: leave out the problems that a run could not score")


def _parts(table: Array, *, num_tasks: int) -> list[Part]:
    """Return the parts of a task's variance: what more seeds would lessen, and what only more problems would."""
    num_seeds, num_problems = table.shape
    scale = 1 / (num_seeds * num_problems * num_tasks**2)
    if num_seeds < 2:
        return [Part(math.nan, 1, num_seeds, shrinks=True)]
    by_seed = num_problems * float(table.mean(axis=1).var(ddof=1))
    if num_problems < 2:
        return [Part(by_seed * scale, num_seeds - 1, num_seeds, shrinks=True)]
    by_problem = num_seeds * float(table.mean(axis=0).var(ddof=1))
    rest = _rest(table)
    # The seeds' part keeps their few degrees of freedom even where it is estimated by the rest's mean square.
    seeds = Part(max(by_seed, rest) * scale, num_seeds - 1, num_seeds, shrinks=True)
    problems = Part(max(by_problem - rest, 0.0) * scale, num_problems - 1, num_seeds, shrinks=False)
    return [seeds, problems]


def _rest(table: Array) -> float:
    """Mean square of what is left after the means of rows and columns."""
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return float((left**2).sum()) / ((table.shape[0] - 1) * (table.shape[1] - 1))


def _freedom(parts: Sequence[Part]) -> float:
    """Satterthwaite's degrees of freedom of a sum of independent variances."""
    total = math.fsum(part.variance for part in parts)
    return total**2 / math.fsum(part.variance**2 / part.freedom for part in parts)


def _reach(parts: Sequence[Part], *, more: NDArray[np.int_], alpha: float) -> Array:
    """Difference that is found with a chance of 80 %, for each number of seeds added."""
    variances, freedoms = zip(*(_with_more(part, more) for part in parts), strict=True)
    total = np.sum(variances, axis=0)
    freedom = total**2 / np.sum(np.square(variances) / freedoms, axis=0)
    return np.sqrt(total) * (stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom))


def _with_more(part: Part, more: NDArray[np.int_]) -> tuple[Array, Array | NDArray[np.int_]]:
    """Return the part's variance and degrees of freedom, for each number of seeds added."""
    if part.shrinks:
        share = np.asarray(part.num_seeds / (part.num_seeds + more), dtype=np.float64)
        return part.variance * share, np.asarray(part.freedom + more, dtype=np.float64)
    return np.full(more.shape, part.variance), np.full(more.shape, part.freedom)


def _redrawn(table: Array, *, num_resamples: int, seed: tuple[int, int]) -> Array:
    """Means of the table with its rows and its columns drawn again, one for each resample."""
    seeds, problems = (_shares(size, num_resamples, (*seed, axis)) for axis, size in enumerate(table.shape))
    return ((seeds @ table) * problems).sum(axis=1)


@lru_cache(maxsize=32)
def _shares(size: int, num_resamples: int, seed: tuple[int, ...]) -> Array:
    """How often each of `size` is drawn in `size` draws, as a share [resample, size].

    A study asks for the same few sizes hundreds of times, and drawing is what takes the time.
    """
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=num_resamples)
    return counts / size


def _reaches(drawn: Array, seen: float) -> NDArray[np.bool_]:
    """Equal sums differ in their last bits by the order of the terms."""
    return np.abs(drawn) >= abs(seen) - 1e-12 * max(1.0, abs(seen))
