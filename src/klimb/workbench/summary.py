"""The results of a finished run: summary.json and the curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klimb.training import read_metrics
from klimb.workbench.config import RunConfig
from klimb.workbench.held_out import Measured
from klimb.workbench.plot import plot_curves
from klimb.workbench.runs import RunFolder, relative_to_working_directory


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run leaves behind for those who report it."""

    folder: RunFolder
    task_name: str
    before: Measured | None
    after: Measured | None
    num_steps: int
    total_seconds: float


def draw_curves(folder: RunFolder, finished: Finished, *, title: str) -> None:
    """The plot of the run's metrics, with the evaluations before and after at its ends."""
    rows: list[Mapping[str, Any]] = list(read_metrics(folder.metrics))
    ends = ((finished.before, 0), (finished.after, finished.num_steps))
    rows += [_as_row(measured, step) for measured, step in ends if measured is not None]
    plot_curves(sorted(rows, key=lambda row: row["step"]), folder.path, title=title)


def summary_of(finished: Finished, config: RunConfig) -> dict[str, Any]:
    """What summary.json holds."""
    summary: dict[str, Any] = {
        "name": config.run.name,
        "task": finished.task_name,
        "recipe": config.objective.recipe,
        "divergence": config.objective.divergence,
        "seed": config.seed,
        "num_steps": finished.num_steps,
        "model_path": relative_to_working_directory(finished.folder.model) if config.run.save_model else None,
        "seconds": {"total": round(finished.total_seconds, 1)},
    }
    if finished.before is not None and finished.after is not None:
        summary["held_out"] = {
            "count": finished.after.count,
            "num_problems": finished.after.num_problems,
            "before": _as_summary(finished.before),
            "after": _as_summary(finished.after),
        }
        summary["seconds"]["evaluation"] = round(finished.before.seconds + finished.after.seconds, 1)
    return summary


def _as_summary(measured: Measured) -> dict[str, Any]:
    return {
        "mean": measured.mean,
        "low": measured.low,
        "high": measured.high,
        "greedy": measured.greedy,
        "pass_at": dict(measured.pass_at),
        "num_errors": measured.num_errors,
    }


def _as_row(measured: Measured, step: int) -> dict[str, float]:
    row = {
        "step": float(step),
        "evaluation_mean": measured.mean,
        "evaluation_low": measured.low,
        "evaluation_high": measured.high,
    }
    return row if measured.greedy is None else row | {"evaluation_greedy": measured.greedy}
