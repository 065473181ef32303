"""`klimb rollback`: let the policy before answer again."""

from pathlib import Path

from rich.console import Console


def rollback(deployment: Path, /) -> None:
    """Let the policy that answered before answer again; a server that watches the deployment takes it over.

    Args:
        deployment: The folder with `deployment.json`.
    """
    from klimb.workbench.learn.promoting import roll_back

    left, now = roll_back(deployment)
    Console().print(f"{now} answers again, {left} does not any more", markup=False, highlight=False)
