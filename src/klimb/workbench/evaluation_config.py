"""The configuration of an evaluation, from a model and a task or a run."""

from pathlib import Path
from typing import Any

from klimb.errors import ConfigError
from klimb.tasks.catalogue import task_table
from klimb.training.run_folder import RunFolder, is_run
from klimb.workbench.config import RunConfig, build_config, is_resolved, read_tables, with_overrides
from klimb.workbench.model_path import model_path


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
    written = config is not None and is_resolved(config)
    return build_config(with_overrides(tables, overrides, is_resolved=written), source=str(config or "--task"))


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
