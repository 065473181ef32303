"""Weights & Biases. Key, server, offline mode and entity are taken from its own environment variables and files."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger, new_id, project_from
from klimb.workbench.loggers.tracker import Cell, Tracker


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, run: Any, wandb: Any) -> None:
        self._run = run
        self._wandb = wandb
        # W&B takes steps in ascending order only. A resumed run does the steps after its checkpoint again, with the
        # same numbers, so those that are there already are left as they are.
        self._first_new_step = int(run.step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step at once."""
        if step >= self._first_new_step:
            self._run.log(dict(metrics), step=step)

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Log a `wandb.Table` of the step."""
        if step >= self._first_new_step:
            table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            self._run.log({"completions": table}, step=step)

    def close(self, *, is_finished: bool) -> None:
        """Send what is left; W&B calls a run with exit code 0 finished, else failed."""
        self._run.finish(exit_code=0 if is_finished else 1)


def open_wandb(run: LoggedRun) -> tuple[Tracker, str]:
    """Return a new run, or the one with the known id; its files are in `wandb/` of the run's folder."""
    wandb = import_module("wandb")
    identity = run.known_id or new_id()
    started = wandb.init(
        project=project_from("WANDB_PROJECT"),
        name=run.name,
        id=identity,
        resume="allow",
        dir=str(run.folder),
        config=dict(run.settings),
        allow_val_change=True,  # a resumed run may be longer
        settings=wandb.Settings(console="off"),  # it would swallow the live view
    )
    return WandbTracker(started, wandb), identity


LOGGER = Logger(
    name="wandb",
    package="wandb",
    install="'klimb[wandb]'",
    open=open_wandb,
    advice="log in with `wandb login` or WANDB_API_KEY, or keep it on this machine with WANDB_MODE=offline",
)
