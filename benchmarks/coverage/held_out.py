"""Intervals over held-out problems: accuracies, rewards, changes before and after, pass@k; and a report's alarms."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.coverage.cells import Alarms, Cell, coverage
from klimb.findings.evaluations import EvaluationRecord, ProblemRecord, pass_at_k
from klimb.findings.run.record import RunRecord
from klimb.findings.run.rules import find
from klimb.findings.statistics import ALPHA, mean_interval, paired_interval

Array = NDArray[np.float64]


SIZES = (5, 10, 21, 50, 100, 300)
ANSWERS = (1, 4, 12)
RATES = (0.01, 0.05, 0.2, 0.5, 0.94, 0.99)
CORRELATIONS = (0.0, 0.1, 0.3, 0.7)


SMALL_PART = 4
"""The rule before is slow, and is counted on one data set in four."""


NUM_RESAMPLES = 500


def cells(num_sets: int, generator: np.random.Generator) -> Iterator[Cell]:
    """Yield every case of this part."""
    yield from accuracies(num_sets, generator)
    yield from changes(num_sets, generator)
    yield from rewards(num_sets, generator)
    yield from pass_at(num_sets, generator)
    yield from reports(num_sets, generator)


def accuracies(
    num_sets: int,
    generator: np.random.Generator,
    *,
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float] = RATES,
    correlations: Sequence[float] = CORRELATIONS,
) -> Iterator[Cell]:
    """Yield the coverage of a held-out accuracy by size, answers a problem, rate and correlation within a problem."""
    for size, answers, rate, correlation in itertools.product(sizes, ANSWERS, rates, correlations):
        if answers == 1 and correlation:
            continue
        drawn = generator.random((num_sets, size, answers)) < _chances(rate, correlation, (num_sets, size), generator)
        problems = np.arange(size).repeat(answers)
        made = [mean_interval(values.ravel(), problems, unit="problem") for values in drawn.astype(np.float64)]
        means = drawn.mean(axis=2)
        yield coverage(
            made,
            rate,
            number="held-out accuracy",
            case=f"{size} problems x {answers}, rate {rate:g}, correlation {correlation:g}",
            best_width=_narrowest((_wilson(means, answers), _student(means)), rate),
            before=_held(_percentile(means[: num_sets // SMALL_PART], generator), rate),
        )


def changes(num_sets: int, generator: np.random.Generator, *, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Yield the coverage of the change before and after, paired by problem."""
    for (name, chances), size, answers in itertools.product(CHANGES.items(), sizes, ANSWERS):
        first, second, truth = chances((num_sets, size), generator)
        counts = generator.binomial(answers, second) - generator.binomial(answers, first)
        differences = counts.astype(np.float64) / answers
        made = [paired_interval(row, unit="problem", largest=1.0, num_values=answers) for row in differences]
        yield coverage(
            made,
            truth,
            number="change on held-out problems",
            case=f"{name}, {size} problems x {answers}",
            best_width=_narrowest((_student(differences),), truth),
            before=_held(_percentile(differences[: num_sets // SMALL_PART], generator), truth),
        )


def rewards(num_sets: int, generator: np.random.Generator, *, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Yield the coverage of a mean reward whose bounds are not known."""
    for (name, (draw, truth)), size in itertools.product(REWARDS.items(), sizes):
        values = draw((num_sets, size), generator)
        made = [mean_interval(row, np.arange(size), unit="problem") for row in values]
        yield coverage(
            made,
            truth,
            number="held-out reward",
            case=f"{name}, {size} problems",
            best_width=_narrowest((_student(values),), truth),
            before=_held(_percentile(values[: num_sets // SMALL_PART], generator), truth),
        )


def pass_at(num_sets: int, generator: np.random.Generator, *, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Yield the coverage of pass@4 of 8 answers; its truth is the mean of 1 − (1 − p)⁴ over all problems."""
    for size, rate, correlation in itertools.product(sizes, (0.05, 0.3, 0.7), (0.1, 0.5)):
        chances = _chances(rate, correlation, (num_sets, size), generator)[..., 0]
        everywhere = _chances(rate, correlation, (200_000, 1), generator)
        right = generator.binomial(8, chances)
        table = np.array([pass_at_k(8, count, 4) for count in range(9)])
        made = [mean_interval(row, np.arange(size), unit="problem", bounds=(0.0, 1.0)) for row in table[right]]
        yield coverage(
            made,
            float((1 - (1 - everywhere) ** 4).mean()),
            number="pass@4",
            case=f"{size} problems x 8, rate {rate:g}, correlation {correlation:g}",
            best_width=_narrowest((_student(table[right]),), float((1 - (1 - everywhere) ** 4).mean())),
        )


ALARMS = ("forgetting", "unstable", "too-little-data")
"""Findings of a report that warn of something that chance can look like."""


def reports(
    num_sets: int, generator: np.random.Generator, *, sizes: Sequence[int] = (10, 21, 50, 200)
) -> Iterator[Cell]:
    """Yield how often the report of a run in which nothing changed warns, or says that it learned."""
    for size, rate, correlation in itertools.product(sizes, (0.05, 0.5, 0.95), (0.1, 0.5)):
        warned, learned, before = [], [], []
        # A report takes as long as ten intervals.
        for _ in range(num_sets // 2):
            chances = _chances(rate, correlation, (1, size), generator)[0, :, 0]
            record = _unchanged_run(chances, rate, generator)
            found = {finding.name: finding.status for finding in find(record)}
            warned.append(any(found.get(name) in ("bad", "warning") for name in ALARMS))
            learned.append("learned" in found)
            if len(before) < num_sets // (2 * SMALL_PART):
                before.append(_warned_before(record, generator))
        case = f"{size} problems x 4, 10 evaluations, rate {rate:g}, correlation {correlation:g}"
        yield Alarms(
            number="report: got worse, not the last is best, learned by heart",
            case=case,
            num_sets=len(warned),
            rate=float(np.mean(warned)),
            before=float(np.mean(before)),
        )
        yield Alarms(number="report: it learned", case=case, num_sets=len(learned), rate=float(np.mean(learned)))


def _unchanged_run(chances: Array, rate: float, generator: np.random.Generator) -> RunRecord:
    evaluations = tuple(
        _evaluation("before" if step == 0 else "after" if step == 100 else "during", step, chances, generator)
        for step in (0, *range(10, 101, 10))
    )
    drawn = generator.binomial(64, rate, size=100) / 64
    rows = tuple({"step": step + 1.0, "accuracy": share, "reward_mean": share} for step, share in enumerate(drawn))
    return RunRecord(
        folder=Path("run"), config={}, provenance={}, rows=rows, evaluations=evaluations, guard={}, summary={}
    )


def _evaluation(when: str, step: int, chances: Array, generator: np.random.Generator) -> EvaluationRecord:
    values = (generator.random((len(chances), 4)) < chances[:, None]).astype(np.float64)
    problems = tuple(
        ProblemRecord(problem_id=str(number), question="", values=tuple(row.tolist()), answers=("",) * 4)
        for number, row in enumerate(values)
    )
    return EvaluationRecord(
        when=when,  # pyright: ignore[reportArgumentType]
        step=step,
        num_tokens_generated=0,
        elapsed_seconds=0.0,
        mean=float(values.mean()),
        count=values.size,
        num_errors=0,
        num_samples=4,
        is_accuracy=True,
        pass_at={},
        greedy=None,
        length_mean=1.0,
        truncated_fraction=0.0,
        problems=problems,
    )


def _warned_before(record: RunRecord, generator: np.random.Generator) -> bool:
    """Return what the rules said that took percentile intervals, and the best evaluation as if it was any."""
    first, last = record.evaluations[0], record.evaluations[-1]
    best = max(record.evaluations[1:], key=lambda made: made.mean)

    def high(earlier: EvaluationRecord) -> float:
        pairs = zip(earlier.problems, last.problems, strict=True)
        differences = np.array([[float(np.mean(new.values) - np.mean(old.values)) for old, new in pairs]])
        return float(_percentile(differences, generator)[1][0])

    is_unstable = best is not last and best.mean - last.mean > 0.05 and high(best) < 0
    return high(first) < 0 or is_unstable


def _chances(rate: float, correlation: float, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Return the chance of each problem, on a last axis of one: beta with this mean and correlation of answers."""
    if correlation == 0:
        return np.full((*shape, 1), rate)
    total = (1 - correlation) / correlation
    return generator.beta(rate * total, (1 - rate) * total, size=(*shape, 1))


Changed = tuple[Array, Array, float]


def _nothing(rate: float, correlation: float) -> Callable[[tuple[int, int], np.random.Generator], Changed]:
    def draw(shape: tuple[int, int], generator: np.random.Generator) -> Changed:
        chances = _chances(rate, correlation, shape, generator)[..., 0]
        return chances, chances, 0.0

    return draw


def _some_solved(shape: tuple[int, int], generator: np.random.Generator) -> Changed:
    first = np.full(shape, 0.2)
    return first, np.where(generator.random(shape) < 0.3, 0.9, first), 0.3 * 0.7


def _all_solved(shape: tuple[int, int], generator: np.random.Generator) -> Changed:
    return generator.beta(0.5, 9.5, shape), generator.beta(9.5, 0.5, shape), 0.9


def _all_a_little(shape: tuple[int, int], generator: np.random.Generator) -> Changed:
    first = 0.9 * generator.random(shape)
    return first, first + 0.1, 0.1


def _exchanged(shape: tuple[int, int], generator: np.random.Generator) -> Changed:
    first = np.where(generator.random(shape) < 0.5, 0.95, 0.05)
    return first, np.where(generator.random(shape) < 0.1, 1 - first, first), 0.0


CHANGES: dict[str, Callable[[tuple[int, int], np.random.Generator], Changed]] = {
    "nothing changed at 5 %": _nothing(0.05, 0.0),
    "nothing changed at 50 %, correlation 0.7": _nothing(0.5, 0.7),
    "nothing changed at 95 %, correlation 0.3": _nothing(0.95, 0.3),
    "30 % of the problems learned": _some_solved,
    "5 % to 95 %": _all_solved,
    "all problems 10 points better": _all_a_little,
    "10 % of the problems exchanged": _exchanged,
}


REWARDS: dict[str, tuple[Callable[[tuple[int, int], np.random.Generator], Array], float]] = {
    "normal": (lambda shape, generator: generator.standard_normal(shape), 0.0),
    "beta(0.5, 0.5)": (lambda shape, generator: generator.beta(0.5, 0.5, shape), 0.5),
    "beta(1, 6)": (lambda shape, generator: generator.beta(1, 6, shape), 1 / 7),
    "exponential": (lambda shape, generator: generator.exponential(1, shape), 1.0),
    "log-normal, sigma 1": (lambda shape, generator: generator.lognormal(0, 1, shape), math.exp(0.5)),
    "70 % zero, else uniform": (
        lambda shape, generator: (generator.random(shape) < 0.3) * generator.random(shape),
        0.15,
    ),
}


Ends = tuple[Array, Array]


def _wilson(means: Array, answers: int) -> Ends:
    """Wilson's interval with the design effect of the problems."""
    size, z = means.shape[1], float(special.ndtri(1 - ALPHA / 2))
    share, variance = means.mean(axis=1), means.var(axis=1, ddof=1) / means.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.where(variance > 0, np.clip(share * (1 - share) / variance, size, size * answers), size)
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    reach = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return centre - reach, centre + reach


def _student(means: Array) -> Ends:
    size = means.shape[1]
    reach = special.stdtrit(size - 1, 1 - ALPHA / 2) * means.std(axis=1, ddof=1) / math.sqrt(size)
    return means.mean(axis=1) - reach, means.mean(axis=1) + reach


def _percentile(means: Array, generator: np.random.Generator) -> Ends:
    """Return the percentile interval of problems drawn again."""
    size = means.shape[1]
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=NUM_RESAMPLES) / size
    low, high = np.quantile(means @ drawn.T, (ALPHA / 2, 1 - ALPHA / 2), axis=1)
    return low, high


def _held(ends: Ends, truth: float) -> float:
    return float(((ends[0] <= truth + 1e-12) & (truth - 1e-12 <= ends[1])).mean())


def _narrowest(methods: Sequence[Ends], truth: float) -> float:
    """Return the median width of the narrowest of these that holds the truth in 93 % or more; nan if none does."""
    widths = [float(np.median(high - low)) for low, high in methods if _held((low, high), truth) >= 0.93]
    return min(widths, default=math.nan)
