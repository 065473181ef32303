"""MLflow. Server and credentials are taken from its own environment variables."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from klimb.workbench.loggers.logger import LoggedRun, Logger, project_from
from klimb.workbench.loggers.tracker import Cell, Tracker

MOST_METRICS, MOST_PARAMS = 1_000, 100
"""That one call takes."""


LONGEST_PARAM = 500


_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:/ -]")


class MlflowTracker:
    """A run of MLflow, by its client: nothing is set for the whole process."""

    def __init__(self, client: Any, entities: Any, run_id: str, *, first_new_step: int = 0) -> None:
        self._client = client
        self._entities = entities
        self._run_id = run_id
        self._first_new_step = first_new_step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step; a character that MLflow has not in a name becomes an underscore.

        A resumed run does the steps after its checkpoint again, with the same numbers: they are not written twice.
        """
        if step < self._first_new_step:
            return
        now = round(time.time() * 1000)
        points = [
            self._entities.Metric(_NOT_IN_A_NAME.sub("_", name), float(value), now, step)
            for name, value in metrics.items()
        ]
        for part in _portions(points, MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=part)

    def write_table(self, step: int, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Write a table for each step: MLflow adds to one by reading and writing all of it."""
        if step >= self._first_new_step:
            data = {name: [row[place] for row in rows] for place, name in enumerate(columns)}
            self._client.log_table(self._run_id, data=data, artifact_file=f"completions/step-{step:06d}.json")

    def close(self, *, is_finished: bool) -> None:
        """Says how the run ended."""
        self._client.set_terminated(self._run_id, status="FINISHED" if is_finished else "KILLED")


def open_mlflow(run: LoggedRun) -> tuple[Tracker, str]:
    """Return a new run with the settings as parameters, or the one with the known id, whose parameters stay."""
    mlflow, entities = import_module("mlflow"), import_module("mlflow.entities")
    client = mlflow.MlflowClient()
    if run.known_id:
        client.update_run(run.known_id, status="RUNNING")
        last_step = int(client.get_run(run.known_id).data.metrics.get("step", 0))
        return MlflowTracker(client, entities, run.known_id, first_new_step=last_step + 1), run.known_id
    project = project_from("MLFLOW_EXPERIMENT_NAME")
    experiment = client.get_experiment_by_name(project)
    experiment_id = client.create_experiment(project) if experiment is None else experiment.experiment_id
    run_id = client.create_run(experiment_id, run_name=run.name).info.run_id
    params = [entities.Param(key, str(value)[:LONGEST_PARAM]) for key, value in run.settings.items()]
    for part in _portions(params, MOST_PARAMS):
        client.log_batch(run_id, params=part)
    return MlflowTracker(client, entities, run_id), run_id


def _portions(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


LOGGER = Logger(
    name="mlflow",
    package="mlflow",
    install="'klimb[mlflow]'",
    open=open_mlflow,
    advice="look at MLFLOW_TRACKING_URI",
)
