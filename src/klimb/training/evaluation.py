"""How good a policy is on given problems: mean over k samples with an interval, and pass@k without bias."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from klimb.experience import SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Response, Score
from klimb.training.drawing import ScoresResponses

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


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
    scorer: ScoresResponses,
    problems: Sequence[Problem],
    *,
    settings: SamplingSettings,
    num_samples: int,
    generator: torch.Generator,
) -> Evaluation:
    """Samples `num_samples` responses to each problem and scores them; temperature 0 is greedy and draws one.

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
    return summarised(problems, responses, scorer.score_many(asked, responses))


def summarised(problems: Sequence[Problem], responses: Sequence[Response], scores: Sequence[Score]) -> Evaluation:
    """The evaluation of scored responses, those of one problem standing together."""
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
    values = torch.tensor(means, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values), (num_resamples, len(values)), generator=generator)
    tail = (1 - CONFIDENCE) / 2
    bounds = values[picks].mean(dim=1).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return float(bounds[0]), float(bounds[1])


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
