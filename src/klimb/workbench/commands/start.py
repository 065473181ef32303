"""`klimb start`: from files of one's own to a run file, in one command."""

from pathlib import Path

from rich.console import Console

from klimb.errors import ConfigError
from klimb.workbench.import_rules import UNASKED, check_files, check_no_file
from klimb.workbench.options import ImportOptions, PathOrNone, check_model

MOST_HELD_OUT = 0.5


def start(*files: str, into: PathOrNone = None, held_out: float = 0.2, options: ImportOptions = UNASKED) -> None:
    """Import files, say what they are good for, and write the run file; `--model` is the model to train.

    Args:
        files: What `klimb import` takes.
        into: The store's folder; without it, DATA-store here.
        held_out: Share of the prompts, with all rows of the same users, that is not trained on: they say at the end
            whether the model is better.
        options: How they are read.
    """
    check_files(files, "klimb start log.csv")
    if into is not None:
        check_no_file(into)
    check_model(options.model)
    if not 0 < held_out <= MOST_HELD_OUT:
        raise ConfigError(f"--held-out must be above 0 and at most {MOST_HELD_OUT}, got {held_out:g}")
    from klimb.workbench.starting import run_start, store_path

    run_start(files, store_path(files) if into is None else Path(into), options, held_out, console=Console())
