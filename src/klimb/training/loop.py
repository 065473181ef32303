"""The training loop: steps, metrics, checkpoints, evaluations, and an orderly end whatever happens.

SIGTERM, SIGINT and SIGHUP are requests: the step is finished and saved, then the loop ends. The second one ends the
process. An error of any kind ends it with the last complete step saved, and with the reason in the run's folder.
"""

import logging
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from klimb.divergences.names import SlopeAtReference
from klimb.errors import Interrupted
from klimb.experience import Sample, SamplingSettings
from klimb.findings.evaluations import BestPoint, EvaluationRecord, Progress
from klimb.findings.run.ending import say_what_is_saved
from klimb.losses import Corrected, Loss, Objective, slope_at_reference
from klimb.losses.settings import KtoSettings, PairwiseSettings
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import Problem
from klimb.training.best import find_best
from klimb.training.callbacks import Callbacks, RunningRun
from klimb.training.checkpoints import (
    CheckpointContent,
    CheckpointError,
    load_checkpoint,
    newest_checkpoint,
    newest_verified,
    remove_leftovers,
    save_checkpoint,
    step_of,
)
from klimb.training.clock import RunClock
from klimb.training.dialogues import Talks
from klimb.training.endings import ending_from, forget_ending, record_ending
from klimb.training.evaluation import NothingScored, append_evaluation, evaluate, forget_evaluations_behind
from klimb.training.guard.base_metrics import MeasuresBase
from klimb.training.guard_steps import (
    guard_end,
    guard_ending,
    guard_start,
    guard_step,
    is_good_point,
    new_guard,
    seconds_of_end,
)
from klimb.training.identity import (
    check_same_run,
    environment,
    keep_history,
    note_saved,
    run_identity,
    settle_identity,
    warn_of_changes,
    with_new_settings,
)
from klimb.training.iteration import Iteration, iterate, keep_rollouts
from klimb.training.late_writes import LateWrites
from klimb.training.locks import run_folder_lock
from klimb.training.metrics import MetricsLog
from klimb.training.repair import check_may_begin_again, mend_folder, mend_metrics, remove_behind, tell_lost_evaluations
from klimb.training.rescue import NothingToSave
from klimb.training.response_scorer import ResponseScorer
from klimb.training.rollouts import RolloutWorker
from klimb.training.run_format import RUN_FORMAT
from klimb.training.settings import EvaluationSettings, LoopSettings, check_evaluation_fits, check_loss_fits
from klimb.training.signals import StopRequest
from klimb.training.sources.offline import OfflineSource, check_logs
from klimb.training.state import RunState, capture, fresh_state, restore
from klimb.training.temperature import find_temperature
from klimb.training.unusable import check_usable
from klimb.training.watches import ROLLED_BACK

logger = logging.getLogger(__name__)


def evaluation_is_due(settings: EvaluationSettings, *, since: Progress, now: Progress) -> bool:
    """Whether the step that led from one to the other passed a multiple of one of the intervals."""
    passed = (
        (settings.every_steps, since.step, now.step),
        (settings.every_tokens, since.num_tokens_generated, now.num_tokens_generated),
        (settings.every_seconds, since.elapsed_seconds, now.elapsed_seconds),
    )
    return any(interval and after // interval > before // interval for interval, before, after in passed)


def evaluate_and_record(
    actors: RolloutWorker,
    held_out: Sequence[Problem],
    settings: LoopSettings,
    *,
    progress: Progress,
    path: Path,
    writes: LateWrites,
    made: list[EvaluationRecord] | None = None,
) -> dict[str, float]:
    """Evaluate, appends the record to the file and to those that are `made`, and returns what is logged of it.

    Where no response could be scored there is no record; that is counted, said, and ends no run.
    """
    started = time.monotonic()
    num_samples = settings.evaluation.num_samples
    sampling = settings.sampling
    try:
        evaluation = evaluate(
            actors.policy,
            actors.sampler,
            actors.scorer,
            held_out,
            settings=SamplingSettings(
                temperature=actors.policy.temperature, max_new_tokens=sampling.max_new_tokens, stop=sampling.stop
            ),
            num_samples=num_samples,
            generator=torch.Generator().manual_seed(settings.evaluation.seed),
            progress=progress,
            dialogues=actors.dialogues,
        )
    except NothingScored as error:
        logger.warning("step %d: %s", progress.step, error)
        return {
            "evaluation_num_errors": float(len(held_out) * num_samples),
            "evaluation_num_problems_unscored": float(len(held_out)),
            "evaluation_seconds": time.monotonic() - started,
        }
    writes.do(f"the evaluation after step {progress.step} is", lambda: append_evaluation(path, evaluation))
    if made is not None:
        made.append(evaluation)
    return evaluation_metrics(evaluation) | {"evaluation_seconds": time.monotonic() - started}


def evaluation_metrics(evaluation: EvaluationRecord) -> dict[str, float]:
    """Return the evaluation as metrics of a step."""
    made = evaluation.interval
    return {
        "evaluation_mean": evaluation.mean,
        **({"evaluation_low": made.low, "evaluation_high": made.high} if made.is_known else {}),
        "evaluation_num_errors": float(evaluation.num_errors),
        "evaluation_num_problems_unscored": float(evaluation.num_problems_unscored),
        **{f"evaluation_pass_at_{k}": value for k, value in evaluation.pass_at.items()},
    }


OnStep = Callable[[Mapping[str, float], Sequence[Sample]], None]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        num_steps: loop steps done, those before a resume included.
        progress: the same with tokens and seconds.
        metrics: of the last step; empty when no step was left to do.
        checkpoint: the newest one; None when none was written.
        ending: why the guard, early stopping or a callback ended it, in words; empty when none did.
        save: save the state after the last step; there for a run that ended without a checkpoint of it.
        best: the best point by `checkpoints.best_metric`; None where none is watched.
    """

    num_steps: int
    progress: Progress
    metrics: Mapping[str, float]
    checkpoint: Path | None
    ending: str = ""
    save: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    best: BestPoint | None = None

    @property
    def model_progress(self) -> Progress:
        """Where the run stood at the policy that it leaves."""
        return self.best.progress if self.best is not None and self.best.is_model else self.progress

    @contextmanager
    def saved_if_it_fails(self) -> Generator[None]:
        """Save the last step if the block, which is what comes after training, fails."""
        try:
            yield
        except BaseException:
            if self.save is not None:
                self.save()
            raise


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What stays the same while the run goes on."""

    actors: RolloutWorker
    objective: Loss
    settings: LoopSettings
    held_out: Sequence[Problem]
    logs: Sequence[OfflineSource]
    folder: Path
    on_step: OnStep | None
    base_metrics: MeasuresBase | None
    clock: RunClock = field(default_factory=RunClock)
    callbacks: Callbacks = field(default_factory=Callbacks)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def train(
    policy: Policy,
    sampler: Sampler,
    scorer: ResponseScorer,
    objective: Loss,
    *,
    problems: Sequence[Problem],
    settings: LoopSettings,
    folder: Path,
    held_out: Sequence[Problem] = (),
    logs: Sequence[OfflineSource] = (),
    on_step: OnStep | None = None,
    callbacks: Sequence[object] = (),
    base_metrics: MeasuresBase | None = None,
    prepare: Callable[[], None] | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    clock: RunClock | None = None,
    are_problems_checked: bool = False,
    dialogues: Talks | None = None,
) -> TrainResult:
    """Trains the policy in place, at the temperature that the settings give it, and keeps the run in `folder`.

    There: `metrics.jsonl` (a line a step), `evaluations.jsonl` (a line an evaluation, with every problem),
    `rollouts/step-XXXXXX.parquet` (all that was drawn), `checkpoints/`, and `skipped/` (batches of steps that were not
    finite). An interrupted and resumed run gives the parameters and
    metrics of an uninterrupted one bit for bit, on the same machine with as many threads; only metrics that end in
    `_seconds` or `tokens_per_second`, and `created_at` and the turns' `seconds` in the rollouts, tell the time.

    Args:
        policy: the model; it holds the averaged point x when this returns.
        sampler: draws from that policy.
        scorer: scores responses.
        objective: log-probabilities in, loss and metrics out.
        problems: what to train on; may be empty if the sources have no share of rollouts.
        settings: all the rest.
        folder: of this run alone.
        held_out: what to evaluate on, as `settings.evaluation` says.
        logs: one for each of the sources `log` and `feedback` that has a share.
        on_step: sees each step's metrics and all its samples.
        callbacks: of the user's own, with methods of `klimb.training.Callback`.
        base_metrics: measures what `settings.guard` watches.
        prepare: changes the policy before the first step, e.g. clones behaviour; left out on resume.
        resume: go on from the newest checkpoint that verifies; from the beginning when there is none.
        identity: what `run_identity` says of this run, where the caller has asked it, with the configuration that all
            of this was made from; None asks it of the arguments.
        clock: of the run, where this process began to work for it before this call; `settings.training.max_seconds`
            is told by it.
        are_problems_checked: the caller has left out the problems that the policy cannot be asked.
        dialogues: the policy with the environments that it talks to, as `settings.environment` says; running.

    Raises:
        ValueError: the policy cannot be asked a problem: it leaves no room for an answer, or the chat template refuses
            it.
        Interrupted: a signal ended the run; its state is saved.
        CheckpointError: the folder holds another run, or the last state could not be saved.
        NonFiniteError: too many steps in a row were not finite.
        Exception: whatever a step raised. The last complete step is saved, `ending.json` and `traceback.txt` in the
            folder say why it ended, and a note on the error says how to go on.
        RunFolderInUse: another process trains in this folder.
    """
    check_loss_fits(settings, *_find_slope(objective))
    check_evaluation_fits(settings, has_held_out=bool(held_out), has_base_metrics=base_metrics is not None)
    actors = RolloutWorker(policy=policy, sampler=sampler, scorer=scorer, problems=problems, dialogues=dialogues)
    check_logs(
        logs,
        settings.sources,
        needs_log_mu=objective.needs_log_mu,
        advantages=settings.advantages.kind,
        num_prompts=settings.sampling.num_prompts,
        rewards=settings.rewards,
        needs_both_sides=isinstance(objective, KtoSettings),
        needs_pairs=isinstance(objective, PairwiseSettings),
    )
    policy.temperature = find_temperature(settings, logs, needs_log_mu=objective.needs_log_mu)
    if not are_problems_checked:
        asked = (*(problems if settings.sources.share("rollout") else ()), *held_out)
        check_usable(policy, asked, max_new_tokens=settings.sampling.max_new_tokens)
    run = _Run(
        actors=actors,
        objective=objective,
        settings=settings,
        held_out=held_out,
        logs=logs,
        folder=folder,
        on_step=on_step,
        base_metrics=base_metrics,
        clock=clock or RunClock(),
        callbacks=Callbacks(callbacks, RunningRun(folder=folder, policy=policy, num_steps=settings.training.num_steps)),
    )
    with run_folder_lock(folder), StopRequest() as stop:
        state, log = _start_or_resume(run, identity or _identity_of(run), prepare=prepare, resume=resume)
        forget_ending(folder)
        try:
            result = _loop(run, state, log, stop)
        except BaseException as error:
            _end(run, state, log, error)
            raise
        finally:
            state.writes.close()
            log.close()
    if stop.signal_number is not None:  # it came after the last step was saved: it is for whoever comes next
        signal.raise_signal(stop.signal_number)
    return result


def _find_slope(objective: Loss) -> tuple[Loss, SlopeAtReference | None]:
    """Return the loss without a correction, and the slope of its divergence where π = ref = μ if it has one."""
    inner = objective.objective if isinstance(objective, Corrected) else objective
    if not isinstance(inner, Objective):
        return inner, None
    assert not isinstance(inner.divergence, str)
    return inner, slope_at_reference(inner.divergence)


def _identity_of(run: _Run) -> dict[str, Any]:
    actors = run.actors
    return run_identity(
        run.settings,
        run.objective,
        actors.policy,
        actors.problems,
        held_out=run.held_out,
        logs=run.logs,
        scorer=actors.scorer,
    )


def _start_or_resume(
    run: _Run, identity: Mapping[str, Any], *, prepare: Callable[[], None] | None, resume: bool
) -> tuple[RunState, MetricsLog]:
    """Return the state to start from, with everything in the folder that lies behind it removed."""
    policy, settings = run.actors.policy, run.settings
    metrics_path = run.folder / "metrics.jsonl"
    if not resume and (run.checkpoints.exists() or metrics_path.exists()):
        raise CheckpointError(f"{run.folder} holds a run already; resume it, or choose another folder")
    if resume:
        mend_folder(run.folder)
    remove_leftovers(run.checkpoints)
    checkpoint = _checkpoint_to_resume(run.checkpoints)
    content = None if checkpoint is None else load_checkpoint(checkpoint)
    _check_identity(run, identity, content)
    if content is None:
        check_may_begin_again(run.folder, every_steps=settings.checkpoints.every_steps)
    quality = new_guard(settings, run.base_metrics, content, num_problems=len(run.actors.problems))
    if content is None and prepare is not None:
        prepare()
    state = fresh_state(
        policy,
        settings,
        num_problems=len(run.actors.problems),
        folder=run.folder,
        identity=identity,
        logs=run.logs,
        quality=quality,
        clock=run.clock,
    )
    keep_bytes = 0 if content is None else restore(state, content)
    remove_behind(run.folder, state.step)
    forget_evaluations_behind(run.folder / "evaluations.jsonl", state.step)
    keep_bytes = mend_metrics(metrics_path, step=state.step, keep_bytes=keep_bytes)
    tell_lost_evaluations(run.folder, step=state.step)
    guard_start(state, is_new=content is None, is_prepared=prepare is not None)
    return state, MetricsLog(metrics_path, keep_bytes=keep_bytes)


def _check_identity(run: _Run, identity: Mapping[str, Any], content: CheckpointContent | None) -> None:
    """Return if what is in the folder is of this very run; what may change and did is kept in its history."""
    if content is None:
        settle_identity(run.folder, identity)
        return
    saved = {name: content.numbers[name] for name in ("identity", "environment")}
    if content.written_format < RUN_FORMAT:
        saved["identity"] = with_new_settings(saved["identity"], identity)
    check_same_run(saved["identity"], identity)
    settle_identity(run.folder, identity)
    present = {"identity": identity, "environment": environment(run.actors.policy)}
    warn_of_changes(saved, present)
    keep_history(run.folder, step=int(content.numbers["step"]), saved=saved, present=present)


def _checkpoint_to_resume(folder: Path) -> Path | None:
    """Return the newest that verifies; damaged newer ones are put aside, so that they do not count among those kept."""
    checkpoint = newest_verified(folder)
    if checkpoint is None and newest_checkpoint(folder) is not None:
        raise CheckpointError(
            f"none of the checkpoints in {folder} is undamaged, so there is nothing to resume; restore one from a "
            f"copy, or begin the run anew with klimb train --resume {folder.parent} --restart"
        )
    while checkpoint is not None and (newest := newest_checkpoint(folder)) not in (None, checkpoint):
        newest.rename(newest.with_name(f"damaged-{newest.name}"))
    return checkpoint


def _loop(run: _Run, state: RunState, log: MetricsLog, stop: StopRequest) -> TrainResult:
    settings, every = run.settings, run.settings.checkpoints.every_steps
    metrics: Mapping[str, float] = {}
    saved_at = state.step
    checkpoint = newest_checkpoint(run.checkpoints)
    run.callbacks.at_step(state.step)
    run.callbacks.call("on_start")
    is_over = not _goes_on(run, state)
    if not is_over and checkpoint is None and is_good_point(state):
        checkpoint = _save(run, state, log)
    _keep(state, log)
    if is_over and guard_end(state) and settings.checkpoints.at_end:  # an error came before it in the process before
        checkpoint = _save(run, state, log) or checkpoint
    while not is_over and stop.signal_number is None:
        began = _progress(state)
        iteration = iterate(state, run.actors, run.objective, settings)
        is_evaluated = evaluation_is_due(settings.evaluation, since=began, now=_progress(state))
        metrics = _record_step(run, state, log, iteration, is_evaluated=is_evaluated)
        is_over = not _goes_on(run, state)
        if is_over and ROLLED_BACK in guard_end(state):
            state.watches.forget(state.step)  # what ended it came after its numbers were written
        # Due at its time, and after a save that failed at every step until one succeeds.
        is_due = state.step // every > saved_at // every or is_good_point(state) or state.watches.is_best(state.step)
        if is_due or (is_over and settings.checkpoints.at_end) or stop.signal_number is not None:
            path = _save(run, state, log)
            checkpoint, saved_at = (checkpoint, saved_at) if path is None else (path, state.step)
    if stop.signal_number is not None:
        raise _interruption(run, state, stop.signal_number, is_saved=saved_at == state.step)
    if settings.checkpoints.at_end and saved_at < state.step:
        raise CheckpointError(
            f"training ended and its last state could not be saved in {run.checkpoints}; the error logged above says "
            "why. Free the disk and resume: the work since the newest checkpoint is done again"
        )
    _keep(state, log)
    run.callbacks.call("on_end", metrics)
    save = partial(_save_after, run, state) if saved_at < state.step else None
    if save is not None and settings.checkpoints.model == "best":
        state.rescue.hold()  # the policy is put to its best point now
    best = find_best(state, settings.checkpoints)
    ending = guard_ending(state) or state.watches.ending or run.callbacks.ending
    return TrainResult(state.step, _progress(state), metrics, checkpoint, ending, save, best)


def _goes_on(run: _Run, state: RunState) -> bool:
    settings = run.settings
    return (
        state.step < settings.training.num_steps
        and state.num_tokens_generated < settings.training.max_generated_tokens
        and state.elapsed_seconds < settings.training.max_training_seconds
        and state.clock.seconds() + seconds_of_end(state) < settings.training.max_seconds
        and not guard_ending(state)
        and not run.callbacks.ending
        and not state.watches.ending
    )


def _progress(state: RunState) -> Progress:
    return Progress(
        step=state.step, num_tokens_generated=state.num_tokens_generated, elapsed_seconds=state.elapsed_seconds
    )


def _record_step(
    run: _Run, state: RunState, log: MetricsLog, iteration: Iteration, *, is_evaluated: bool
) -> Mapping[str, float]:
    metrics = dict(iteration.metrics)
    made: list[EvaluationRecord] = []
    if is_evaluated:
        path = run.folder / "evaluations.jsonl"
        metrics |= evaluate_and_record(
            run.actors,
            run.held_out,
            run.settings,
            progress=_progress(state),
            path=path,
            writes=state.writes,
            made=made,
        )
    _write_rollouts(run, state, iteration)
    # Last, since it may put another policy in the place of the one that the numbers above are of.
    metrics |= guard_step(state, iteration.samples)
    metrics |= _rolled_back_at_the_end(run, state, metrics)
    state.watches.observe(state.step, metrics)
    log.write(metrics)
    _keep(state, log)
    if run.on_step is not None:
        run.on_step(metrics, iteration.samples)
    run.callbacks.at_step(state.step, iteration.advantages)
    for record in made:
        run.callbacks.call("on_evaluation", record)
    run.callbacks.call("on_step", metrics, iteration.samples)
    return metrics


def _rolled_back_at_the_end(run: _Run, state: RunState, metrics: Mapping[str, float]) -> dict[str, float]:
    """Let the guard look at what seems to be the last step before it is taken note of; return where it went back to.

    A step that is rolled back is no observation, so that the run may have to go on.
    """
    if _goes_on(run, state) and not state.watches.end_with(state.step, metrics):
        return {}
    return {name: value for name, value in guard_end(state).items() if name == ROLLED_BACK}


def _write_rollouts(run: _Run, state: RunState, iteration: Iteration) -> None:
    """Write what the step drew; where it may be trained on again, no checkpoint is saved before it is on the disk."""
    settings, step = run.settings, state.step
    if settings.save_rollouts and iteration.samples:
        state.writes.do(
            f"the rollouts of step {step} are",
            lambda: keep_rollouts(run.folder / "rollouts", step, iteration.samples),
            is_needed=not settings.is_fresh,
        )


def _save(run: _Run, state: RunState, log: MetricsLog) -> Path | None:
    """Save the state; None, with a loud message, when the disk refuses. Training goes on then."""
    try:
        state.writes.catch_up()
        content = capture(state, metrics_bytes=log.flush_to_disk())
        spare = {*state.watches.steps_to_keep, *(() if state.quality is None else state.quality.protected)}
        path = save_checkpoint(run.checkpoints, state.step, content, keep=run.settings.checkpoints.keep, spare=spare)
        note_saved(run.folder)
    except OSError as error:
        state.watches.forget(state.step)
        if state.quality is not None:
            state.quality.forget(state.step)
        logger.error(
            "the checkpoint of step %d is NOT saved: %s. Training goes on and tries again after the next step; "
            "a crash now loses the work since the newest checkpoint",
            state.step,
            error,
        )
        return None
    run.callbacks.call("on_checkpoint", path)
    return path


def _interruption(run: _Run, state: RunState, signal_number: int, *, is_saved: bool) -> Interrupted:
    kept = f"saved after step {state.step}" if is_saved else f"NOT saved after step {state.step}"
    return Interrupted(f"stopped by a signal; {kept}; resume {run.folder} to go on", signal_number=signal_number)


def _keep(state: RunState, log: MetricsLog) -> None:
    """Take the state as the last complete step, to be saved if the next one fails."""
    state.rescue.keep(capture(state, metrics_bytes=log.num_bytes()))


def _end(run: _Run, state: RunState, log: MetricsLog, error: BaseException) -> None:
    """Save the last complete step, unless it is, and write down how the run ended."""
    why_not_saved = "" if isinstance(error, Interrupted) else _rescue(run, state, log)
    newest = newest_checkpoint(run.checkpoints)
    resumes_from = 0 if newest is None else step_of(newest)
    step = state.step if state.rescue.step is None else state.rescue.step
    ending = ending_from(error, during="training", step=step, resumes_from=resumes_from, why_not_saved=why_not_saved)
    record_ending(run.folder, ending, error)
    if not isinstance(error, Interrupted):
        error.add_note(f"{say_what_is_saved(ending)}; resume {run.folder} to go on")


def _save_after(run: _Run, state: RunState) -> None:
    with run_folder_lock(run.folder):
        why_not_saved = _rescue(run, state)
    if why_not_saved:
        logger.error("step %d is %s", state.step, why_not_saved)


def _rescue(run: _Run, state: RunState, log: MetricsLog | None = None) -> str:
    """Save the last complete step unless its checkpoint is there; return why it is not saved, else nothing."""
    newest = newest_checkpoint(run.checkpoints)
    if newest is not None and step_of(newest) == state.rescue.step:
        return ""
    if state.reference.is_torn:
        state.rescue.lose("the reference was being moved")
    try:
        content = state.rescue.content()
        state.writes.catch_up()
        if log is not None:
            log.flush_to_disk()
        spare = () if state.quality is None else state.quality.protected
        step, keep = int(content.numbers["step"]), run.settings.checkpoints.keep
        save_checkpoint(run.checkpoints, step, content, keep=keep, spare=spare)
    except NothingToSave as reason:
        return f"not saved: {reason}"
    except Exception as error:  # whatever it is, the first error is the one to be told
        return f"not saved: {type(error).__name__}: {error}"
    return ""
