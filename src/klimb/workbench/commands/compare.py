"""`klimb compare`: the runs of a study, and what they say together."""

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from klimb.workbench.options import CompareOptions

UNASKED = CompareOptions()


def compare(study: Annotated[str, Parameter(show_default=False)] = "", /, *, options: CompareOptions = UNASKED) -> None:
    """Compare methods: the runs of a study under one budget, and whether their differences are real.

    What is finished is not run again: after an interruption, the same command goes on.

    Args:
        study: A study's TOML file, or the name of a ready one; without it, the ready ones are listed.
        options: What it is asked.
    """
    from klimb.workbench.study.config import describe_ready_studies, read_study

    console = Console()
    if not study:
        for name, description in describe_ready_studies().items():
            console.print(Text.assemble((f"{name:<12}", "cyan"), description), soft_wrap=True)
        return
    config, text = read_study(study)
    from klimb.workbench.study.compare import run_compare

    run_compare(study, config, text, options, console=console)
