"""The configuration of an evaluation, from a model and a task or a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.errors import ConfigError
from klimb.own_parts import is_object
from klimb.tasks.catalogue import task_table
from klimb.training.run_folder import RunFolder, is_run
from klimb.workbench.config import RunConfig, build_config, is_resolved, read_tables, with_overrides
from klimb.workbench.model_path import model_path


@dataclass(frozen=True, kw_only=True)
class AskedRun:
    """A run whose problems are asked: its folder, and its configuration as it stands there."""

    folder: Path
    tables: Mapping[str, Any]


def run_asked_of(model: str, *, task: str, config: Path | None) -> AskedRun | None:
    """Return the run that an evaluation takes its problems from; None where it takes them from elsewhere.

    Raises:
        ConfigError: its configuration cannot be read.
    """
    folder = Path(model) if config is None else config.parent
    is_named = not task and is_run(folder) and config in (None, RunFolder(folder).config)
    return AskedRun(folder=folder, tables=read_tables(RunFolder(folder).config)) if is_named else None


def evaluation_config(model: str, *, task: str, config: Path | None, overrides: list[str]) -> RunConfig:
    """Return the configuration of an evaluation.

    Args:
        model: what `model.path` takes, or a run's folder: then its model and, if nothing else is named, its task.
        task: `arithmetic`, `reasoning-gym:NAME`, `file:PATH` or `python:module.function`; empty if `config` says it.
        config: a run's TOML or config.json.
        overrides: `key=value` pairs.

    Raises:
        ConfigError: neither or both of `task` and `config` are given, or a setting is wrong.
    """
    path = Path(model)
    if is_run(path):
        config = RunFolder(path).config if config is None and not task else config
        model = model_path(model)
    if bool(task) == (config is not None):
        raise ConfigError(
            "say what to evaluate on: either --task (arithmetic, reasoning-gym:NAME, file:PATH, "
            "python:module.function) or --config"
        )
    tables = (
        {"task": evaluated_task(task, option="--task"), "evaluation": {"num_problems": 1_000}}
        if config is None
        else read_tables(config)
    )
    model_table = tables.get("model", {})
    # The saved model holds the trained weights: an adapter of the run is already in them, and so is its chat template.
    held = ("path", "lora", "chat_template", "template_arguments") if is_run(path) else ("path", "lora")
    kept = {key: value for key, value in model_table.items() if key not in held}
    tables["model"] = {**kept, "path": model}
    tables = _without_objects(tables)
    written = config is not None and is_resolved(config)
    return build_config(with_overrides(tables, overrides, is_resolved=written), source=str(config or "--task"))


ASKS = ("task", "scoring", "sampling", "environment")
"""Sections that say what is asked, and how it is answered and scored: an evaluation needs their parts."""


def _without_objects(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the tables without callbacks, and without objects of a program that only the training needed."""
    kept = {name: value if name in ASKS else _without_objects_in(value) for name, value in tables.items()}
    if isinstance(run := kept.get("run"), dict):
        run.pop("callbacks", None)
    for source in ("log", "feedback"):
        if isinstance(section := kept.get(source), dict) and "path" not in section:
            del kept[source]
            kept.pop("sources", None)
    return kept


def _without_objects_in(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if not (isinstance(inner, str) and is_object(inner))}
    return {key: _without_objects_in(inner) for key, inner in kept.items()}


def evaluated_task(task: str, *, option: str) -> dict[str, Any]:
    """Return the task section that an option such as `--task` stands for.

    Raises:
        ConfigError: there is no such task.
    """
    try:
        table: dict[str, Any] = {**task_table(task)}
    except ValueError as error:
        raise ConfigError(f"{option} {task}: {error}") from None
    if table["kind"] == "file":
        # Asked for by name, the file is what to evaluate on: all of it.
        table["held_out_fraction"] = 1.0
    return table
