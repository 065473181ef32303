"""A run from beginning to end: evaluate, train, save, evaluate again, plot, sum up; a view shows what goes on."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from klimb.declarations import narrow
from klimb.errors import ConfigError, Interrupted
from klimb.experience import Message, Sample, SamplingSettings
from klimb.findings.evaluations import EvaluationRecord, Progress, When, interval_row
from klimb.samplers import Completion, Sampler, StreamingSampler
from klimb.tasks import Problem, Response, Score, Scorer
from klimb.training import (
    CloningSettings,
    LoopSettings,
    TrainResult,
    append_evaluation,
    clone,
    read_evaluations,
    train,
)
from klimb.training.checkpoints import prune_checkpoints
from klimb.training.clock import RunClock
from klimb.training.guard.measuring import Measurer, make_measurer
from klimb.training.held_out_log import read_held_out
from klimb.training.identity import OWN_GLOBALS, run_identity, settle_identity
from klimb.training.minibatches import tokens_at_once
from klimb.training.run_folder import Finished, RunFolder, flat_settings, read_run, read_tables, write_json
from klimb.training.signals import stops_at_once
from klimb.ui.figures import plot_curves
from klimb.ui.live import FailSafeView, Glimpse, View, open_view
from klimb.ui.pages.files import report_at_the_end
from klimb.ui.terminal.run import in_one_line, print_facts
from klimb.ui.text import in_bytes, relative_to_working_directory
from klimb.workbench.config import RunConfig, divergence_of, save_config
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.description import describe
from klimb.workbench.endings import Course, ends_written_down
from klimb.workbench.held_out_log import HeldOutLog, as_table, measure_after, measure_before
from klimb.workbench.loggers import check_loggers, open_trackers
from klimb.workbench.loggers.completions import CompletionsLogger
from klimb.workbench.loggers.tracker import TakesTables, Tracker
from klimb.workbench.measuring import measure
from klimb.workbench.own_findings import check_findings, find_in
from klimb.workbench.session import Session, command_to_go_on, make_loop_settings, own_globals

logger = logging.getLogger(__name__)


class StepRecorder:
    """Takes each step to the view and the tracker."""

    def __init__(self, config: RunConfig, folder: RunFolder, view: View, tracker: Tracker) -> None:
        self._config = config
        self._folder = folder
        self._view = view
        self._tracker = tracker
        self._is_accepted = False

    def __call__(self, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        """One finished step of the loop."""
        if not self._is_accepted:
            # A resumed run may have been given other settings; now the loop has accepted them.
            self._is_accepted = self._saves_config()
        number = int(metrics["step"])
        self._tracker.write(number, metrics)
        if samples:
            self._view.step(number, metrics, glimpse_of(samples[number % len(samples)]))
        else:
            self._view.step(number, _of_old_samples(metrics), None)

    def _saves_config(self) -> bool:
        """Tell if the disk took it; where it does not, it is tried again after the next step."""
        try:
            save_config(self._folder.config, self._config)
        except OSError as error:
            logger.error("%s is NOT written: %s. It is tried again after the next step", self._folder.config, error)
            return False
        return True


def _of_old_samples(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what the view shows where nothing was drawn: the logged rewards, and no speed of sampling."""
    shown = {name: value for name, value in metrics.items() if name != "tokens_per_second"}
    for source in ("feedback", "log"):
        for name in ("reward_mean", "length_mean"):
            if f"{source}/{name}" in metrics:
                shown[name] = metrics[f"{source}/{name}"]
    return shown


def glimpse_of(sample: Sample) -> Glimpse:
    """Return what the view shows of one answer."""
    return Glimpse(prompt=sample.prompt[-1]["content"], answer=sample.response, reward=sample.reward)


@dataclass(frozen=True)
class WatchedSampler:
    """The sampler, saying in the view that it samples; it streams if the sampler does."""

    sampler: Sampler
    view: View

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """As the sampler does."""
        self.view.phase("sampling")
        return self.sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """As the sampler does; one that cannot, hands over all prompts at the end."""
        self.view.phase("sampling")
        if isinstance(self.sampler, StreamingSampler):
            yield from self.sampler.stream(prompts, num_samples=num_samples, settings=settings, generator=generator)
            return
        answers = self.sampler.sample(prompts, num_samples=num_samples, settings=settings, generator=generator)
        yield from enumerate(answers)


@dataclass(frozen=True)
class WatchedScorer:
    """The scorer, saying in the view that it scores and that learning comes next."""

    scorer: Scorer
    view: View

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        """As the scorer does."""
        self.view.phase("scoring")
        scores = self.scorer.score_many(problems, responses)
        self.view.phase("learning")
        return scores

    def count(self, score: Score) -> Score:
        """As the scorer does."""
        return self.scorer.count(score)


def summary_of(finished: Finished, config: RunConfig) -> dict[str, Any]:
    """Return what summary.json holds."""
    summary: dict[str, Any] = {
        "name": config.run.name,
        "task": finished.task_name,
        "recipe": config.objective.recipe,
        "divergence": divergence_of(config.objective),
        "seed": config.seed,
        "num_steps": finished.num_steps,
        "model_path": relative_to_working_directory(finished.folder.model) if config.run.save_model else None,
        "seconds": {"total": round(finished.total_seconds, 1)},
    }
    if finished.ending:
        summary["ending"] = finished.ending
    if finished.best is not None:
        best = finished.best
        summary["best"] = {"metric": best.metric, "value": best.value, "step": best.progress.step}
        summary["model_step"] = best.progress.step if best.is_model else finished.num_steps
    if finished.held_out_log is not None:
        summary["held_out_log"] = as_table(finished.held_out_log)
    if finished.before is not None and finished.after is not None:
        summary["held_out"] = {
            "count": finished.after.count,
            "num_problems": finished.after.num_problems,
            "before": _as_summary(finished.before),
            "after": _as_summary(finished.after),
        }
        summary["seconds"]["evaluation"] = round(finished.before.seconds + finished.after.seconds, 1)
    return summary


def _as_summary(measured: EvaluationRecord) -> dict[str, Any]:
    return {
        "mean": measured.mean,
        "interval": interval_row(measured.interval),
        "greedy": measured.greedy,
        "pass_at": dict(measured.pass_at),
        "num_errors": measured.num_errors,
    }


SAVING_SECONDS = 10.0
"""Kept free at the end of a run with a time limit, for writing the model and the plot."""


def run_training(
    session: Session,
    open_folder: Callable[[], RunFolder],
    *,
    console: Console,
    resume: bool,
    title: str = "",
    go_on: str = "",
) -> Finished:
    """Do the whole run; with `resume`, the part of it that is missing.

    Args:
        session: what the run is made of; what scores and answers starts here.
        open_folder: makes or finds the run's folder; called once the scorer has started, so that a run which can't
            begin leaves nothing behind.
        console: where it is shown.
        resume: go on from the newest checkpoint in the folder.
        title: over the view and the plot; the folder's name and the recipe without it.
        go_on: what goes on after a signal has ended it; `klimb train --resume` without it.

    Raises:
        ConfigError: the task has no problem to train on, or none to evaluate on though it should; a logger's package is
            missing, a logger cannot start, or a rule of the user's own is not there.
        Interrupted: a signal ended the run; its state is saved.
        Exception: whatever ended it; how it did is written down in the folder, with what is saved.
    """
    clock = RunClock(began=time.monotonic() - session.load_seconds)
    _check_problems(session)
    check_loggers(session.config.run.loggers)
    check_findings(session.config.run.findings)
    measurer = _measurer(session)
    print_facts(console, describe(session))
    course = Course()
    with stops_at_once(), session.running(), ExitStack() as stack:
        if measurer is not None:
            stack.enter_context(measurer)
        folder = open_folder()
        stack.enter_context(_telling_how_to_go_on(console, go_on or command_to_go_on(session.config, folder)))
        stack.enter_context(ends_written_down(folder.path, course))
        title = title or f"{relative_to_working_directory(folder.path)} · {session.config.objective.recipe}"
        identity = identity_of(session)
        settle_identity(folder.path, identity)
        clock.continue_from(_seconds_until_now(folder))
        if told := _about_prompts(session):
            write_json(folder.prompts, told)
        tracker = stack.enter_context(_open_trackers(session.config, folder))
        before = _measure_before(session, folder, console)
        log_before = measure_before(session, folder)
        settings = _within_time(make_loop_settings(session.config), before)
        result = _train(
            session,
            folder,
            settings,
            tracker,
            measurer,
            identity=identity,
            clock=clock,
            console=console,
            title=title,
            resume=resume,
        )
        course.during, course.step = "after training", result.num_steps
        if resume and not result.metrics and result.num_steps >= settings.training.num_steps:
            _tell_nothing_left(console, result.num_steps, settings.training.num_steps)
        with result.saved_if_it_fails():
            return _finish(
                session, folder, settings, result, before, log_before, clock=clock, console=console, title=title
            )


def _tell_nothing_left(console: Console, num_done: int, num_steps: int) -> None:
    done = f"{num_done} are done" if num_done > 1 else "1 is done"
    console.print(f"no step is left to do: {done}, and training.num_steps is {num_steps}", highlight=False)


def _finish(
    session: Session,
    folder: RunFolder,
    settings: LoopSettings,
    result: TrainResult,
    before: EvaluationRecord | None,
    log_before: HeldOutLog | None,
    *,
    clock: RunClock,
    console: Console,
    title: str,
) -> Finished:
    """Save the model, evaluate it, sum up and report; done again by a resume if anything of it fails."""
    if result.num_steps < settings.training.num_steps:
        reason = result.ending or _reason_of_the_end(settings, result.progress)
        console.print(
            f"stopped after step {result.num_steps} of {settings.training.num_steps}: {reason}", highlight=False
        )
    if result.best is not None:
        console.print(result.best.in_words(), highlight=False)
    if session.config.run.save_model:
        session.policy.save(folder.model)
        if session.policy.has_adapter:
            session.policy.save(folder.adapter, adapter_only=True)
    after = None if before is None else _measure(session, folder, console, when="after", progress=result.model_progress)
    finished = Finished(
        folder=folder,
        task_name=session.task.name,
        before=before,
        after=after,
        num_steps=result.num_steps,
        total_seconds=0.0,
        ending=result.ending,
        best=result.best,
        held_out_log=None if log_before is None else measure_after(session, folder, log_before),
    )
    if session.config.run.report:
        plot_curves(read_run(folder.path), title=title)
    finished = replace(finished, total_seconds=clock.seconds())
    write_json(folder.summary, summary_of(finished, session.config))
    finished = replace(finished, checkpoints=keep_last_checkpoint(folder, session.config))
    if session.config.run.report:
        report_at_the_end(folder, find_in)
    return finished


def _about_prompts(session: Session) -> dict[str, Any]:
    """Return what prompts.json holds; empty where there is nothing to say."""
    left_out = [found.as_table() for found in session.unusable if found.reasons]
    differences = list(session.prompt_differences)
    return ({"differences": differences} if differences else {}) | ({"left_out": left_out} if left_out else {})


def keep_last_checkpoint(folder: RunFolder, config: RunConfig) -> str:
    """Remove the checkpoints that a run which has ended does not need, and say in words what is left; empty if none."""
    pruned = prune_checkpoints(folder.path / "checkpoints", keep=config.checkpoints.keep_at_end)
    if pruned.newest is None:
        return ""
    kept = f"{relative_to_working_directory(pruned.newest)} ({in_bytes(pruned.kept_bytes)})"
    if not pruned.num_removed:
        return kept
    older = "older one" if pruned.num_removed == 1 else "older ones"
    return f"{kept}; {pruned.num_removed} {older} removed ({in_bytes(pruned.removed_bytes)})"


def _open_trackers(config: RunConfig, folder: RunFolder) -> AbstractContextManager[Tracker]:
    return open_trackers(config.run.loggers, folder, settings=flat_settings(resolved_tables(config)))


def _check_problems(session: Session) -> None:
    if not session.task.train and session.config.sources.share("rollout") > 0:
        raise ConfigError(f"task {session.task.name} has no training problem; lower task.held_out_fraction")
    asked = session.config.evaluation
    for key in ("every_steps", "every_tokens", "every_seconds"):
        if getattr(asked, key) and not session.held_out:
            raise ConfigError(
                f"evaluation.{key} is {getattr(asked, key)}, but task {session.task.name} has no held-out problem; "
                f"raise task.held_out_fraction or set evaluation.{key} = 0"
            )


def _measurer(session: Session) -> Measurer | None:
    """Return what measures for the guard; None without `[guard]`."""
    config, policy = session.config, session.policy
    form = config.scoring.format
    asked: list[Sequence[Message]] = []
    if config.guard is not None and config.guard.checks:
        asked = [problem.messages for problem in session.held_out if session.is_evaluated]
        asked = asked or [*{repr(sample.prompt): sample.prompt for sample, _ in read_held_out(session.logs)}.values()]
    return make_measurer(
        config.guard,
        policy,
        session.sampler,
        max_tokens=tokens_at_once(config.training.micro_batch_tokens, policy.device),
        scoring_format="" if form is None else form.pattern,
        asked=asked,
        max_answer_tokens=config.sampling.max_new_tokens,
    )


def _reason_of_the_end(settings: LoopSettings, progress: Progress) -> str:
    if progress.num_tokens_generated >= settings.training.max_generated_tokens:
        return f"training.max_generated_tokens = {settings.training.max_generated_tokens:g}"
    if progress.elapsed_seconds >= settings.training.max_training_seconds:
        return f"training.max_training_seconds = {settings.training.max_training_seconds:g}"
    return "training.max_seconds is used up"


def _measure_before(session: Session, folder: RunFolder, console: Console) -> EvaluationRecord | None:
    """Return the evaluation of the untrained policy; what an earlier process of this run measured is taken over."""
    if not session.config.evaluation.at_ends or not session.held_out:
        return None
    stored = next((made for made in read_evaluations(folder.evaluations) if made.when == "before"), None)
    if stored is not None:
        return stored
    measured = _measure(session, folder, console, when="before", progress=Progress())
    print_facts(console, [("before", in_one_line(measured))])
    return measured


def _measure(
    session: Session, folder: RunFolder, console: Console, *, when: When, progress: Progress
) -> EvaluationRecord:
    with console.status(f"answering {len(session.held_out)} held-out problems, {when} training"):
        evaluation = measure(
            session.policy,
            session.sampler,
            session.scorer,
            session.held_out,
            session.config,
            when=when,
            progress=progress,
            dialogues=session.dialogues,
        )
    append_evaluation(folder.evaluations, evaluation)
    return evaluation


def identity_of(session: Session) -> dict[str, Any]:
    """Return what the run is: its resolved configuration, and what came of it here."""
    return run_identity(
        make_loop_settings(session.config),
        session.objective,
        session.policy,
        session.task.train,
        held_out=session.held_out,
        logs=session.logs,
        scorer=session.scorer,
        described=resolved_tables(session.config) | {OWN_GLOBALS: own_globals(session.config)},
    )


def _seconds_until_now(folder: RunFolder) -> float:
    """Return the total of a run that was finished once, which no checkpoint knows: it was saved before the end."""
    summary = read_tables(folder.summary)
    return float(summary["seconds"]["total"]) if summary else 0.0


def _within_time(settings: LoopSettings, before: EvaluationRecord | None) -> LoopSettings:
    """Return the settings with the time at which the loop must end: what comes after it is left out."""
    evaluation_seconds = 0.0 if before is None else before.seconds
    share = settings.training.max_seconds - evaluation_seconds - SAVING_SECONDS
    return replace(settings, training=replace(settings.training, max_seconds=max(0.0, share)))


def _train(
    session: Session,
    folder: RunFolder,
    settings: LoopSettings,
    tracker: Tracker,
    measurer: Measurer | None,
    *,
    identity: Mapping[str, Any],
    clock: RunClock,
    console: Console,
    title: str,
    resume: bool,
) -> TrainResult:
    view = FailSafeView(lambda: open_view(console, title=title, num_steps=settings.training.num_steps))
    try:
        return train(
            session.policy,
            WatchedSampler(session.sampler, view),
            WatchedScorer(session.scorer, view),
            session.objective,
            problems=session.task.train,
            settings=settings,
            folder=folder.path,
            held_out=session.held_out,
            logs=session.logs,
            on_step=StepRecorder(session.config, folder, view, tracker),
            callbacks=(*session.callbacks, *_completions_logger(session.config, tracker)),
            base_metrics=measurer,
            prepare=_cloning(session, view),
            resume=resume,
            identity=identity,
            clock=clock,
            are_problems_checked=True,
            dialogues=session.dialogues,
        )
    finally:
        view.close()


def _completions_logger(config: RunConfig, tracker: Tracker) -> list[CompletionsLogger]:
    if config.run.log_completions > 0 and isinstance(tracker, TakesTables):
        return [CompletionsLogger(config.run.log_completions, tracker)]
    return []


@contextmanager
def _telling_how_to_go_on(console: Console, command: str) -> Generator[None]:
    """Say it where a signal ends the block."""
    try:
        yield
    except Interrupted as error:
        text = Text.assemble((f"{error}\n", "yellow"), "go on with  ", (command, "cyan"))
        console.print(text, soft_wrap=True)
        raise


def _cloning(session: Session, view: View) -> Callable[[], None] | None:
    section = session.config.cloning
    pairs = session.pairs
    if section is None or pairs is None:
        return None

    def prepare() -> None:
        view.phase("cloning")
        clone(
            session.policy,
            pairs,
            settings=narrow(section, CloningSettings),
            optimizer=session.config.optimizer,
            micro_batch_tokens=session.config.training.micro_batch_tokens,
            seed=session.config.seed,
        )
        view.note(f"cloned {len(pairs)} answers from {section.path}")

    return prepare
