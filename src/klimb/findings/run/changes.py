"""What changed per problem between two evaluations, and how much of that luck alone would have shown."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord

Kind = Literal["lost", "learned", "never", "between", "always"]


KINDS: tuple[Kind, ...] = ("learned", "lost", "never", "between", "always")


MUCH = 0.5
"""A change of the mean by this share of the range counts as learned or lost."""


NEVER = 0.1
"""A mean of at most this share of the range, both times: never solved."""


ALWAYS = 0.9
"""At least this share, both times: solved all along."""


NUM_SHUFFLES = 400


@dataclass(frozen=True, kw_only=True)
class PromptChange:
    """One problem in two evaluations.

    Attributes:
        before: what came of it the first time.
        after: what came of it the second time.
        low: mean of the first values, as a share of the range: 0 is the lowest value there was, 1 the highest.
        high: the same of the second values.
        kind: in words.
    """

    before: ProblemRecord
    after: ProblemRecord
    low: float
    high: float
    kind: Kind

    @property
    def change(self) -> float:
        """Share of the range; negative: worse."""
        return self.high - self.low


def prompt_changes(first: EvaluationRecord, second: EvaluationRecord) -> tuple[PromptChange, ...]:
    """Each problem that has a scored response in both evaluations, in the order of the first one.

    None where one of them is an accuracy and the other is not: their values are not on one scale.
    """
    pairs = _paired(first, second)
    if not pairs:
        return ()
    bottom, span = _scale([problem for pair in pairs for problem in pair], is_accuracy=first.is_accuracy)
    return tuple(
        _changed(old, new, *(((statistics.fmean(problem.values) - bottom) / span) for problem in (old, new)))
        for old, new in pairs
    )


def counted(changes: Sequence[PromptChange]) -> dict[Kind, int]:
    """How many problems of each kind there are."""
    counts = Counter(change.kind for change in changes)
    return {kind: counts[kind] for kind in KINDS}


def expected_by_luck(changes: Sequence[PromptChange], *, is_accuracy: bool, seed: int = 0) -> dict[Kind, float]:
    """How many problems of each kind there would be if training had changed nothing.

    Then a problem's responses before and after could be exchanged: the mean over random exchanges of the values of each
    problem between its two evaluations.
    """
    generator = np.random.default_rng(seed)
    problems = [problem for change in changes for problem in (change.before, change.after)]
    bottom, span = _scale(problems, is_accuracy=is_accuracy)
    totals: Counter[Kind] = Counter()
    for change in changes:
        pooled = np.array([*change.before.values, *change.after.values], dtype=np.float64)
        shuffled = generator.permuted(np.tile((pooled - bottom) / span, (NUM_SHUFFLES, 1)), axis=1)
        cut = len(change.before.values)
        lows, highs = shuffled[:, :cut].mean(axis=1), shuffled[:, cut:].mean(axis=1)
        totals.update(kind_of(float(low), float(high)) for low, high in zip(lows, highs, strict=True))
    return {kind: totals[kind] / NUM_SHUFFLES for kind in KINDS}


def kind_of(low: float, high: float) -> Kind:
    """Return what a problem is called whose mean went from `low` to `high`, both as shares of the range."""
    rounding = 1e-9
    if high - low >= MUCH - rounding:
        return "learned"
    if low - high >= MUCH - rounding:
        return "lost"
    if max(low, high) <= NEVER + rounding:
        return "never"
    return "always" if min(low, high) >= ALWAYS - rounding else "between"


def by_problem(record: EvaluationRecord) -> Mapping[str, ProblemRecord]:
    """Return the problems under their ids."""
    return {problem.problem_id: problem for problem in record.problems}


def _paired(first: EvaluationRecord, second: EvaluationRecord) -> list[tuple[ProblemRecord, ProblemRecord]]:
    if first.is_accuracy != second.is_accuracy:  # rewards and verdicts are not on one scale
        return []
    later = by_problem(second)
    pairs = [(old, later[old.problem_id]) for old in first.problems if old.problem_id in later]
    return [(old, new) for old, new in pairs if old.values and new.values]


def _changed(before: ProblemRecord, after: ProblemRecord, low: float, high: float) -> PromptChange:
    return PromptChange(before=before, after=after, low=low, high=high, kind=kind_of(low, high))


def _scale(problems: Sequence[ProblemRecord], *, is_accuracy: bool) -> tuple[float, float]:
    """Where the range begins and how long it is: 0 to 1 for accuracies, else from the lowest to the highest value."""
    values = [value for problem in problems for value in problem.values]
    if is_accuracy or not values:
        return 0.0, 1.0
    return min(values), (max(values) - min(values)) or 1.0
