"""`klimb eval`: a model on a task, without training."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.findings.evaluations import EvaluationRecord, Progress, pass_intervals
from klimb.training.run_folder import RunFolder, is_run, write_json
from klimb.ui.terminal.run import print_evaluation
from klimb.workbench.config import RunConfig, build_config, read_tables, with_overrides
from klimb.workbench.measuring import measure
from klimb.workbench.session import make_session

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
        if not RunFolder(path).model.exists():
            raise ConfigError(f"the run {model} has no model yet, it did not end: klimb train --resume {model} goes on")
        config = RunFolder(path).config if config is None and not task else config
        model = str(RunFolder(path).model)
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


def run_evaluation(config: RunConfig, *, console: Console, output: Path | None) -> EvaluationRecord:
    """Evaluate, print the result and, if asked, write it as JSON."""
    session = make_session(config)
    if not session.held_out:
        raise ConfigError(f"task {session.task.name} has no held-out problems; raise task.held_out_fraction")
    with session.scorer, console.status(f"answering {len(session.held_out)} problems"):
        evaluation = measure(
            session.policy,
            session.sampler,
            session.scorer,
            session.held_out,
            config,
            when="before",
            progress=Progress(),
        )
    print_evaluation(console, evaluation, title=f"{session.policy.name} on {session.task.name}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        subject = {"model": config.model.path, "task": session.task.name}
        write_json(output, {**subject, **asdict(evaluation), "pass_intervals": pass_intervals(evaluation)})
    return evaluation
