"""trackio: local by default; a Space or a server is taken from its own environment variables."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger, new_id, project_from
from klimb.workbench.loggers.tracker import Cell, Tracker


class TrackioTracker:
    """A run of trackio."""

    def __init__(self, run: Any, trackio: Any) -> None:
        self._run = run
        self._trackio = trackio

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step at once."""
        # It keeps `step` for itself and would log ours a second time under another name.
        self._run.log({name: value for name, value in metrics.items() if name != "step"}, step=step)

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Log a `trackio.Table` of the step."""
        table = self._trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({"completions": table}, step=step)

    def close(self, *, is_finished: bool) -> None:
        """Send what is left; trackio has no word for a run that was stopped."""
        self._run.finish()


def open_trackio(run: LoggedRun) -> tuple[Tracker, str]:
    """Open a new run, or the one with the known name. Runs are told apart by name alone, so the name is made unique."""
    name = run.known_id or f"{run.name}-{new_id()[:6]}"
    trackio = import_module("trackio")
    started = trackio.init(
        project=project_from("TRACKIO_PROJECT"),
        name=name,
        config=dict(run.settings),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return TrackioTracker(started, trackio), name


LOGGER = Logger(
    name="trackio",
    package="trackio",
    install="'klimb[trackio]'",
    open=open_trackio,
    advice="look at TRACKIO_SPACE_ID and TRACKIO_SERVER_URL",
)
