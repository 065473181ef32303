"""trackio: local by default; a Space or a server is taken from its own environment variables."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger, new_id, project_from
from klimb.workbench.loggers.tracker import Tracker


class TrackioTracker:
    """A run of trackio."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step at once."""
        # It keeps `step` for itself and would log ours a second time under another name.
        self._run.log({name: value for name, value in metrics.items() if name != "step"}, step=step)

    def close(self, *, is_finished: bool) -> None:
        """Send what is left; trackio has no word for a run that was stopped."""
        self._run.finish()


def open_trackio(run: LoggedRun) -> tuple[Tracker, str]:
    """Open a new run, or the one with the known name. Runs are told apart by name alone, so the name is made unique."""
    name = run.known_id or f"{run.name}-{new_id()[:6]}"
    started = import_module("trackio").init(
        project=project_from("TRACKIO_PROJECT"),
        name=name,
        config=dict(run.settings),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return TrackioTracker(started), name


LOGGER = Logger(
    name="trackio",
    package="trackio",
    install="'klimb[trackio]'",
    open=open_trackio,
    advice="look at TRACKIO_SPACE_ID and TRACKIO_SERVER_URL",
)
