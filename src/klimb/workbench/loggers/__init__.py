"""Loggers by name: TensorBoard, Weights & Biases, MLflow, trackio."""

from klimb.workbench.loggers.opening import LOGGERS, LoggedRun, Logger, check_loggers, open_trackers

__all__ = ["LOGGERS", "LoggedRun", "Logger", "check_loggers", "open_trackers"]
