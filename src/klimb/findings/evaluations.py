"""What came of an evaluation: each problem's results, the mean with its interval, pass@k."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from klimb.findings import statistics as intervals
from klimb.findings.statistics.interval import ALPHA, Interval

When = Literal["before", "during", "after"]


@dataclass(frozen=True, kw_only=True)
class ProblemRecord:
    """What came of one problem.

    Attributes:
        question: the last message of the prompt.
        values: of each scored response: 1 or 0 if the evaluation is an accuracy, else the reward.
        answers: the text of every response, scored or not.
        prompt_id: the same for problems with the same prompt, which are one unit of evidence; empty where it was not
            recorded, and then each problem is one.
    """

    problem_id: str
    question: str
    values: tuple[float, ...]
    answers: tuple[str, ...]
    prompt_id: str = ""

    @property
    def unit(self) -> str:
        """What the problem's evidence belongs to."""
        return self.prompt_id or self.problem_id


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation. Two of one run have the same problems in the same order, and draw from the same seed.

    Attributes:
        when: before the first step, during training, or after the last step.
        step: loop steps done.
        num_tokens_generated: response tokens that training had drawn by then.
        elapsed_seconds: that the steps had taken by then, evaluations left out.
        mean: Mean@k over the problems; `interval` is its 95 % interval.
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

    @cached_property
    def interval(self) -> Interval:
        """The mean with its 95 % interval over problems."""
        return self.interval_at(ALPHA)

    def interval_at(self, alpha: float) -> Interval:
        """Return the mean with the interval that misses it with this chance."""
        scored = [problem for problem in self.problems if problem.values]
        if not scored:
            return Interval(self.mean, unit="problem", reason="no problem has a scored answer")
        # Each problem counts alike, however many of its answers could be scored.
        weights = [1 / len(problem.values) for problem in scored for _ in problem.values]
        if not self.is_accuracy and len({value for problem in scored for value in problem.values}) == 1:
            # Rewards that are all 1, or 0, could have been others; only verdicts are known to be shares.
            reason = "all rewards are the same, so their spread is not known"
            return Interval(self.mean, unit="problem", num_units=len(set(_units(scored))), reason=reason)
        return intervals.mean_interval(
            [value for problem in scored for value in problem.values],
            _units([problem for problem in scored for _ in problem.values]),
            unit="problem",
            weights=weights,
            bounds=(0.0, 1.0) if self.is_accuracy else None,
            alpha=alpha,
        )

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
            prompt_id=problem.get("prompt_id", ""),
        )
        for problem in line["problems"]
    )
    made = {name: value for name, value in line.items() if name not in _COMPUTED}
    return EvaluationRecord(**{**made, "problems": problems})


_COMPUTED = ("interval", "low", "high")
"""Keys of a line that readers of the file want and that follow from its problems."""


def line_of(evaluation: EvaluationRecord) -> dict[str, Any]:
    """Return what a line of evaluations.jsonl holds; an interval that is missing has null for its ends."""
    return {**asdict(evaluation), "interval": interval_row(evaluation.interval)}


def interval_row(interval: Interval) -> dict[str, Any]:
    """Return the interval as plain values of JSON."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(interval).items()
    }


def row_of(evaluation: EvaluationRecord) -> dict[str, float]:
    """Return the evaluation under the names that metrics.jsonl has for it, with its place in the run."""
    fields = ("mean", "greedy", "num_errors", "length_mean", "truncated_fraction")
    values = {f"evaluation_{name}": getattr(evaluation, name) for name in fields}
    if evaluation.interval.is_known:
        values |= {"evaluation_low": evaluation.interval.low, "evaluation_high": evaluation.interval.high}
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


@dataclass(frozen=True)
class BestPoint:
    """The best observation of a run.

    Attributes:
        metric: its name.
        value: of the metric.
        progress: where the run stood then.
        is_model: whether the policy is put back to that point at the end of the run.
    """

    metric: str
    value: float
    progress: Progress
    is_model: bool

    def in_words(self) -> str:
        """Return one sentence for the end of a run."""
        what = "the model is that of this step" if self.is_model else "the model is that of the last step"
        return f"best {self.metric}: {self.value:g}, at step {self.progress.step}, whose checkpoint is kept; {what}"


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased probability that at least one of k samples is correct: 1 − C(n − c, k) / C(n, k).

    Raises:
        ValueError: k is not in 1..n, or c is not in 0..n.

    Source: arXiv 2107.03374, equation 1.
    """
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n, got n = {num_samples}, c = {num_correct}")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


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


def pass_intervals(evaluation: EvaluationRecord) -> dict[str, Interval]:
    """Return k, as text -> pass@k with its 95 % interval, over the same problems for every k."""
    if not evaluation.pass_at:
        return {}
    units = _units([problem for problem in evaluation.problems if problem.values])
    return {
        # pass@1 is the mean, of which the single answers say more than its problems' shares do.
        k: evaluation.interval
        if k == "1"
        else intervals.mean_interval(values, units, unit="problem", bounds=(0.0, 1.0))
        for k, values in pass_values(evaluation.problems).items()
    }


def change_between(earlier: EvaluationRecord, later: EvaluationRecord, *, alpha: float = ALPHA) -> Interval | None:
    """Return mean(later) − mean(earlier) with its interval over problems, in units of the values.

    Paired by problem, over those that both scored, so that how hard the problems are does not widen it. Where both
    share fewer than half of theirs it is the difference of the means over all problems.

    None where one is an accuracy and the other a reward, or one has no score: there is no difference then.
    """
    old, new = _scored(earlier), _scored(later)
    if earlier.is_accuracy != later.is_accuracy or not (old and new):
        return None
    shared = _shared(old, new)
    if not shared:
        return _unpaired(
            list(old.values()), list(new.values()), bounds=(0.0, 1.0) if later.is_accuracy else None, alpha=alpha
        )
    by_unit: dict[str, list[float]] = {}
    for key in shared:
        by_unit.setdefault(old[key].unit, []).append(_mean(new[key]) - _mean(old[key]))
    sizes = [len(problem.values) for key in shared for problem in (old[key], new[key])]
    return intervals.paired_interval(
        [statistics.fmean(differences) for differences in by_unit.values()],
        unit="problem",
        largest=1.0 if later.is_accuracy else None,
        num_values=statistics.harmonic_mean(sizes),
        alpha=alpha,
    )


def means_that_changed(earlier: EvaluationRecord, later: EvaluationRecord) -> tuple[float, float]:
    """Return the two means whose difference `change_between` is: of the problems that both scored."""
    old, new = _scored(earlier), _scored(later)
    shared = _shared(old, new)
    if not shared:
        return earlier.mean, later.mean
    first, second = (statistics.fmean(_mean(part[key]) for key in shared) for part in (old, new))
    return first, second


def _scored(evaluation: EvaluationRecord) -> dict[str, ProblemRecord]:
    return {problem.problem_id: problem for problem in evaluation.problems if problem.values}


def _shared(old: Mapping[str, ProblemRecord], new: Mapping[str, ProblemRecord]) -> list[str]:
    """Return the problems that both scored; none where they are too few, beside those of either, to be paired."""
    shared, fewest = [key for key in old if key in new], min(len(old), len(new))
    is_small = 2 * len(shared) < fewest or len(shared) < intervals.LEAST_UNITS <= fewest
    return [] if is_small else shared


def _unpaired(
    old: Sequence[ProblemRecord],
    new: Sequence[ProblemRecord],
    *,
    bounds: tuple[float, float] | None,
    alpha: float,
) -> Interval:
    units = _units([*old, *new])
    first, second = ([_mean(problem) for problem in part] for part in (old, new))
    parts = (first, units[: len(old)], second, units[len(old) :])
    return intervals.difference_of_groups(*parts, unit="problem", bounds=bounds, alpha=alpha).interval


def _mean(problem: ProblemRecord) -> float:
    return statistics.fmean(problem.values)


def _units(problems: Sequence[ProblemRecord]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(problem.unit, len(numbers)) for problem in problems]
