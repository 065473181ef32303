"""The demo: an ordinary run, with a word on what to try next."""

from pathlib import Path

from rich.console import Console

from klimb.divergences import DIVERGENCES
from klimb.training.run_folder import RunFolder, move_aside
from klimb.training.signals import stops_at_once
from klimb.ui.terminal.run import print_commands, print_run
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.config import RunConfig, divergence_of
from klimb.workbench.endings import told_in_one_line
from klimb.workbench.provenance import new_run_folder
from klimb.workbench.run import run_training
from klimb.workbench.session import make_session


def run_demo(config: RunConfig, path: Path, *, console: Console) -> None:
    """Run it in the folder; an earlier run there is moved aside, nothing is lost."""

    def open_folder() -> RunFolder:
        aside = move_aside(path)
        if aside is not None:
            earlier, moved = relative_to_working_directory(path), relative_to_working_directory(aside)
            console.print(f"the earlier run in {earlier} is now in {moved}", markup=False, highlight=False)
        return new_run_folder(path, config)

    title = f"demo · {config.objective.recipe} · {divergence_of(config.objective)}"
    with stops_at_once(), told_in_one_line():
        finished = run_training(make_session(config), open_folder, console=console, title=title, resume=False)
    print_run(console, finished)
    console.print()
    print_commands(console, next_steps(config, finished.folder))


def next_steps(config: RunConfig, folder: RunFolder) -> list[tuple[str, str]]:
    """Commands that follow on from the demo, each with what it is for."""
    other = next(name for name in DIVERGENCES if name != divergence_of(config.objective))
    model, settings = (relative_to_working_directory(path) for path in (folder.model, folder.config))
    return [
        (f"klimb demo --divergence {other}", "the same with another divergence"),
        (f"klimb eval {model} --task arithmetic --set task.digits=2", "the trained model on larger numbers"),
        (f"klimb train {settings} --set task.digits=2", "the same run on larger numbers"),
        ("klimb recipes", "the algorithms there are"),
    ]
