"""A model on a task, without training: answer the held-out problems, print, write."""

from pathlib import Path

from rich.console import Console

from klimb.errors import ConfigError
from klimb.findings.evaluations import EvaluationRecord, Progress, interval_row, line_of, pass_intervals
from klimb.training.run_folder import write_json
from klimb.ui.terminal.run import print_evaluation, print_facts
from klimb.workbench.config import RunConfig
from klimb.workbench.description import unusable_in_words
from klimb.workbench.measuring import measure
from klimb.workbench.session import make_session


def run_evaluation(config: RunConfig, *, console: Console, output: Path | None) -> EvaluationRecord:
    """Evaluate, print the result and, if asked, write it as JSON."""
    session = make_session(config, trains=False)
    print_facts(console, unusable_in_words(session))
    if not session.held_out:
        raise ConfigError(f"task {session.task.name} has no held-out problems; raise task.held_out_fraction")
    with session.running(), console.status(f"answering {len(session.held_out)} problems"):
        evaluation = measure(
            session.policy,
            session.sampler,
            session.scorer,
            session.held_out,
            config,
            when="before",
            progress=Progress(),
            dialogues=session.dialogues,
        )
    print_evaluation(console, evaluation, title=f"{session.policy.name} on {session.task.name}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        subject = {"model": config.model.path, "task": session.task.name}
        intervals = {k: interval_row(interval) for k, interval in pass_intervals(evaluation).items()}
        write_json(output, {**subject, **line_of(evaluation), "pass_intervals": intervals})
    return evaluation
