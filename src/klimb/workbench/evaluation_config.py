"""The configuration of an evaluation, from a model and a task or a run."""

from pathlib import Path
from typing import Any

from klimb.errors import ConfigError
from klimb.training.run_folder import RunFolder, is_run
from klimb.workbench.config import RunConfig, build_config, read_tables, with_overrides
from klimb.workbench.model_path import model_path

SUBJECT_KEYS = {"reasoning-gym": "dataset", "file": "path"}


def evaluation_config(model: str, *, task: str, config: Path | None, overrides: list[str]) -> RunConfig:
    """Return the configuration of an evaluation.

    Args:
        model: what `model.path` takes, or a run's folder: then its model and, if nothing else is named, its task.
        task: `arithmetic`, `reasoning-gym:NAME` or `file:PATH`; empty if `config` says it.
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
            "say what to evaluate on: either --task (arithmetic, reasoning-gym:NAME, file:PATH) or --config"
        )
    tables = (
        {"task": task_table(task), "evaluation": {"num_problems": 1_000}} if config is None else read_tables(config)
    )
    model_table = tables.get("model", {})
    # The saved model holds the trained weights: an adapter of the run is already in them.
    kept = {key: value for key, value in model_table.items() if key not in ("path", "lora")}
    tables["model"] = {**kept, "path": model}
    return build_config(with_overrides(tables, overrides), source=str(config or "--task"))


def task_table(task: str) -> dict[str, Any]:
    """Return the task section that `kind` or `kind:subject` stands for."""
    kind, _, subject = task.partition(":")
    table: dict[str, Any] = {"kind": kind}
    if subject and kind not in SUBJECT_KEYS:
        raise ConfigError(
            f"--task {task}: {kind!r} takes nothing behind a colon; use arithmetic, reasoning-gym:NAME or file:PATH"
        )
    if subject:
        table[SUBJECT_KEYS[kind]] = subject
    if kind == "file":
        # Asked for by name, the file is what to evaluate on: all of it.
        table["held_out_fraction"] = 1.0
    return table
