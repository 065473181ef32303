"""`klimb learn`: train on what people say of the answers, and promote what is shown to be better."""

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from klimb.errors import ConfigError, Interrupted
from klimb.workbench.learn.settings import LearnSettings
from klimb.workbench.options import PathOrNone, Switch, check_is_there

UNASKED = LearnSettings()


def learn(
    run_file: PathOrNone = None,
    /,
    *,
    store: PathOrNone = None,
    deployment: PathOrNone = None,
    once: Switch = False,
    show: Annotated[Path | None, Parameter(show_default=False)] = None,
    poll_seconds: float = 10.0,
    settings: LearnSettings = UNASKED,
) -> None:
    """Learn from a store's ratings again and again: split, audit, train, compare, promote what is better.

    Stopped at any point, the same command goes on. Two on one deployment are refused.

    Args:
        run_file: How a candidate is trained: a run file; its ratings and its model come from here.
        store: Where `klimb serve` keeps the answers and what people said of them.
        deployment: The folder with `deployment.json`; begun with the run file's model where there is none.
        once: Do what is due, and end.
        show: Only print what this deployment decided, and why.
        poll_seconds: Between two looks into the store.
        settings: When it learns, and how sure it must be.
    """
    if show is not None:
        _show(show)
        return
    if run_file is None or store is None or deployment is None:
        raise ConfigError("klimb learn needs a run file, --store and --deployment; or --show with a deployment")
    check_is_there(run_file, "the run's TOML file")

    if not poll_seconds > 0:
        raise ConfigError(f"--poll-seconds must be > 0, got {poll_seconds}")
    from klimb.training.locks import run_folder_lock
    from klimb.training.signals import stops_at_once
    from klimb.workbench.learn.learner import Learner

    console = Console()
    learner = Learner(run_file=run_file, store=store, folder=deployment, settings=settings, console=console)
    with run_folder_lock(deployment), stops_at_once():
        if once:
            if not learner.tick():
                console.print(
                    f"nothing is due: {learner.num_missing():,} more answers are to be rated", highlight=False
                )
            return
        learner.open()
        console.print(f"learning from {store} for {deployment}; stop with Ctrl-C", markup=False, highlight=False)
        with _told_how_to_go_on(console):
            while True:
                learner.tick()
                time.sleep(poll_seconds)


@contextmanager
def _told_how_to_go_on(console: Console) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        console.print("stopped; the same command goes on")
        number = getattr(error, "signal_number", signal.SIGINT)
        raise Interrupted("stopped by a signal", signal_number=number) from error


def _show(folder: Path) -> None:
    from dataclasses import asdict

    from klimb.training.deployment import FILE, read_deployment
    from klimb.ui.terminal.learning import print_deployment
    from klimb.workbench.learn.history import read_history

    check_is_there(folder / FILE, "the folder of a deployment")
    deployment = read_deployment(folder)
    facts = {"answers": f"{deployment.current.name} ({deployment.current.reason})"}
    if deployment.candidate is not None:
        facts["candidate"] = f"{deployment.candidate.name}, {deployment.candidate_fraction:.0%} of the requests"
    if deployment.earlier:
        facts["before"] = ", ".join(policy.name for policy in deployment.earlier)
    print_deployment(Console(), facts, [asdict(row) for row in read_history(folder)])
