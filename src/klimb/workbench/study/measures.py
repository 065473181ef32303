"""What is read off a run: its last and best score, its speed of learning, what it lost on the way."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klimb.training import pass_at_k
from klimb.workbench.study.scores import EvaluationPoint, RunResult, StudyScores

Values = NDArray[np.float64]
"""A value of each problem; nan where a problem has none. One value only, where a run has one for all its problems."""


@dataclass(frozen=True)
class Measure:
    """A number of a run, as the mean over its problems.

    Args:
        key: short name, for files and columns.
        title: name for people.
        meaning: what it is, in one sentence.
        of_run: value of each problem; the run has at least one evaluation.
        more_is_better: false for what a run lost.
    """

    key: str
    title: str
    meaning: str
    of_run: Callable[[RunResult], Values]
    more_is_better: bool = True

    def score(self, run: RunResult) -> float:
        """Mean over the problems that have a value."""
        return _mean(self.of_run(run))


def measures_of(scores: StudyScores) -> Mapping[str, Measure]:
    """The measures of a study by key: `last`, `best`, `auc`, `drop`, and `pass@k` for the largest k all runs have.

    All are taken at equal budget: a run goes on to the end of the step that spends it, and what that brings beyond the
    budget differs between methods by the size of their steps.
    """
    unit = "generated tokens" if scores.budget_kind == "tokens" else "training time"
    found = [
        Measure(
            "last",
            "last",
            "mean score when the budget is spent: on the straight line between the evaluations before and after",
            lambda run: at_budget(run, scores=scores),
        ),
        Measure(
            "best",
            "best on the way",
            "highest mean score up to there; optimistic, because the evaluation itself chose it",
            lambda run: best_on_the_way(run, scores=scores),
        ),
        Measure(
            "auc",
            "over the budget",
            f"score averaged over the budget of {unit} (normalised area under the curve): who learns faster has more",
            lambda run: area_under_curve(run, scores=scores),
        ),
        Measure(
            "drop",
            "lost since best",
            "best score on the way minus last score",
            lambda run: np.array([_mean(best_on_the_way(run, scores=scores)) - _mean(at_budget(run, scores=scores))]),
            more_is_better=False,
        ),
    ]
    k = largest_k(scores)
    if k > 1:
        found.append(pass_measure(scores, k=k))
    return {measure.key: measure for measure in found}


def pass_measure(scores: StudyScores, *, k: int) -> Measure:
    """Share of problems of which at least one of k samples is right, estimated without bias, when the budget is spent.

    Between two evaluations it is their weighted mean, as for the score.
    """
    meaning = f"chance that at least one of {k} samples is right when the budget is spent (unbiased estimate)"
    return Measure(
        f"pass@{k}",
        f"pass@{k}",
        meaning,
        lambda run: at_budget(run, scores=scores, values=lambda point: pass_values(point, k=k)),
    )


def largest_k(scores: StudyScores) -> int:
    """Largest k of which every evaluation that `last` is taken from has a pass@k, in all scored runs; 0 if none is."""
    shared = [
        frozenset(point.pass_at)
        for run in scores.runs
        if run.is_scored
        for point, _ in around_budget(run, scores=scores)
    ]
    return max(frozenset.intersection(*shared), default=0) if shared else 0


def around_budget(run: RunResult, *, scores: StudyScores) -> tuple[tuple[EvaluationPoint, float], ...]:
    """The evaluations around the end of the budget with their weights, which sum to one.

    The first at or after the end and the one before it, weighted so that their mean number of tokens (or seconds) is
    the budget; the last one alone where the run ended before.
    """
    points, kind = run.evaluations, scores.budget_kind
    after = next((at for at, point in enumerate(points) if point.spent(kind) >= scores.budget), len(points) - 1)
    late = points[after].spent(kind)
    if after == 0 or late <= scores.budget:
        return ((points[after], 1.0),)
    early = points[after - 1].spent(kind)
    share = (scores.budget - early) / (late - early)
    return ((points[after - 1], 1 - share), (points[after], share))


def at_budget(
    run: RunResult, *, scores: StudyScores, values: Callable[[EvaluationPoint], Values] | None = None
) -> Values:
    """What `values` gives when the budget is spent; the score of each problem by default."""
    found = [((values or values_of)(point), weight) for point, weight in around_budget(run, scores=scores)]
    if len({row.size for row, _ in found}) > 1:
        found = [(np.array([_mean(row)]), weight) for row, weight in found]
    return np.stack([weight * row for row, weight in found]).sum(axis=0)


def best_on_the_way(run: RunResult, *, scores: StudyScores) -> Values:
    """The highest of the evaluations within the budget and the score at its end; the earliest of equals.

    The evaluation before training counts too.
    """
    within = [values_of(point) for point in run.evaluations if point.spent(scores.budget_kind) <= scores.budget]
    rows = [*within, at_budget(run, scores=scores)]
    return max(rows, key=lambda row: mean if math.isfinite(mean := _mean(row)) else -math.inf)


def values_of(point: EvaluationPoint) -> Values:
    """The mean of each problem, or the evaluation's mean where problems are not told apart."""
    return np.array(point.problems if point.problems else (point.mean,), dtype=np.float64)


def _mean(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def pass_values(point: EvaluationPoint, *, k: int) -> Values:
    """pass@k of each problem, `1 - C(n-c, k) / C(n, k)` with c of n samples right.

    Where samples of the evaluation could not be scored, n differs by problem and is not recorded; then there is one
    value: the evaluation's own pass@k.
    """
    is_countable = point.is_accuracy and point.num_errors == 0 and point.num_samples >= k and point.problems
    if not is_countable:
        return np.array([point.pass_at[k]], dtype=np.float64)
    number = point.num_samples
    return np.array([pass_at_k(number, round(mean * number), k) for mean in point.problems], dtype=np.float64)


def area_under_curve(run: RunResult, *, scores: StudyScores) -> Values:
    """Score of each problem averaged over the budget: `(1/B) ∫₀ᴮ score(b) db`, straight lines between evaluations.

    Before the first and after the last evaluation the nearest one's score stands.
    """
    spent = np.array([point.spent(scores.budget_kind) for point in run.evaluations])
    rows = [values_of(point) for point in run.evaluations]
    same = len({row.size for row in rows}) == 1
    curve = np.stack(rows) if same else np.array([[point.mean] for point in run.evaluations])
    inner = spent[(spent > 0) & (spent < scores.budget)]
    at = np.unique(np.concatenate([[0.0], inner, [scores.budget]]))
    heights = np.stack([np.interp(at, spent, column) for column in curve.T], axis=1)
    steps = np.diff(at)[:, None]
    return (steps * (heights[1:] + heights[:-1]) / 2).sum(axis=0) / scores.budget
