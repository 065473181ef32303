"""`klimb estimate`: what a model would earn on logged prompts, without an answer drawn from it."""

from pathlib import Path

from rich.console import Console

from klimb.workbench.options import EstimateOptions, check_is_there, check_model


def estimate(data: Path, /, *, options: EstimateOptions) -> None:
    """Estimate what a model would earn on logged data, without sampling from it.

    Args:
        data: A store's folder, a run's folder or one segment.
        options: What it is asked.
    """
    check_is_there(data, "a store's folder, a run's folder or one segment")
    check_model(options.model)
    from klimb.workbench.estimating import check_usable, run_estimate

    check_usable(run_estimate(data, options, console=Console()), data, model=options.model)
