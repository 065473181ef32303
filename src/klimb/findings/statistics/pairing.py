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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klimb.findings.statistics.interval import ALPHA, Interval
from klimb.findings.statistics.means import ROUNDING

Array = NDArray[np.float64]


Tables = Sequence[Array]


POWER = 0.8


SURE = 0.8
"""How sure a forecast is of the size of the difference for which it is made."""


MOST_SEEDS = 100


LEAST_FREEDOM = 2
"""Degrees of freedom of the seeds' variance below which nothing is forecast from it."""


EXACT_UP_TO = 12
"""Pairs up to which the sign-flip test goes through every assignment of signs; 4,096 of them."""


LARGEST, SMALLEST = 1e150, 1e-150
"""Beyond these a square is no longer a number."""


FIRST_LOOK, NEXT_LOOK = 2 / 3, 1 / 3
"""Share of the level that the first look at a study spends, and each further look of what the one before it spent."""


@dataclass(frozen=True)
class Part:
    """A part of the variance of a mean difference: `variance` has `freedom` degrees of freedom behind it.

    `shrinks` is true for the part that falls as one over the number of seeds. `least` is the lower end of a one-sided
    95 % interval of the variance, for the part that does not.
    """

    variance: float
    freedom: float
    num_seeds: int
    shrinks: bool
    least: float = 0.0


@dataclass(frozen=True)
class PairedTest:
    """Mean difference with its 95 % interval and two-sided p; where the pairs cannot tell, the interval says why."""

    difference: Interval
    p_value: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class SeedsNeeded:
    """How many more seeds would tell.

    Attributes:
        more: so many more would find a difference of `at_least` with a chance of 80 %; None where it would be more
            than 100, or where no number can be promised.
        for_problems: even endless seeds would hardly find the difference, because the held-out problems are too few.
        at_least: size that the true difference has or exceeds, being 80 % sure; 0 where its sign may be chance.
    """

    more: int | None
    for_problems: bool = False
    at_least: float = 0.0


def paired_test(tables: Tables, *, scale: float = 0.0) -> PairedTest:
    """Return the t test over seeds and problems described above.

    A spread below 1e-12 of the largest number is rounding and counts as none.

    Args:
        tables: of each task the differences [seed, problem]; a column of one value tests over seeds only.
        scale: the largest number whose difference was taken, as far as it is known.

    Raises:
        ValueError: no table, or one that is empty or holds nan.
    """
    _check(tables)
    largest = max(float(np.abs(table).max()) for table in tables)
    num_seeds = min(len(table) for table in tables)
    found = Interval(math.nan, method=METHOD, unit="seed", num_units=num_seeds, assumes=ASSUMES)
    if largest > LARGEST:
        return PairedTest(
            found.without_ends(f"differences up to {largest:.0e} are too large to square (overflow)"), math.nan, ()
        )
    value = float(np.mean([table.mean() for table in tables]))
    found = replace(found, value=value)
    if num_seeds < 2:
        return PairedTest(found.without_ends("two seeds that both finished are the least"), math.nan, ())
    if 0 < largest < SMALLEST:
        return PairedTest(found.without_ends(f"differences of {largest:.0e} are too small to square"), math.nan, ())
    parts = tuple(part for table in tables for part in _parts(table, num_tasks=len(tables)))
    variance = math.fsum(part.variance for part in parts)
    rounding = ROUNDING * max(largest, scale)
    if variance <= rounding**2:
        is_nothing = abs(value) <= rounding
        reason = "all pairs are equal" if is_nothing else "all pairs differ by the same amount"
        return PairedTest(found.without_ends(reason), 1.0 if is_nothing else math.nan, parts)
    error, freedom = math.sqrt(variance), _freedom(parts)
    reach = float(special.stdtrit(freedom, 1 - ALPHA / 2)) * error
    p_value = float(2 * special.stdtr(freedom, -abs(value) / error))
    return PairedTest(replace(found, low=value - reach, high=value + reach), p_value, parts)


METHOD = "Student's t over seeds and problems (two-way random effects)"


ASSUMES = "pairs of one seed share nothing with those of another; mean differences that are nearly normal"


def sign_flip_p(tables: Tables, *, num_resamples: int = 20_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test: how often do random signs of the pairs' differences reach this far.

    Exact up to 12 pairs, so that its smallest value is 2 / 2^pairs: five pairs cannot get below 0.0625. It assumes no
    distribution, only that a difference is as likely as its negative when the methods are equally good.

    Raises:
        ValueError: as `paired_test`.
    """
    _check(tables)
    weights = np.concatenate([table.mean(axis=1) / (len(table) * len(tables)) for table in tables])
    whole = float(np.abs(weights).sum())
    if len(weights) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(weights))))
        return float(np.mean(_reaches(signs @ weights, float(weights.sum()), whole=whole)))
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(num_resamples, len(weights)))
    hits = float(np.sum(_reaches(signs @ weights, float(weights.sum()), whole=whole)))
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


def level_of_look(look: int, *, alpha: float = ALPHA) -> float:
    """Level at which the first, second, … look at growing data tests, so that all looks together keep alpha.

    α·2/3, then each a third of the one before: their sum is alpha, however many looks there will be.

    Source: Lan and DeMets 1983 (alpha spending); by Bonferroni's inequality the looks may depend in any way.
    """
    return alpha * FIRST_LOOK * NEXT_LOOK ** (look - 1)


def seeds_needed(test: PairedTest, *, alpha: float = ALPHA) -> SeedsNeeded:
    """Seeds to add to each task until the difference would be found with a chance of 80 %, at this alpha.

    The true difference is not the one seen. The forecast is for the lower end of its one-sided 80 % interval: the
    smallest number N of seeds with `end / se(N) >= t(1 - alpha/2) + t(0.8)`, less those there are. Where the end is
    not above 0, the sign itself may be chance and no number is said; nor is one from two seeds of one task, which
    hardly know their own variance.
    """
    size = abs(test.difference.value)
    # Pairs that are equal but for rounding have a p of 1 and no interval.
    if not math.isfinite(test.p_value) or size == 0 or not test.difference.is_known:
        return SeedsNeeded(None)
    error, freedom = math.sqrt(math.fsum(part.variance for part in test.parts)), _freedom(test.parts)
    seeds = [part for part in test.parts if part.shrinks and part.variance > 0]
    is_told = not seeds or _freedom(seeds) >= LEAST_FREEDOM - ROUNDING
    end = max(0.0, size - float(special.stdtrit(freedom, SURE)) * error) if is_told else 0.0
    if _is_for_problems(test, alpha=alpha):
        return SeedsNeeded(None, for_problems=True, at_least=end)
    more = np.arange(1, MOST_SEEDS + 1)
    enough = end >= _reach(test.parts, more=more, alpha=alpha)
    return SeedsNeeded(int(more[enough.argmax()]) if end > 0 and enough.any() else None, at_least=end)


def _is_for_problems(test: PairedTest, *, alpha: float) -> bool:
    """Whether even endless seeds would find the difference with a chance below 5 %.

    What they would leave is the difference seen, with an error for the seeds there were, against the least variance
    that the problems have. That is above 0 only where an F test at 5 % finds that they differ by more than the rest.
    """
    fixed = [part for part in test.parts if not part.shrinks and part.least > 0]
    if not fixed:
        return False
    least = sum(part.least for part in fixed)
    freedom = 1 / sum((part.least / least) ** 2 / part.freedom for part in fixed)
    limit = float(special.stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(least)
    seeds = [part for part in test.parts if part.shrinks and part.variance > 0]
    error = (
        float(special.stdtrit(_freedom(seeds), 1 - ALPHA)) * math.sqrt(sum(part.variance for part in seeds))
        if seeds
        else 0.0
    )
    return abs(test.difference.value) + error < limit


def _check(tables: Tables) -> None:
    shapes = [table.shape for table in tables]
    if not shapes or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise ValueError(f"differences of shapes {shapes}: give a table [seed, problem] of each task, none empty")
    if any(np.isnan(table).any() for table in tables):
        raise ValueError("a difference is not a number: leave out the problems that a run could not score")


def _parts(table: Array, *, num_tasks: int) -> list[Part]:
    """Return the parts of a task's variance: what more seeds would lessen, and what only more problems would."""
    num_seeds, num_problems = table.shape
    scale = 1 / (num_seeds * num_problems * num_tasks**2)
    by_seed = num_problems * float(table.mean(axis=1).var(ddof=1))
    if num_problems < 2:
        return [Part(by_seed * scale, num_seeds - 1, num_seeds, shrinks=True)]
    by_problem = num_seeds * float(table.mean(axis=0).var(ddof=1))
    rest, freedom = _rest(table), num_problems - 1
    bound = float(special.fdtri(freedom, freedom * (num_seeds - 1), 1 - ALPHA))
    # The seeds' part keeps their few degrees of freedom even where it is estimated by the rest's mean square.
    seeds = Part(max(by_seed, rest) * scale, num_seeds - 1, num_seeds, shrinks=True)
    problems = Part(
        max(by_problem - rest, 0.0) * scale,
        freedom,
        num_seeds,
        shrinks=False,
        least=max(by_problem / bound - rest, 0.0) * scale,
    )
    return [seeds, problems]


def _rest(table: Array) -> float:
    """Mean square of what is left after the means of rows and columns."""
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return float((left**2).sum()) / ((table.shape[0] - 1) * (table.shape[1] - 1))


def _freedom(parts: Sequence[Part]) -> float:
    """Satterthwaite's degrees of freedom of a sum of independent variances."""
    total = math.fsum(part.variance for part in parts)  # of its shares, since squares of tiny variances underflow
    return 1 / math.fsum((part.variance / total) ** 2 / part.freedom for part in parts)


def _reach(parts: Sequence[Part], *, more: NDArray[np.int_], alpha: float) -> Array:
    """Difference that is found with a chance of 80 %, for each number of seeds added."""
    variances, freedoms = zip(*(_with_more(part, more) for part in parts), strict=True)
    total = np.sum(variances, axis=0)
    freedom = 1 / np.sum(np.square(variances / total) / freedoms, axis=0)
    return np.sqrt(total) * (special.stdtrit(freedom, 1 - alpha / 2) + special.stdtrit(freedom, POWER))


def _with_more(part: Part, more: NDArray[np.int_]) -> tuple[Array, Array | NDArray[np.int_]]:
    """Return the part's variance and degrees of freedom, for each number of seeds added."""
    if part.shrinks:
        share = np.asarray(part.num_seeds / (part.num_seeds + more), dtype=np.float64)
        return part.variance * share, np.asarray(part.freedom + more, dtype=np.float64)
    return np.full(more.shape, part.variance), np.full(more.shape, part.freedom)


def _reaches(drawn: Array, seen: float, *, whole: float) -> NDArray[np.bool_]:
    """Equal sums differ in their last bits by the order of the terms, whose sizes add up to `whole`."""
    return np.abs(drawn) >= abs(seen) - ROUNDING * whole
