"""`klimb train`: a run as a TOML file says, or one that goes on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from klimb.errors import ConfigError
from klimb.workbench.options import Overrides, PathOrNone, Switch, check_is_there

if TYPE_CHECKING:
    from klimb.training.run_folder import RunFolder
    from klimb.workbench.config import RunConfig


def train(
    config: PathOrNone = None,
    /,
    *,
    settings: Overrides = (),
    folder: PathOrNone = None,
    dry_run: Switch = False,
    resume: PathOrNone = None,
) -> None:
    """Train a model as a TOML file says.

    Args:
        config: The run's TOML file.
        settings: Overrides such as `objective.beta=1e-3`; values are TOML, `default` takes a key of the file away.
        folder: Where the results go; without it, a new folder under `run.folder`.
        dry_run: Load, take one group (of a run on logs, one step) through everything, print estimates, and stop.
        resume: A run's folder: go on from its newest checkpoint.
    """
    if config is not None and resume is not None:
        raise ConfigError("give a TOML file or --resume, not both: a resumed run has its configuration in its folder")
    if config is None and resume is None:
        raise ConfigError("give a TOML file (before any --set), or --resume with the folder of a run")
    if resume is not None:
        _resume(resume, list(settings), is_alone=folder is None and not dry_run)
    elif config is not None:
        _begin(config, list(settings), folder, is_dry=dry_run)


def _begin(path: Path, overrides: list[str], folder: Path | None, *, is_dry: bool) -> None:
    check_is_there(path, "the run's TOML file")
    from klimb.training.run_folder import check_is_free, free_folder
    from klimb.workbench.config.paths import check_paths

    run = _name_after(path, overrides)
    check_paths(run)
    if is_dry:
        from klimb.workbench.dry_run import run_dry

        run_dry(run, console=Console())
        return
    place = folder or free_folder(Path(run.run.folder) / run.run.name)
    check_is_free(place)

    def open_folder() -> "RunFolder":
        from klimb.workbench.provenance import new_run_folder

        return new_run_folder(place, run)

    _run(run, place, open_folder, resume=False)


def _name_after(path: Path, overrides: list[str]) -> "RunConfig":
    """Return the configuration, named after its file unless it names itself."""
    from klimb.workbench.config import build_config, is_resolved, read_tables, with_overrides

    tables = with_overrides(read_tables(path), overrides, is_resolved=is_resolved(path))
    section = tables.setdefault("run", {})
    if isinstance(section, dict):
        section.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:100].lstrip(".") or "run")
    return build_config(tables, source=str(path))


def _resume(path: Path, overrides: list[str], *, is_alone: bool) -> None:
    from klimb.training.run_folder import RunFolder, is_run

    if not is_alone:
        raise ConfigError("--resume takes a run as it is; only --set may go with it")
    if not is_run(path):
        raise ConfigError(f"{path} holds no run: there is no {RunFolder(path).config}")
    from klimb.workbench.config import build_config, read_tables, with_overrides
    from klimb.workbench.config.paths import check_paths

    folder = RunFolder(path)
    tables = with_overrides(read_tables(folder.config), overrides, is_resolved=True)
    run = build_config(tables, source=str(folder.config))
    check_paths(run)
    _run(run, path, lambda: folder, resume=True)


def _run(run: "RunConfig", path: Path, open_folder: "Callable[[], RunFolder]", *, resume: bool) -> None:
    from klimb.training.signals import stops_at_once
    from klimb.ui.terminal.run import print_run
    from klimb.ui.text import relative_to_working_directory
    from klimb.workbench.endings import told_in_one_line
    from klimb.workbench.run import run_training
    from klimb.workbench.session import make_session

    console = Console()
    title = f"{relative_to_working_directory(path)} · {run.objective.recipe}"
    with stops_at_once(), told_in_one_line(path):
        finished = run_training(make_session(run), open_folder, console=console, title=title, resume=resume)
    print_run(console, finished)
