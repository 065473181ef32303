"""Studies: aggregate scores with their intervals, differences, families of comparisons, looks, forecasts of seeds.

`before` is the rule of commit caa7b0e: percentile bootstrap over the runs of a task; the highest mean corrected over
its own comparisons alone; the same level at every look; forecasts that take the difference seen for the true one.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import trim_mean

from benchmarks.coverage.cells import Alarms, Cell, Coverage, coverage
from klimb.findings.statistics import Interval, iqm, performance_profile, probability_of_improvement
from klimb.findings.statistics.pairing import MOST_SEEDS, PairedTest, holm, level_of_look, paired_test, seeds_needed
from klimb.findings.statistics.runs import interquartile_mean

Array = NDArray[np.float64]
Strata = Sequence[Array]
Generator = np.random.Generator
Draw = Callable[[Generator, tuple[int, ...]], Array]

ALPHA = 0.05
BEFORE_SHARE = 5
"""The old bootstrap is slow: it is tried on one of so many sets."""

NUM_RESAMPLES = 1000
LEAST_COVERAGE = 0.93

SPREADS: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "skewed": lambda generator, shape: (generator.gamma(4, 1, shape) - 4) / 2,
    "exponential": lambda generator, shape: generator.exponential(1, shape) - 1,
    "one in five collapses": lambda generator, shape: (
        np.where(generator.random(shape) < 0.2, -3.0, 0.0) + 0.5 * generator.standard_normal(shape)
    ),
}
"""Scores of runs around the level of their task; most have a standard deviation of 1."""

LEVELS = {
    "one task": (0.0,),
    "2 tasks 20 apart": (-10.0, 10.0),
    "3 tasks near each other": (-1.0, 0.0, 1.5),
    "5 tasks": (-10.0, -4.0, 0.0, 5.0, 20.0),
}
SEEDS = (2, 3, 5, 10, 20)
LOOKS = (3, 5, 8, 12, 20)
COMPONENTS = {"runs differ": (0.05, 0.0, 0.3), "problems differ too": (0.03, 0.15, 0.3)}
"""Standard deviations of a difference: of seeds, of problems, of the rest."""

SIZES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""True differences, in standard errors of the study that there is."""


def cells(num_sets: int, generator: Generator) -> Iterator[Cell]:
    """Return the cells of studies."""
    for part in (interquartile_means, improvements, profiles, differences, families, stability, looks, forecasts):
        yield from part(num_sets, generator)


def interquartile_means(num_sets: int, generator: Generator) -> Iterator[Coverage]:
    """Interquartile means of 1 to 5 tasks; the other method is the t interval with the variance of the scores."""
    drawn = itertools.product(SPREADS.items(), LEVELS.items())
    truths = {
        (spread, where): interquartile_mean([draw(generator, (100_000,)) + level for level in levels])
        for (spread, draw), (where, levels) in drawn
    }
    for (spread, draw), (where, levels), seeds in itertools.product(SPREADS.items(), LEVELS.items(), SEEDS):
        truth = truths[spread, where]
        sets = [[draw(generator, (seeds,)) + level for level in levels] for _ in range(num_sets)]
        found = [iqm(strata) for strata in sets]
        other = coverage(list(map(_by_scores, sets)), truth, number="", case="")
        yield coverage(
            found,
            truth,
            number="interquartile mean of runs",
            case=f"{spread}, {where}, {seeds} seeds",
            best_width=other.width if other.held >= LEAST_COVERAGE and found[0].is_known else math.nan,
            before=_share([_bootstrap(strata, generator, _pooled_iqm) for strata in sets[::BEFORE_SHARE]], truth),
        )


def improvements(num_sets: int, generator: Generator) -> Iterator[Coverage]:
    """P(improvement) of normal runs, over 1 and 3 tasks."""
    for truth, tasks, seeds in itertools.product((0.5, 0.76, 0.92), (1, 3), SEEDS):
        shift = math.sqrt(2) * float(special.ndtri(truth))
        runs = generator.standard_normal((num_sets, 2, tasks, seeds))
        runs[:, 0] += shift
        tried = [_bootstrap([*ours, *theirs], generator, _pooled_improvement) for ours, theirs in runs[::BEFORE_SHARE]]
        yield coverage(
            [probability_of_improvement(list(ours), list(theirs)) for ours, theirs in runs],
            truth,
            number="P(improvement)",
            case=f"true {truth:.2f}, {tasks} {'task' if tasks == 1 else 'tasks'}, {seeds} seeds",
            before=_share(tried, truth),
        )


def profiles(num_sets: int, generator: Generator) -> Iterator[Coverage]:
    """Return a point of the performance profile, at shares up to 0.99."""
    for truth, tasks, seeds in itertools.product((0.01, 0.2, 0.5, 0.99), (1, 3), (2, 3, 5, 10)):
        threshold = float(special.ndtri(1 - truth))
        runs = generator.standard_normal((num_sets, tasks, seeds))
        found = [performance_profile(list(strata), thresholds=np.array([threshold])) for strata in runs]
        above = (runs > threshold).astype(np.float64)
        yield coverage(
            [Interval(float(one.share[0]), float(one.low[0]), float(one.high[0])) for one in found],
            truth,
            number="performance profile, a point",
            case=f"share {truth}, {tasks} {'task' if tasks == 1 else 'tasks'}, {seeds} seeds",
            before=_share([_bootstrap(list(rows), generator, _mean_share) for rows in above[::BEFORE_SHARE]], truth),
        )


def differences(num_sets: int, generator: Generator) -> Iterator[Coverage]:
    """Return the paired difference of two methods over seeds and problems."""
    for (name, spread), seeds, problems in itertools.product(COMPONENTS.items(), SEEDS, (20, 200)):
        sets = [paired_test([_table(generator, seeds, problems, spread)]).difference for _ in range(num_sets)]
        case = f"{name}, {seeds} seeds, {problems} problems"
        # The rule was this one already.
        found = coverage(sets, 0.0, number="paired difference of two methods", case=case)
        yield coverage(sets, 0.0, number=found.number, case=case, before=found.held)


def families(num_sets: int, generator: Generator) -> Iterator[Alarms]:
    """Equal methods: is one said to be ahead, of the baseline or as the leader of all pairs?"""
    for methods, seeds in itertools.product((2, 5, 10), SEEDS):
        hits = np.zeros(4)
        for _ in range(num_sets):
            scores = _runs(generator, methods, seeds)
            against = [_p(scores[at] - scores[0]) for at in range(1, methods)]
            means = np.argsort(-scores.mean(axis=(1, 2)))
            pairs = [_p(scores[a] - scores[b]) for a, b in itertools.combinations(means, 2)]
            hits += [
                min(holm(against)) < level_of_look(1),
                min(holm(against)) < ALPHA,
                min(holm(pairs)[: methods - 1]) < level_of_look(1),
                min(holm(pairs[: methods - 1])) < ALPHA,
            ]
        rates, case = (hits / num_sets).tolist(), f"{methods} equal methods, {seeds} seeds"
        yield Alarms(number="against the baseline", case=case, num_sets=num_sets, rate=rates[0], before=rates[1])
        yield Alarms(number="leader", case=case, num_sets=num_sets, rate=rates[2], before=rates[3])


def stability(num_sets: int, generator: Generator) -> Iterator[Alarms]:
    """Equal methods: does one lose more than the baseline between its best evaluation and its last?"""
    for methods, seeds in itertools.product((2, 5, 10), SEEDS):
        hits = np.zeros(2)
        for _ in range(num_sets):
            curves = generator.standard_normal((methods, seeds, 5)) + np.array([-4.0, -1.0, 0.0, 0.0, 0.0])
            drops = curves.max(axis=2) - curves[:, :, -1]
            found = [_p((drops[at] - drops[0])[:, None]) for at in range(1, methods)]
            hits += [min(holm(found)) < level_of_look(1), min(holm(found)) < ALPHA]
        case = f"{methods} equal methods, {seeds} seeds"
        rate, before = (hits / num_sets).tolist()
        yield Alarms(number="stability", case=case, num_sets=num_sets, rate=rate, before=before)


def looks(num_sets: int, generator: Generator) -> Iterator[Alarms]:
    """Seeds are added until something tells: is something said at any of five looks, at 3, 5, 8, 12 and 20 seeds?"""
    for methods, size in ((2, 0.0), (5, 0.0), (2, 0.8), (2, 1.2)):
        hits = np.zeros(2)
        for _ in range(num_sets):
            scores = _runs(generator, methods, LOOKS[-1])
            # In standard deviations of a seed's paired difference.
            scores[1:] += size * math.sqrt(2 * (0.03**2 + 0.3**2 / 20))
            tests = [[_p(scores[at, :seeds] - scores[0, :seeds]) for at in range(1, methods)] for seeds in LOOKS]
            least = [min(holm(found)) for found in tests]
            hits += [any(p < level_of_look(at) for at, p in enumerate(least, start=1)), min(least) < ALPHA]
        rate, before = (hits / num_sets).tolist()
        truth = f"a difference of {size} standard deviations of a pair" if size else "nothing changed"
        yield Alarms(
            number="any verdict of five looks",
            case=f"{methods} methods, looks at {', '.join(map(str, LOOKS))} seeds",
            num_sets=num_sets,
            rate=rate,
            before=before,
            truth=truth,
        )


def forecasts(num_sets: int, generator: Generator) -> Iterator[Alarms]:
    """Of the open studies that are told a number of seeds: in how many do so many more seeds tell?"""
    for (name, spread), seeds, problems in itertools.product(COMPONENTS.items(), (3, 5, 10), (20, 200)):
        error = math.sqrt(spread[0] ** 2 / seeds + spread[1] ** 2 / problems + spread[2] ** 2 / (seeds * problems))
        case = f"{name}, {seeds} seeds, {problems} problems"
        for size in SIZES:
            now, before, blamed = _forecast(generator, num_sets, size * error, seeds, problems, spread)
            yield Alarms(
                number="forecast of seeds: they tell",
                case=f"{case}; said in {len(now) / num_sets:.0%}",
                num_sets=len(now),
                rate=_mean(now),
                before=_mean(before),
                truth=f"a difference of {size:g} standard errors",
            )
            yield Alarms(
                number="more problems are needed: 100 more seeds tell all the same",
                case=f"{case}; said in {len(blamed) / num_sets:.0%}",
                num_sets=len(blamed),
                rate=_mean(blamed),
                truth=f"a difference of {size:g} standard errors",
            )


def _forecast(
    generator: Generator, num_sets: int, size: float, seeds: int, problems: int, spread: tuple[float, float, float]
) -> tuple[list[bool], list[bool], list[bool]]:
    """Return whether the seeds told that the forecast named, and the old one; and 100, where problems were blamed."""
    now: list[bool] = []
    before: list[bool] = []
    blamed: list[bool] = []
    for _ in range(num_sets):
        own = size + spread[1] * generator.standard_normal((1, problems))
        table = own + _table(generator, seeds, problems, (spread[0], 0.0, spread[2]))
        test = paired_test([table])
        if test.p_value < ALPHA:
            continue
        needed = seeds_needed(test)
        asked = (
            (now, needed.more),
            (before, _seen_is_true(test)),
            (blamed, MOST_SEEDS if needed.for_problems else None),
        )
        for told, more in asked:
            if more is not None:
                added = own + _table(generator, more, problems, (spread[0], 0.0, spread[2]))
                told.append(_p(np.vstack([table, added])) < ALPHA)
    return now, before, blamed


def _seen_is_true(test: PairedTest) -> int | None:
    """Return the seeds that would find the difference seen, as if it and its variances were the true ones."""
    for more in range(1, MOST_SEEDS + 1):
        grown = [
            (part.variance * part.num_seeds / (part.num_seeds + more), part.freedom + more)
            if part.shrinks
            else (part.variance, part.freedom)
            for part in test.parts
        ]
        total = sum(variance for variance, _ in grown)
        freedom = total**2 / sum(variance**2 / number for variance, number in grown)
        reach = special.stdtrit(freedom, 1 - ALPHA / 2) + special.stdtrit(freedom, 0.8)
        if abs(test.difference.value) >= math.sqrt(total) * reach:
            return more
    return None


def _table(generator: Generator, seeds: int, problems: int, spread: tuple[float, float, float]) -> Array:
    """Differences without a difference, with these standard deviations of seeds, problems and the rest."""
    of_seeds, of_problems, rest = spread
    draw = generator.standard_normal
    return of_seeds * draw((seeds, 1)) + of_problems * draw((1, problems)) + rest * draw((seeds, problems))


def _runs(generator: Generator, methods: int, seeds: int) -> Array:
    """Scores [method, seed, problem] of equal methods on 20 problems."""
    draw = generator.standard_normal
    own = 0.03 * draw((methods, seeds, 1)) + 0.05 * draw((methods, 1, 20)) + 0.3 * draw((methods, seeds, 20))
    return 0.5 + 0.2 * draw((1, 1, 20)) + 0.02 * draw((1, seeds, 1)) + own


def _p(table: Array) -> float:
    return paired_test([table]).p_value


def _mean(told: Sequence[bool]) -> float:
    return float(np.mean(told)) if told else math.nan


def _by_scores(strata: Strata) -> Interval:
    """Return the interquartile mean with Student's t and the scores' own variance, within tasks."""
    variances = [float(scores.var(ddof=1)) / len(scores) / len(strata) ** 2 for scores in strata]
    freedom = sum(variances) ** 2 / sum(
        part**2 / (len(scores) - 1) for part, scores in zip(variances, strata, strict=True)
    )
    reach, value = (
        float(special.stdtrit(freedom, 1 - ALPHA / 2)) * math.sqrt(sum(variances)),
        interquartile_mean(strata),
    )
    return Interval(value, value - reach, value + reach)


def _bootstrap(strata: Strata, generator: Generator, statistic: Callable[[Strata], Array]) -> tuple[float, float]:
    """Return the percentile interval over the runs of each task."""
    drawn = [scores[generator.integers(len(scores), size=(NUM_RESAMPLES, len(scores)))] for scores in strata]
    low, high = np.quantile(statistic(drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _pooled_iqm(drawn: Strata) -> Array:
    return np.asarray(trim_mean(np.concatenate(list(drawn), axis=-1), 0.25, axis=-1))


def _pooled_improvement(drawn: Strata) -> Array:
    half = len(drawn) // 2
    wins = [np.sign(x[..., :, None] - y[..., None, :]) for x, y in zip(drawn[:half], drawn[half:], strict=True)]
    return np.mean([(1 + won.mean(axis=(-2, -1))) / 2 for won in wins], axis=0)


def _mean_share(drawn: Strata) -> Array:
    return np.mean([scores.mean(axis=-1) for scores in drawn], axis=0)


def _share(ends: Sequence[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in ends]))
