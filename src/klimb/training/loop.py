"""The training loop: steps, records, checkpoints, evaluations, and an orderly end whatever happens."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from klimb.experience import Sample, write_samples
from klimb.losses import Loss
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem
from klimb.training.checkpoints import (
    CheckpointError,
    load_checkpoint,
    newest_checkpoint,
    newest_verified,
    remove_leftovers,
    save_checkpoint,
)
from klimb.training.collect import Actors, ScoresResponses
from klimb.training.evaluation import Evaluation, evaluate
from klimb.training.identity import run_identity
from klimb.training.iteration import Iteration, iterate
from klimb.training.locks import run_folder_lock
from klimb.training.logged import LoggedGroups, check_logs
from klimb.training.metrics_log import MetricsLog
from klimb.training.settings import LoopSettings, check_settings_fit
from klimb.training.signals import Interrupted, StopRequest
from klimb.training.state import RunState, captured, fresh_state, restore

logger = logging.getLogger(__name__)

OnStep = Callable[[Mapping[str, float], Sequence[Sample]], None]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        num_steps: loop steps done, those before a resume included.
        metrics: of the last step; empty when no step was left to do.
        checkpoint: the newest one; None when none was written.
    """

    num_steps: int
    metrics: Mapping[str, float]
    checkpoint: Path | None


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What stays the same while the run goes on."""

    actors: Actors
    objective: Loss
    settings: LoopSettings
    held_out: Sequence[Problem]
    logs: Sequence[LoggedGroups]
    folder: Path
    on_step: OnStep | None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def train(
    policy: Policy,
    sampler: Sampler,
    scorer: ScoresResponses,
    objective: Loss,
    *,
    problems: Sequence[Problem],
    settings: LoopSettings,
    folder: Path,
    held_out: Sequence[Problem] = (),
    logs: Sequence[LoggedGroups] = (),
    on_step: OnStep | None = None,
    prepare: Callable[[], None] | None = None,
    resume: bool = False,
) -> TrainResult:
    """Trains the policy in place and keeps the run in `folder`.

    There: `metrics.jsonl` (a line a step), `rollouts/step-XXXXXX.parquet` (all that was drawn), `checkpoints/`, and
    `skipped/` (batches of steps that were not finite). An interrupted and resumed run gives the parameters and
    metrics of an uninterrupted one bit for bit, on the same machine with as many threads; only metrics that end in
    `_seconds` or `tokens_per_second`, and `created_at` in the rollouts, tell the time.

    Args:
        policy: the model; it holds the averaged point x when this returns.
        sampler: draws from that policy.
        scorer: scores responses.
        objective: log-probabilities in, loss and metrics out.
        problems: what to train on.
        settings: all the rest.
        folder: of this run alone.
        held_out: what to evaluate on, as `settings.evaluation` says.
        logs: one for each of the sources `log` and `feedback` that has a share.
        on_step: sees each step's metrics and all its samples.
        prepare: changes the policy before the first step, e.g. clones behaviour; left out on resume.
        resume: go on from the newest checkpoint that verifies; from the beginning when there is none.

    Raises:
        Interrupted: a signal ended the run; its state is saved.
        CheckpointError: the folder holds another run, or the last state could not be saved.
        NonFiniteError: too many steps in a row were not finite.
        RunFolderInUse: another process trains in this folder.
    """
    check_settings_fit(settings, objective, has_held_out=bool(held_out))
    actors = Actors(policy=policy, sampler=sampler, scorer=scorer, problems=problems)
    check_logs(logs, settings.sources, needs_log_mu=objective.needs_log_mu)
    run = _Run(
        actors=actors,
        objective=objective,
        settings=settings,
        held_out=held_out,
        logs=logs,
        folder=folder,
        on_step=on_step,
    )
    with run_folder_lock(folder), StopRequest() as stop:
        state, log = _begun(run, prepare=prepare, resume=resume)
        try:
            return _loop(run, state, log, stop)
        finally:
            log.close()


def _begun(run: _Run, *, prepare: Callable[[], None] | None, resume: bool) -> tuple[RunState, MetricsLog]:
    """The state to start from, with everything in the folder that lies behind it removed."""
    policy, settings = run.actors.policy, run.settings
    metrics_path = run.folder / "metrics.jsonl"
    if not resume and (run.checkpoints.exists() or metrics_path.exists()):
        raise CheckpointError(f"{run.folder} holds a run already; resume it, or choose another folder")
    remove_leftovers(run.checkpoints)
    checkpoint = _checkpoint_to_resume(run.checkpoints)
    if checkpoint is None and prepare is not None:
        prepare()
    identity = run_identity(settings, run.objective, policy, run.actors.problems, logs=run.logs)
    state = fresh_state(
        policy,
        settings,
        num_problems=len(run.actors.problems),
        folder=run.folder,
        identity=identity,
        logs=run.logs,
    )
    keep_bytes = 0 if checkpoint is None else restore(state, load_checkpoint(checkpoint))
    _remove_behind(run.folder, state.step)
    return state, MetricsLog(metrics_path, keep_bytes=keep_bytes)


def _checkpoint_to_resume(folder: Path) -> Path | None:
    """The newest that verifies; damaged newer ones are put aside, so that they do not count among those kept."""
    checkpoint = newest_verified(folder)
    if checkpoint is None and newest_checkpoint(folder) is not None:
        raise CheckpointError(
            f"none of the checkpoints in {folder} is undamaged, so there is nothing to resume; restore one from a "
            "copy, or begin a new run in another folder"
        )
    while checkpoint is not None and (newest := newest_checkpoint(folder)) not in (None, checkpoint):
        newest.rename(newest.with_name(f"damaged-{newest.name}"))
    return checkpoint


def _remove_behind(folder: Path, step: int) -> None:
    """Removes what was recorded after the checkpoint; it will be recorded again."""
    for name in ("rollouts", "skipped"):
        for path in sorted((folder / name).glob("step-*.parquet")):
            if int(path.stem.split("-")[1]) > step:
                path.unlink()


def _loop(run: _Run, state: RunState, log: MetricsLog, stop: StopRequest) -> TrainResult:
    settings = run.settings
    deadline = time.monotonic() + settings.max_seconds
    metrics: Mapping[str, float] = {}
    saved_at = state.step
    checkpoint = newest_checkpoint(run.checkpoints)
    is_over = not _goes_on(state, settings, deadline)
    while not is_over and stop.signal_number is None:
        metrics = _recorded(run, state, log, iterate(state, run.actors, run.objective, settings))
        is_over = not _goes_on(state, settings, deadline)
        # Due at its time, and after a save that failed at every step until one succeeds.
        is_due = state.step // settings.checkpoints.every_steps > saved_at // settings.checkpoints.every_steps
        if is_due or (is_over and settings.checkpoints.at_end) or stop.signal_number is not None:
            path = _saved(run, state, log)
            checkpoint, saved_at = (checkpoint, saved_at) if path is None else (path, state.step)
    if stop.signal_number is not None:
        raise _interruption(run, state, stop.signal_number, is_saved=saved_at == state.step)
    if settings.checkpoints.at_end and saved_at < state.step:
        raise CheckpointError(
            f"training ended and its last state could not be saved in {run.checkpoints}; the error logged above says "
            "why. Free the disk and resume: the work since the newest checkpoint is done again"
        )
    return TrainResult(state.step, metrics, checkpoint)


def _goes_on(state: RunState, settings: LoopSettings, deadline: float) -> bool:
    return state.step < settings.num_steps and time.monotonic() < deadline


def _recorded(run: _Run, state: RunState, log: MetricsLog, iteration: Iteration) -> Mapping[str, float]:
    metrics = dict(iteration.metrics)
    every = run.settings.evaluation.every_steps
    if every and state.step % every == 0:
        started = time.monotonic()
        metrics |= evaluation_metrics(_evaluation(run))
        metrics["evaluation_seconds"] = time.monotonic() - started
    if run.settings.save_rollouts and iteration.samples:
        _keep_rollouts(run.folder / "rollouts", state.step, iteration.samples)
    log.write(metrics)
    if run.on_step is not None:
        run.on_step(metrics, iteration.samples)
    return metrics


def _keep_rollouts(folder: Path, step: int, samples: Sequence[Sample]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step-{step:06d}.parquet", samples)
    except OSError as error:
        logger.error("the rollouts of step %d are NOT kept: %s", step, error)


def _evaluation(run: _Run) -> Evaluation:
    settings = run.settings.evaluation
    return evaluate(
        run.actors.policy,
        run.actors.sampler,
        run.actors.scorer,
        run.held_out,
        settings=settings.sampling,
        num_samples=settings.num_samples,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The evaluation as metrics of a step."""
    return {
        "evaluation_mean": evaluation.mean,
        "evaluation_low": evaluation.low,
        "evaluation_high": evaluation.high,
        "evaluation_num_errors": float(evaluation.num_errors),
        **{f"evaluation_pass_at_{k}": value for k, value in evaluation.pass_at.items()},
    }


def _saved(run: _Run, state: RunState, log: MetricsLog) -> Path | None:
    """Saves the state; None, with a loud message, when the disk refuses. Training goes on then."""
    try:
        content = captured(state, metrics_bytes=log.flush_to_disk())
        return save_checkpoint(run.checkpoints, state.step, content, keep=run.settings.checkpoints.keep)
    except OSError as error:
        logger.error(
            "the checkpoint of step %d is NOT saved: %s. Training goes on and tries again after the next step; "
            "a crash now loses the work since the newest checkpoint",
            state.step,
            error,
        )
        return None


def _interruption(run: _Run, state: RunState, signal_number: int, *, is_saved: bool) -> Interrupted:
    kept = f"saved after step {state.step}" if is_saved else f"NOT saved after step {state.step}"
    return Interrupted(f"stopped by a signal; {kept}; resume {run.folder} to go on", signal_number=signal_number)
