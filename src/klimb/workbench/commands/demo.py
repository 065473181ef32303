"""`klimb demo`: an ordinary run, from a configuration inside the package, with a word on what to try next."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from klimb.workbench.options import Overrides, check_model

if TYPE_CHECKING:
    from klimb.workbench.config import RunConfig

DEMO_FILE = Path(__file__).parents[1] / "demo.toml"


def demo(
    *,
    divergence: str | None = None,
    seed: int = 0,
    folder: Path = Path("runs/demo"),
    settings: Overrides = (),
) -> None:
    """Watch a small language model learn to add, in minutes on two CPU cores.

    Args:
        divergence: Divergence from the reference: fkl, rkl, ufkl, urkl, jeffreys, ...
        seed: Seed of all random numbers.
        folder: Where the results go; an earlier run there is moved aside.
        settings: Overrides such as `training.num_steps=10`.
    """
    chosen = [] if divergence is None else [f"objective.divergence={divergence!r}"]
    config = demo_config([f"seed={seed}", *chosen, *settings])
    check_model(config.model.path)
    from klimb.workbench.demo import run_demo

    run_demo(config, folder, console=Console())


def demo_config(overrides: Sequence[str]) -> "RunConfig":
    """Return the demo's configuration with overrides."""
    from klimb.workbench.config import read_config

    return read_config(DEMO_FILE, overrides)
