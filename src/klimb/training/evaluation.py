"""How good a policy is on given problems: mean over k samples with an interval, and pass@k without bias.

evaluations.jsonl: each evaluation of a run with the result of every problem, one line of JSON each.
"""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from klimb.experience import SamplingSettings
from klimb.findings.evaluations import (
    EvaluationRecord,
    ProblemRecord,
    Progress,
    When,
    bootstrap_interval,
    pass_at_k,
)
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Response, Score
from klimb.training.rollouts import ResponseScorer


@dataclass(frozen=True, kw_only=True)
class ProblemResult:
    """What came of one problem.

    Attributes:
        values: of each scored response: 1 or 0 where the task says what is correct, the reward elsewhere.
        answers: the text of every response, scored or not.
    """

    problem_id: str
    values: tuple[float, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result over all problems.

    Attributes:
        mean: Mean@k, the mean over problems of the mean over their scored responses.
        low: lower end of the 95 % bootstrap interval of `mean`, problems resampled.
        high: its upper end.
        count: responses scored.
        num_errors: responses without a score; in no mean.
        pass_at: k -> probability that at least one of k responses is correct; empty where the task has no `correct`.
        length_mean: tokens of a response.
        truncated_fraction: share of responses that were cut off.
        problems: each problem's own result.
    """

    mean: float
    low: float
    high: float
    count: int
    num_errors: int
    pass_at: Mapping[int, float]
    length_mean: float
    truncated_fraction: float
    problems: tuple[ProblemResult, ...]


def evaluate(
    policy: Policy,
    sampler: Sampler,
    scorer: ResponseScorer,
    problems: Sequence[Problem],
    *,
    settings: SamplingSettings,
    num_samples: int,
    generator: torch.Generator,
) -> Evaluation:
    """Sample `num_samples` responses to each problem and scores them; temperature 0 is greedy and draws one.

    Raises:
        ValueError: there is no problem, or no response could be scored.
    """
    if not problems:
        raise ValueError("evaluate: no problems; the task has an empty held-out part")
    drawn = 1 if settings.temperature == 0 else num_samples
    prompts = [policy.render(problem.messages) for problem in problems]
    completions = sampler.sample(prompts, num_samples=drawn, settings=settings, generator=generator)
    asked = [problem for problem in problems for _ in range(drawn)]
    responses = [
        Response(
            text=policy.decode(answer.response_ids),
            num_tokens=len(answer.response_ids),
            finish_reason=answer.finish_reason,
        )
        for group in completions
        for answer in group
    ]
    return summarise_scores(problems, responses, scorer.score_many(asked, responses))


def summarise_scores(problems: Sequence[Problem], responses: Sequence[Response], scores: Sequence[Score]) -> Evaluation:
    """Return the evaluation of scored responses, those of one problem standing together."""
    per_problem = len(responses) // len(problems)
    results: list[ProblemResult] = []
    for number, problem in enumerate(problems):
        part = slice(number * per_problem, (number + 1) * per_problem)
        values = tuple(_value(score) for score in scores[part] if score.reward is not None)
        answers = tuple(response.text for response in responses[part])
        results.append(ProblemResult(problem_id=problem.problem_id, values=values, answers=answers))
    means = [statistics.fmean(result.values) for result in results if result.values]
    if not means:
        raise ValueError(f"evaluate: none of {len(responses)} responses could be scored; the first: {scores[0].reason}")
    low, high = bootstrap_interval(means)
    scored = [score for score in scores if score.reward is not None]
    has_verdicts = all(score.correct is not None for score in scored)
    return Evaluation(
        mean=statistics.fmean(means),
        low=low,
        high=high,
        count=len(scored),
        num_errors=len(scores) - len(scored),
        pass_at=_pass_at_powers_of_two(results) if has_verdicts else {},
        length_mean=statistics.fmean(response.num_tokens for response in responses),
        truncated_fraction=statistics.fmean(response.finish_reason == "length" for response in responses),
        problems=tuple(results),
    )


def _value(score: Score) -> float:
    assert score.reward is not None
    return score.reward if score.correct is None else float(score.correct)


def _pass_at_powers_of_two(results: Sequence[ProblemResult]) -> dict[int, float]:
    """Over the problems with at least k scored responses, for k = 1, 2, 4, … up to the most there are."""
    most = max(len(result.values) for result in results)
    estimates: dict[int, float] = {}
    for k in (2**power for power in range(most.bit_length())):
        enough = [result.values for result in results if len(result.values) >= k]
        estimates[k] = statistics.fmean(pass_at_k(len(values), round(sum(values)), k) for values in enough)
    return estimates


logger = logging.getLogger(__name__)


def evaluation_record(
    evaluation: Evaluation,
    problems: Sequence[Problem],
    *,
    when: When,
    progress: Progress,
    num_samples: int,
    greedy: float | None = None,
) -> EvaluationRecord:
    """Return the evaluation of these problems, as it is kept."""
    return EvaluationRecord(
        when=when,
        **asdict(progress),
        mean=evaluation.mean,
        low=evaluation.low,
        high=evaluation.high,
        count=evaluation.count,
        num_errors=evaluation.num_errors,
        num_samples=num_samples,
        is_accuracy=bool(evaluation.pass_at),
        pass_at={str(k): value for k, value in evaluation.pass_at.items()},
        greedy=greedy,
        length_mean=evaluation.length_mean,
        truncated_fraction=evaluation.truncated_fraction,
        problems=tuple(
            ProblemRecord(
                problem_id=result.problem_id,
                question=problem.messages[-1]["content"],
                values=result.values,
                answers=result.answers,
            )
            for problem, result in zip(problems, evaluation.problems, strict=True)
        ),
    )


def append_evaluation(path: Path, record: EvaluationRecord) -> None:
    """Add one line; a disk that refuses it is reported, and the run goes on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(json.dumps(asdict(record)).encode() + b"\n")
    except OSError as error:
        logger.error("the evaluation after step %d is NOT kept in %s: %s", record.step, path, error)


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """Read the records in the order they were made; none without a file. A last line cut short is left out."""
    if not path.exists():
        return []
    return [_record(json.loads(line)) for line in path.read_bytes().split(b"\n")[:-1]]


def forget_evaluations_behind(path: Path, step: int) -> None:
    """Remove what was recorded after this step, and what was measured after the end: the run goes on from there."""
    records = read_evaluations(path)
    kept = [
        record for record in records if record.when == "before" or (record.when == "during" and record.step <= step)
    ]
    if len(kept) == len(records):
        return
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(b"".join(json.dumps(asdict(record)).encode() + b"\n" for record in kept))
    aside.replace(path)


def _record(stored: dict[str, Any]) -> EvaluationRecord:
    problems = tuple(
        ProblemRecord(
            problem_id=problem["problem_id"],
            question=problem["question"],
            values=tuple(problem["values"]),
            answers=tuple(problem["answers"]),
        )
        for problem in stored.pop("problems")
    )
    return EvaluationRecord(**stored, problems=problems)
