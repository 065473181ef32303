"""`klimb compare`: the runs of a study, and what they say together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from klimb.errors import ConfigError
from klimb.workbench.options import CompareOptions

UNASKED = CompareOptions()


def compare(
    study: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *others: Annotated[str, Parameter(show=False)],
    options: CompareOptions = UNASKED,
) -> None:
    """Compare methods: the runs of a study under one budget, and whether their differences are real.

    What is finished is not run again: after an interruption, the same command goes on.

    Args:
        study: A study's TOML file, or the name of a ready one; without it, the ready ones are listed.
        others: None: one study at a time.
        options: What it is asked.
    """
    _check_is_study([study, *others])
    from klimb.workbench.study.config import describe_ready_studies, read_study

    console = Console()
    if not study:
        for name, description in describe_ready_studies().items():
            console.print(Text.assemble((f"{name:<12}", "cyan"), description), soft_wrap=True)
        return
    config, text = read_study(study)
    from klimb.workbench.study.compare import run_compare

    run_compare(study, config, text, options, console=console)


def _check_is_study(named: Sequence[str]) -> None:
    """Return if this may be one study, or none.

    Raises:
        ConfigError: there are several things, or it is a folder, such as that of a run.
    """
    if len(named) > 1 or Path(named[0] or "study.toml").is_dir():
        raise ConfigError(
            f"klimb compare takes one study, a TOML file or the name of a ready one; got {' '.join(named)}. Runs are "
            "compared by klimb report RUN RUN ... on one page, and by klimb board over each other"
        )
