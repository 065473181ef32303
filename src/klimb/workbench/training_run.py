"""A run from beginning to end: measure, train, save, measure again, plot, sum up."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from klimb.training import (
    Interrupted,
    LoopSettings,
    Progress,
    TrainResult,
    append_evaluation,
    clone,
    evaluation_record,
    train,
)
from klimb.training.evaluations_log import When
from klimb.workbench.assemble import make_cloning, make_loop_settings
from klimb.workbench.config import ConfigError
from klimb.workbench.guarding.making import make_measurer
from klimb.workbench.guarding.measuring import Measurer
from klimb.workbench.held_out import Measured, measure, read_measured, save_measured
from klimb.workbench.loggers import check_loggers, opened_trackers
from klimb.workbench.report.writing import report_at_the_end
from klimb.workbench.reports import in_one_line, report_facts
from klimb.workbench.runs import RunFolder, relative_to_working_directory, write_json
from klimb.workbench.session import Session, described
from klimb.workbench.summary import Finished, draw_curves, summary_of
from klimb.workbench.trackers import Tracker
from klimb.workbench.view import View, open_view
from klimb.workbench.watched import StepRecorder, WatchedSampler, WatchedScorer

SAVING_SECONDS = 10.0
"""Kept free at the end of a run with a time limit, for writing the model and the plot."""


def run_training(
    session: Session, open_folder: Callable[[], RunFolder], *, console: Console, title: str, resume: bool
) -> Finished:
    """Does the whole run; with `resume`, the part of it that is missing.

    Args:
        session: what the run is made of; its scorer is entered here.
        open_folder: makes or finds the run's folder; called once the scorer has started, so that a run which can't
            begin leaves nothing behind.
        console: where it is shown.
        title: over the view and the plot.
        resume: go on from the newest checkpoint in the folder.

    Raises:
        ConfigError: the task has no problem to train on, or none to evaluate on though it should; a logger's package is
            missing, or a logger cannot start.
        Interrupted: a signal ended the run; its state is saved.
    """
    started = time.monotonic()
    _check_problems(session)
    check_loggers(session.config.run.loggers)
    measurer = make_measurer(session.config, session.policy, session.sampler)
    report_facts(console, described(session))
    with session.scorer, ExitStack() as stack:
        if measurer is not None:
            stack.enter_context(measurer)
        folder = open_folder()
        tracker = stack.enter_context(opened_trackers(session.config, folder))
        before = _measured_before(session, folder, console)
        settings = _within_time(session, make_loop_settings(session.config), before, started)
        try:
            result = _train(session, folder, settings, tracker, measurer, console=console, title=title, resume=resume)
        except Interrupted as error:
            _tell_how_to_go_on(console, folder, error)
            raise
        if result.num_steps < settings.num_steps:
            reason = result.ending or _reason_of_the_end(settings, result.progress)
            console.print(f"stopped after step {result.num_steps} of {settings.num_steps}: {reason}", highlight=False)
        if session.config.run.save_model:
            session.policy.save(folder.model)
        after = None if before is None else _measured(session, folder, console, when="after", progress=result.progress)
    finished = Finished(
        folder=folder,
        task_name=session.task.name,
        before=before,
        after=after,
        num_steps=result.num_steps,
        total_seconds=0.0,
    )
    if session.config.run.report:
        draw_curves(folder, finished, title=title)
    finished = replace(finished, total_seconds=session.load_seconds + time.monotonic() - started)
    write_json(folder.summary, summary_of(finished, session.config))
    if session.config.run.report:
        report_at_the_end(folder)
    return finished


def _check_problems(session: Session) -> None:
    if not session.task.train and session.config.sources.rollout > 0:
        raise ConfigError(f"task {session.task.name} has no training problem; lower task.held_out_fraction")
    asked = session.config.evaluation
    for key in ("every_steps", "every_tokens", "every_seconds"):
        if getattr(asked, key) and not session.held_out:
            raise ConfigError(
                f"evaluation.{key} is {getattr(asked, key)}, but task {session.task.name} has no held-out problem; "
                f"raise task.held_out_fraction or set evaluation.{key} = 0"
            )


def _reason_of_the_end(settings: LoopSettings, progress: Progress) -> str:
    if progress.num_tokens_generated >= settings.max_generated_tokens:
        return f"training.max_generated_tokens = {settings.max_generated_tokens:g}"
    if progress.elapsed_seconds >= settings.max_training_seconds:
        return f"training.max_training_seconds = {settings.max_training_seconds:g}"
    return "training.max_seconds is used up"


def _measured_before(session: Session, folder: RunFolder, console: Console) -> Measured | None:
    """The evaluation of the untrained policy; what an earlier process of this run measured is taken over."""
    if not session.config.evaluation.at_ends or not session.held_out:
        return None
    stored = folder.path / "before.json"
    if stored.exists():
        return read_measured(stored)
    measured = _measured(session, folder, console, when="before", progress=Progress())
    save_measured(stored, measured)
    report_facts(console, [("before", in_one_line(measured))])
    return measured


def _measured(session: Session, folder: RunFolder, console: Console, *, when: When, progress: Progress) -> Measured:
    with console.status(f"answering {len(session.held_out)} held-out problems, {when} training"):
        measured, sampled = measure(session.policy, session.sampler, session.scorer, session.held_out, session.config)
    record = evaluation_record(
        sampled,
        session.held_out,
        when=when,
        progress=progress,
        num_samples=measured.num_samples,
        greedy=measured.greedy,
    )
    append_evaluation(folder.evaluations, record)
    return measured


def _within_time(session: Session, settings: LoopSettings, before: Measured | None, started: float) -> LoopSettings:
    """The settings with the loop's share of the run's time: what is left after the other parts."""
    evaluation_seconds = 0.0 if before is None else before.seconds
    spent = session.load_seconds + time.monotonic() - started
    share = settings.max_seconds - spent - evaluation_seconds - SAVING_SECONDS
    return replace(settings, max_seconds=max(0.0, share))


def _train(
    session: Session,
    folder: RunFolder,
    settings: LoopSettings,
    tracker: Tracker,
    measurer: Measurer | None,
    *,
    console: Console,
    title: str,
    resume: bool,
) -> TrainResult:
    view = open_view(console, title=title, num_steps=settings.num_steps)
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
            base_metrics=measurer,
            prepare=_cloning(session, view),
            resume=resume,
        )
    finally:
        view.close()


def _tell_how_to_go_on(console: Console, folder: RunFolder, error: Interrupted) -> None:
    command = f"klimb train --resume {relative_to_working_directory(folder.path)}"
    console.print(Text.assemble((f"{error}\n", "yellow"), "go on with  ", (command, "cyan")), soft_wrap=True)


def _cloning(session: Session, view: View) -> Callable[[], None] | None:
    section = session.config.cloning
    if section is None:
        return None
    pairs, settings = make_cloning(session.config, section)

    def prepare() -> None:
        view.phase("cloning")
        clone(session.policy, pairs, settings=settings, on_step=None)
        view.note(f"cloned {len(pairs)} answers from {section.path}")

    return prepare
