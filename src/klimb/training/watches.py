"""The best observation of a metric so far: which checkpoint is spared for it, and when a run stops early."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from klimb.training.checkpoints import checkpoint_path
from klimb.training.settings import CheckpointSettings, EarlyStoppingSettings, LoopSettings
from klimb.training.settings.watching import Mode

logger = logging.getLogger(__name__)


ROLLED_BACK = "guard/rolled_back_to"
"""Where a step has this metric, its other numbers are of a policy that is no longer there."""


@dataclass
class MetricWatch:
    """The best value of one metric; of two equal ones the earlier.

    Attributes:
        metric: its name.
        mode: whether more is better, or less.
        min_change: only a change of more than this counts as better.
        best: the value; None before the first observation.
        best_step: the step of the loop that it was logged at.
        num_since: observations since then.
    """

    metric: str
    mode: Mode
    min_change: float = 0.0
    best: float | None = None
    best_step: int = 0
    num_since: int = 0
    _before: tuple[float | None, int] = field(default=(None, 0), repr=False)

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a step; one without a finite value is no observation."""
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value) or ROLLED_BACK in metrics:
            return
        if self.best is not None and not self._is_better(value, self.best):
            self.num_since += 1
            return
        self._before = (self.best, self.best_step)
        self.best, self.best_step, self.num_since = float(value), step, 0

    def _is_better(self, value: float, best: float) -> bool:
        gain = value - best if self.mode == "max" else best - value
        return gain > self.min_change

    def forget(self, step: int) -> None:
        """Go back to the best before this step, whose policy could not be saved."""
        if self.best is not None and self.best_step == step:
            self.best, self.best_step = self._before

    def state(self) -> dict[str, Any]:
        """Return plain numbers that `load_state` takes back."""
        return {
            "metric": self.metric,
            "mode": self.mode,
            "best": self.best,
            "best_step": self.best_step,
            "num_since": self.num_since,
        }

    def load_state(self, numbers: Mapping[str, Any] | None) -> None:
        """Go on from a saved state, unless it is of another metric or mode: then a new watch begins."""
        if numbers is None or (numbers["metric"], numbers["mode"]) != (self.metric, self.mode):
            return
        self.best, self.best_step, self.num_since = numbers["best"], numbers["best_step"], numbers["num_since"]


@dataclass
class Watches:
    """What a run looks at to keep its best checkpoint and to stop early; either may be absent."""

    best: MetricWatch | None = None
    stopping: MetricWatch | None = None
    patience: int = 0

    @classmethod
    def of(cls, settings: LoopSettings) -> "Watches":
        """Return those of a run before its first step."""
        stopping = settings.early_stopping
        return cls(
            best=_watch_of_checkpoints(settings.checkpoints),
            stopping=None if stopping is None else _watch_of_stopping(stopping),
            patience=0 if stopping is None else stopping.patience,
        )

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a step's metrics."""
        for watch in (self.best, self.stopping):
            if watch is not None:
                watch.observe(step, metrics)

    def end_with(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether the run would stop early with this step's metrics; they are not taken note of."""
        if self.stopping is None:
            return False
        ahead = replace(self.stopping)
        ahead.observe(step, metrics)
        return bool(replace(self, stopping=ahead).ending)

    def is_best(self, step: int) -> bool:
        """Whether this step is the best so far, whose checkpoint is then to be kept."""
        return self.best is not None and self.best.best is not None and self.best.best_step == step

    @property
    def steps_to_keep(self) -> tuple[int, ...]:
        """Return the steps whose checkpoints are spared when older ones are removed."""
        return () if self.best is None or self.best.best is None else (self.best.best_step,)

    @property
    def ending(self) -> str:
        """Why the run stops early, in words; empty while it goes on."""
        watch = self.stopping
        if watch is None or watch.best is None or watch.num_since < self.patience:
            return ""
        verb = "rise" if watch.mode == "max" else "fall"
        by = f" by more than {watch.min_change:g}" if watch.min_change else ""
        seen = "observation" if self.patience == 1 else "observations in a row"
        return (
            f"early stopping: {watch.metric} did not {verb}{by} in {watch.num_since} {seen}; its best is "
            f"{watch.best:g}, of step {watch.best_step}"
        )

    def forget(self, step: int) -> None:
        """Take note that the policy of this step could not be saved."""
        if self.best is not None:
            self.best.forget(step)

    def state(self) -> dict[str, Any]:
        """Return plain numbers that `load_state` takes back."""
        watches = {"best": self.best, "stopping": self.stopping}
        return {name: None if watch is None else watch.state() for name, watch in watches.items()}

    def load_state(self, numbers: Mapping[str, Any], *, checkpoints: Path) -> None:
        """Go on from a saved state; a best whose checkpoint is no longer there is forgotten, with a warning."""
        if self.stopping is not None:
            self.stopping.load_state(numbers.get("stopping"))
        if self.best is None:
            return
        self.best.load_state(numbers.get("best"))
        if self.best.best is not None and not checkpoint_path(checkpoints, self.best.best_step).is_dir():
            logger.warning(
                "the checkpoint of step %d, the best by %s, is not in %s; the next observation is the best again",
                self.best.best_step,
                self.best.metric,
                checkpoints,
            )
            self.best.best, self.best.best_step = None, 0


def _watch_of_checkpoints(settings: CheckpointSettings) -> MetricWatch | None:
    return MetricWatch(settings.best_metric, settings.best_mode) if settings.keeps_best else None


def _watch_of_stopping(settings: EarlyStoppingSettings) -> MetricWatch:
    return MetricWatch(settings.metric, settings.mode, settings.min_change)
