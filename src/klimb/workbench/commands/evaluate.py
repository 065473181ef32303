"""`klimb eval`: a model on a task, without training."""

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from klimb.workbench.options import Overrides, PathOrNone, TextOrNone, check_is_there

NAME = "eval"


def evaluate(
    model: str,
    /,
    *,
    task: TextOrNone = "",
    config: PathOrNone = None,
    settings: Overrides = (),
    output: PathOrNone = None,
) -> None:
    """Evaluate a model: Mean@k and pass@k with intervals, and greedy.

    Args:
        model: A Hugging Face folder, a .gguf file, `smollm2-135m`, or a run's folder.
        task: `arithmetic`, `reasoning-gym:NAME`, `file:PATH` or `python:module.function`.
        config: Instead of a task: a run's TOML or config.json, whose held-out problems are taken.
        settings: Overrides such as `task.digits=2` or `evaluation.num_samples=32`.
        output: Also write the result to this JSON file.
    """
    if config is not None:
        check_is_there(config, "a run's TOML or config.json")
    from klimb.workbench.config.paths import check_paths
    from klimb.workbench.evaluation_config import evaluation_config, run_asked_of
    from klimb.workbench.run_directory import as_typed_elsewhere, in_directory_of

    here, asked = Path.cwd(), run_asked_of(model, task=task, config=config)
    with in_directory_of(asked.folder, asked.tables) if asked else nullcontext():
        is_elsewhere = Path.cwd() != here
        if is_elsewhere:
            model = str(here / model) if (here / model).exists() else model
            config, output = (path and here / path for path in (config, output))
        overrides = as_typed_elsewhere(settings) if is_elsewhere else list(settings)
        run = evaluation_config(model, task=task, config=config, overrides=overrides)
        check_paths(run, sections=("task", "rewards", "environment"))
        from klimb.workbench.evaluating import run_evaluation

        run_evaluation(run, console=Console(), output=output)
