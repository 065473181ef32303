"""The run of a round: a user's run file, from the serving policy, on the ratings that train."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.training.run_folder import RunFolder, is_run, read_evaluations
from klimb.training.run_folder import read_tables as read_json
from klimb.workbench.config import RunConfig, build_config, is_resolved, read_tables
from klimb.workbench.config.layers import lay_over, layer_of
from klimb.workbench.config.paths import check_paths
from klimb.workbench.provenance import mend_before_resume, new_run_folder
from klimb.workbench.run import run_training
from klimb.workbench.session import make_session


def round_config(run_file: Path, *, model: str, experience: Path) -> RunConfig:
    """Return the configuration of a round: the file's, with this model to start from and these ratings.

    Without a table `sources` it trains on ratings alone; where the file names neither a task nor evaluations, nothing
    is evaluated.

    Raises:
        ConfigError: the file says that no rating is trained on, or cannot be used.
    """
    tables = read_tables(run_file)
    given: dict[str, Any] = {"model.path": model, "feedback.path": str(experience), "run.save_model": True}
    if "sources" not in tables:
        given["sources.feedback"] = 1.0
    if "task" not in tables and "evaluation" not in tables:
        given["evaluation.at_ends"] = False
    config = build_config(lay_over(tables, layer_of(given), is_resolved=is_resolved(run_file)), source=str(run_file))
    if config.sources.feedback == 0:
        raise ConfigError(f"{run_file}: sources.feedback is 0, and klimb learn trains on ratings; give them a share")
    return config


def train_round(config: RunConfig, folder: Path, *, console: Console) -> int:
    """Train, or go on with a run that a crash cut short, and return how many steps there were. Done once, it stays."""
    run = RunFolder(folder)
    if not run.summary.is_file() or not run.model.exists():
        goes_on = is_run(folder)
        if goes_on:
            mend_before_resume(run, config)
        else:
            check_paths(config)
        # The learner makes them on held-out answers of both policies; the run has none of these.
        guard = None if config.guard is None else replace(config.guard, checks=())
        bare = config.model_copy(update={"guard": guard})
        run_training(
            make_session(bare),
            lambda: run if goes_on else new_run_folder(folder, bare),
            console=console,
            resume=goes_on,
            go_on="the same klimb learn",
        )
    return int(read_json(run.summary)["num_steps"])


def rewards_at_ends(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean reward of each held-out prompt before and after training; empty where it was not evaluated."""
    made = read_evaluations(RunFolder(folder).evaluations)
    ends = [next((each for each in made if each.when == when), None) for when in ("before", "after")]
    if ends[0] is None or ends[1] is None:
        return [], []
    pairs = [
        (fmean(first.values), fmean(last.values))
        for first, last in zip(ends[0].problems, ends[1].problems, strict=True)
        if first.values and last.values
    ]
    return [first for first, _ in pairs], [last for _, last in pairs]
