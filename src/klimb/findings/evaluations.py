"""What came of an evaluation: each problem's results, the mean with its interval, pass@k."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

When = Literal["before", "during", "after"]


@dataclass(frozen=True, kw_only=True)
class ProblemRecord:
    """What came of one problem.

    Attributes:
        question: the last message of the prompt.
        values: of each scored response: 1 or 0 if the evaluation is an accuracy, else the reward.
        answers: the text of every response, scored or not.
    """

    problem_id: str
    question: str
    values: tuple[float, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation. Two of one run have the same problems in the same order, and draw from the same seed.

    Attributes:
        when: before the first step, during training, or after the last step.
        step: loop steps done.
        num_tokens_generated: response tokens that training had drawn by then.
        elapsed_seconds: that the steps had taken by then, evaluations left out.
        mean: Mean@k over the problems, with its 95 % interval `low` to `high`.
        count: responses scored.
        num_errors: responses without a score; in no mean.
        num_samples: responses a problem.
        is_accuracy: whether every scored response has a verdict of right or wrong; else all values are rewards.
        pass_at: k, as text -> probability that one of k responses is correct, for every k that all problems with a
            scored response have enough of; empty without verdicts.
        greedy: the mean with the likeliest tokens; None if it was not asked for.
        length_mean: tokens of a response.
        truncated_fraction: share of responses that were cut off.
        problems: what came of each of them.
        temperature: that the responses of `mean` were drawn at.
        seconds: what the evaluation took; two evaluations are equal whatever they took.
    """

    when: When
    step: int
    num_tokens_generated: int
    elapsed_seconds: float
    mean: float
    low: float
    high: float
    count: int
    num_errors: int
    num_samples: int
    is_accuracy: bool
    pass_at: Mapping[str, float]
    greedy: float | None
    length_mean: float
    truncated_fraction: float
    problems: tuple[ProblemRecord, ...]
    temperature: float = 1.0
    seconds: float = field(default=0.0, compare=False)

    @property
    def num_problems(self) -> int:
        """Problems asked."""
        return len(self.problems)

    @property
    def num_problems_unscored(self) -> int:
        """Problems of which no response could be scored: they are in no mean."""
        return sum(not problem.values for problem in self.problems)


def evaluation_of(line: Mapping[str, Any]) -> EvaluationRecord:
    """Return the evaluation that a line of evaluations.jsonl holds.

    Raises:
        KeyError, TypeError: the line is not what a run writes.
    """
    problems = tuple(
        ProblemRecord(
            problem_id=problem["problem_id"],
            question=problem["question"],
            values=tuple(problem["values"]),
            answers=tuple(problem["answers"]),
        )
        for problem in line["problems"]
    )
    return EvaluationRecord(**{**line, "problems": problems})


def row_of(evaluation: EvaluationRecord) -> dict[str, float]:
    """Return the evaluation under the names that metrics.jsonl has for it, with its place in the run."""
    fields = ("mean", "low", "high", "greedy", "num_errors", "length_mean", "truncated_fraction")
    values = {f"evaluation_{name}": getattr(evaluation, name) for name in fields}
    return {
        "step": evaluation.step,
        "num_tokens_generated": evaluation.num_tokens_generated,
        "elapsed_seconds": evaluation.elapsed_seconds,
        **{name: value for name, value in values.items() if value is not None},
        **{f"evaluation_pass_at_{k}": value for k, value in evaluation.pass_at.items()},
    }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run had come: `EvaluationRecord` says what each number is."""

    step: int = 0
    num_tokens_generated: int = 0
    elapsed_seconds: float = 0.0


NUM_RESAMPLES = 2000


CONFIDENCE = 0.95


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased probability that at least one of k samples is correct: 1 − C(n − c, k) / C(n, k).

    Raises:
        ValueError: k is not in 1..n, or c is not in 0..n.

    Source: arXiv 2107.03374, equation 1.
    """
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n, got n = {num_samples}, c = {num_correct}")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def bootstrap_interval(means: Sequence[float], *, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean of `means`, resampled with replacement from a fixed seed."""
    import torch  # an evaluation can be read without it

    values = torch.tensor(means, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values), (num_resamples, len(values)), generator=generator)
    tail = (1 - CONFIDENCE) / 2
    bounds = values[picks].mean(dim=1).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return float(bounds[0]), float(bounds[1])


def pass_values(problems: Sequence[ProblemRecord]) -> dict[str, list[float]]:
    """Return k, as text -> pass@k of each problem with a scored response, for k in powers of two.

    Every k is over the same problems, those that the mean is over: a k that one of them lacks the scored responses for
    is left out. The problems that have enough are often the easy ones, whose answers do not time out.
    """
    scored = [problem.values for problem in problems if problem.values]
    fewest = min(map(len, scored), default=0)
    return {
        str(k): [pass_at_k(len(values), round(sum(values)), k) for values in scored]
        for k in (2**power for power in range(fewest.bit_length()))
    }


def pass_intervals(evaluation: EvaluationRecord) -> dict[str, tuple[float, float]]:
    """Return k, as text -> the 95 % interval of pass@k, over the same problems for every k."""
    values = pass_values(evaluation.problems) if evaluation.pass_at else {}
    return {k: bootstrap_interval(of_problems) for k, of_problems in values.items()}
