"""Event files for TensorBoard."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger
from klimb.workbench.loggers.tracker import Tracker


class TensorBoardTracker:
    """Event files for TensorBoard, opened at the first step: what an earlier process wrote behind it is hidden."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One point per metric."""
        if self._writer is None:
            self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(self._folder), purge_step=step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step=step)

    def close(self, *, is_finished: bool) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def open_tensorboard(run: LoggedRun) -> tuple[Tracker, str]:
    """Into `tensorboard/` of the run's folder; it needs no id."""
    return TensorBoardTracker(run.folder / "tensorboard"), ""


LOGGER = Logger(name="tensorboard", package="tensorboard", install="tensorboard", open=open_tensorboard)
