"""How the policy does on problems it has never trained on, sampled and greedy, as a record that can be stored."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from klimb.experience import SamplingSettings
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Scorer
from klimb.training import Evaluation, bootstrap_interval, evaluate, pass_at_k
from klimb.workbench.config import RunConfig
from klimb.workbench.runs import write_json

NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One problem, the first answer sampled to it, and what that was worth (None: not known)."""

    question: str
    answer: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One evaluation.

    Attributes:
        mean: Mean@k at temperature 1: accuracy where the task says what is correct, else mean reward.
        low: lower end of its 95 % interval.
        high: upper end.
        count: samples scored.
        num_problems: problems asked.
        num_samples: samples per problem.
        num_errors: samples that could not be scored; in no mean.
        is_accuracy: whether the task says what is correct.
        pass_at: k -> probability that one of k samples is correct.
        pass_intervals: k -> its 95 % interval.
        greedy: the same mean with the likeliest tokens; None if not asked for.
        length_mean: tokens per sample.
        answers: of the first few problems.
        seconds: what the evaluation took.
    """

    mean: float
    low: float
    high: float
    count: int
    num_problems: int
    num_samples: int
    num_errors: int
    is_accuracy: bool
    pass_at: Mapping[str, float]
    pass_intervals: Mapping[str, tuple[float, float]]
    greedy: float | None
    length_mean: float
    answers: tuple[Answered, ...]
    seconds: float


class Measurement(NamedTuple):
    """One evaluation in short, and what came of every problem."""

    measured: Measured
    sampled: Evaluation


def measure(
    policy: Policy, sampler: Sampler, scorer: Scorer, problems: Sequence[Problem], config: RunConfig
) -> Measurement:
    """Answers the problems as the configuration's evaluation section says.

    Raises:
        ValueError: there are no problems, or no answer could be scored.
    """
    started = time.monotonic()
    section, longest = config.evaluation, config.sampling.max_new_tokens

    def at(temperature: float) -> Evaluation:
        return evaluate(
            policy,
            sampler,
            scorer,
            problems,
            settings=SamplingSettings(temperature=temperature, max_new_tokens=longest),
            num_samples=section.num_samples,
            generator=torch.Generator().manual_seed(section.seed),
        )

    sampled = at(1.0)
    greedy = at(0.0) if section.greedy else None
    measured = Measured(
        mean=sampled.mean,
        low=sampled.low,
        high=sampled.high,
        count=sampled.count,
        num_problems=len(problems),
        num_samples=section.num_samples,
        num_errors=sampled.num_errors,
        is_accuracy=bool(sampled.pass_at),
        pass_at={str(k): value for k, value in sampled.pass_at.items()},
        pass_intervals={str(k): _pass_interval(sampled, k) for k in sampled.pass_at},
        greedy=None if greedy is None else greedy.mean,
        length_mean=sampled.length_mean,
        answers=_shown(problems, sampled),
        seconds=time.monotonic() - started,
    )
    return Measurement(measured, sampled)


def _pass_interval(evaluation: Evaluation, k: int) -> tuple[float, float]:
    enough = [problem.values for problem in evaluation.problems if len(problem.values) >= k]
    return bootstrap_interval([pass_at_k(len(values), round(sum(values)), k) for values in enough])


def save_measured(path: Path, measured: Measured) -> None:
    """Writes it as JSON, for a run that is resumed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(measured))


def read_measured(path: Path) -> Measured:
    """What `save_measured` wrote."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    answers = tuple(Answered(**answer) for answer in stored.pop("answers"))
    return Measured(answers=answers, **stored)


def _shown(problems: Sequence[Problem], evaluation: Evaluation) -> tuple[Answered, ...]:
    return tuple(
        Answered(
            question=problem.messages[-1]["content"],
            answer=result.answers[0],
            value=result.values[0] if len(result.values) == len(result.answers) else None,
        )
        for problem, result in zip(problems[:NUM_SHOWN], evaluation.problems[:NUM_SHOWN], strict=True)
    )
