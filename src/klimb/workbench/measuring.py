"""How the policy does on problems it has never trained on, sampled and greedy, as a record that can be stored."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from klimb.experience import SamplingSettings
from klimb.findings.evaluations import Answered, Measured, bootstrap_interval, pass_at_k
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem, Scorer
from klimb.training import Evaluation, evaluate
from klimb.training.run_folder import write_json
from klimb.workbench.config import RunConfig

NUM_SHOWN = 3


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
    """Write it as JSON, for a run that is resumed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(measured))


def read_measured(path: Path) -> Measured:
    """Return what `save_measured` wrote."""
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
