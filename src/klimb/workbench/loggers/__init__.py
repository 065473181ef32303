"""Loggers by name: TensorBoard, Weights & Biases, MLflow, trackio, and those of the user's own."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.workbench.loggers.logger import LoggedRun, Logger
    from klimb.workbench.loggers.opening import check_loggers, open_trackers
    from klimb.workbench.loggers.registry import LOGGERS
    from klimb.workbench.loggers.tracker import Tracker

__all__ = ["LOGGERS", "LoggedRun", "Logger", "Tracker", "check_loggers", "open_trackers"]

open_lazily(__name__)
