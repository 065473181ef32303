"""Records of runs that never were: numbers chosen so that one rule has something to say, or just not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord
from klimb.findings.finding import Finding
from klimb.findings.run.record import RunRecord
from klimb.findings.run.rules import find
from klimb.findings.run.thresholds import THRESHOLDS, Thresholds

CONFIG: Mapping[str, Any] = {
    "seed": 0,
    "objective": {"loss": "policy-gradient", "ratio": "recorded", "clip": {"kind": "dual"}},
    "reference": {"kind": "iterative"},
    "advantages": {"group_filter": False},
    "optimizer": {"learning_rate": 1e-5},
    "training": {"num_epochs": 1, "num_minibatches": 2},
    "sampling": {"max_new_tokens": 16, "temperature": 1.0},
}

NUM_STEPS = 20


def ramp(first: float, last: float, *, num_steps: int = NUM_STEPS) -> list[float]:
    """From one value to the other in equal steps."""
    return [first + (last - first) * index / (num_steps - 1) for index in range(num_steps)]


def flat(value: float, *, num_steps: int = NUM_STEPS) -> list[float]:
    """The same value at every step."""
    return [value] * num_steps


def record(
    curves: Mapping[str, Sequence[float | None]] | None = None,
    *,
    config: Mapping[str, Any] = CONFIG,
    evaluations: Sequence[EvaluationRecord] = (),
    guard: Mapping[str, Any] | None = None,
) -> RunRecord:
    """A run with these metrics, each given at every step."""
    curves = curves or {}
    num_steps = max((len(values) for values in curves.values()), default=0)
    rows = tuple(
        {"step": float(step + 1), **{name: values[step] for name, values in curves.items()}}
        for step in range(num_steps)
    )
    return RunRecord(
        folder=Path("runs/synthetic"),
        config=config,
        provenance={},
        rows=rows,
        evaluations=tuple(evaluations),
        guard=guard or {},
        summary={},
    )


def evaluation(
    when: Any,
    values: Sequence[Sequence[float]],
    *,
    step: int = 0,
    answers: Sequence[Sequence[str]] | None = None,
    is_accuracy: bool = True,
) -> EvaluationRecord:
    """An evaluation with these values for each problem."""
    means = [sum(of_one) / len(of_one) for of_one in values]
    mean = sum(means) / len(means)
    texts = answers or [["x"] * len(of_one) for of_one in values]
    problems = tuple(
        ProblemRecord(problem_id=f"p{index}", question="?", values=tuple(of_one), answers=tuple(texts[index]))
        for index, of_one in enumerate(values)
    )
    return EvaluationRecord(
        when=when,
        step=step,
        num_tokens_generated=0,
        elapsed_seconds=0.0,
        mean=mean,
        count=sum(map(len, values)),
        num_errors=0,
        num_samples=len(values[0]),
        is_accuracy=is_accuracy,
        pass_at={},
        greedy=None,
        length_mean=1.0,
        truncated_fraction=0.0,
        problems=problems,
    )


def keys(run: RunRecord, thresholds: Thresholds = THRESHOLDS) -> list[str]:
    """Names of what is found."""
    return [finding.name for finding in find(run, thresholds)]


def only(run: RunRecord, key: str) -> Finding:
    """The finding with this key."""
    return next(finding for finding in find(run) if finding.name == key)
