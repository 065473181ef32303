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
        values = self.of_run(run)
        finite = values[np.isfinite(values)]
        return float(finite.mean()) if finite.size else math.nan


def measures_of(scores: StudyScores) -> Mapping[str, Measure]:
    """The measures of a study by key: `last`, `best`, `auc`, `drop`, and `pass@k` for the largest k all runs have."""
    unit = "generated tokens" if scores.budget_kind == "tokens" else "training time"
    found = [
        Measure("last", "last", "mean score at the last evaluation", lambda run: values_of(run.evaluations[-1])),
        Measure(
            "best",
            "best on the way",
            "mean score at the run's best evaluation; optimistic, because the evaluation itself chose it",
            lambda run: values_of(best_evaluation(run)),
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
            lambda run: np.array([best_evaluation(run).mean - run.evaluations[-1].mean]),
            more_is_better=False,
        ),
    ]
    k = largest_k(scores)
    if k > 1:
        found.append(pass_measure(k))
    return {measure.key: measure for measure in found}


def pass_measure(k: int) -> Measure:
    """Share of problems of which at least one of k samples is right, estimated without bias at the last evaluation."""
    meaning = f"chance that at least one of {k} samples is right, at the last evaluation (unbiased estimate)"
    return Measure(f"pass@{k}", f"pass@{k}", meaning, lambda run: pass_values(run.evaluations[-1], k=k))


def largest_k(scores: StudyScores) -> int:
    """Largest k of which every scored run's last evaluation has a pass@k; 0 if there is none."""
    shared = [frozenset(run.evaluations[-1].pass_at) for run in scores.runs if run.is_scored]
    return max(frozenset.intersection(*shared), default=0) if shared else 0


def best_evaluation(run: RunResult) -> EvaluationPoint:
    """The evaluation with the highest mean, the earliest of equals; the one before training counts too."""
    return max(run.evaluations, key=lambda point: point.mean if math.isfinite(point.mean) else -math.inf)


def values_of(point: EvaluationPoint) -> Values:
    """The mean of each problem, or the evaluation's mean where problems are not told apart."""
    return np.array(point.problems if point.problems else (point.mean,), dtype=np.float64)


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
