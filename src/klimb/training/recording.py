"""What a step leaves behind in the run's folder besides its line of metrics: its rollouts, and its evaluation."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from klimb.experience import Sample, write_samples
from klimb.tasks import Problem
from klimb.training.drawing import Actors
from klimb.training.evaluation import Evaluation, evaluate
from klimb.training.evaluations_log import Progress, append_evaluation, evaluation_record
from klimb.training.settings import EvaluationSettings

logger = logging.getLogger(__name__)


def evaluation_is_due(settings: EvaluationSettings, *, since: Progress, now: Progress) -> bool:
    """Whether the step that led from one to the other passed a multiple of one of the intervals."""
    passed = (
        (settings.every_steps, since.step, now.step),
        (settings.every_tokens, since.num_tokens_generated, now.num_tokens_generated),
        (settings.every_seconds, since.elapsed_seconds, now.elapsed_seconds),
    )
    return any(interval and after // interval > before // interval for interval, before, after in passed)


def evaluated(
    actors: Actors, held_out: Sequence[Problem], settings: EvaluationSettings, *, progress: Progress, path: Path
) -> dict[str, float]:
    """Evaluates, appends the record to the file, and returns what is logged of it."""
    started = time.monotonic()
    evaluation = evaluate(
        actors.policy,
        actors.sampler,
        actors.scorer,
        held_out,
        settings=settings.sampling,
        num_samples=settings.num_samples,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    record = evaluation_record(evaluation, held_out, when="during", progress=progress, num_samples=settings.num_samples)
    append_evaluation(path, record)
    return evaluation_metrics(evaluation) | {"evaluation_seconds": time.monotonic() - started}


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The evaluation as metrics of a step."""
    return {
        "evaluation_mean": evaluation.mean,
        "evaluation_low": evaluation.low,
        "evaluation_high": evaluation.high,
        "evaluation_num_errors": float(evaluation.num_errors),
        **{f"evaluation_pass_at_{k}": value for k, value in evaluation.pass_at.items()},
    }


def keep_rollouts(folder: Path, step: int, samples: Sequence[Sample]) -> None:
    """Writes what the step drew; a disk that refuses it is reported, and the run goes on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step-{step:06d}.parquet", samples)
    except OSError as error:
        logger.error("the rollouts of step %d are NOT kept: %s", step, error)
