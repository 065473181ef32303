"""`klimb train`: a run as a TOML file says, or one that goes on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    restart: Switch = False,
) -> None:
    """Train a model as a TOML file says.

    Args:
        config: The run's TOML file.
        settings: Overrides such as `objective.beta=1e-3`; values are TOML, `default` takes a key of the file away.
        folder: Where the results go; without it, a new folder under `run.folder`.
        dry_run: Load, take one group (of a run on logs, one step) through everything, print estimates, and stop.
        resume: A run's folder: go on from its newest checkpoint.
        restart: With --resume: keep the run's folder under another name (-1, -2, …), and begin it anew.
    """
    if restart and resume is None:
        raise ConfigError("--restart begins a run anew that is there already: give its folder with --resume")
    if config is not None and resume is not None:
        raise ConfigError("give a TOML file or --resume, not both: a resumed run has its configuration in its folder")
    if config is None and resume is None:
        raise ConfigError("give a TOML file (before any --set), or --resume with the folder of a run")
    if resume is not None:
        if folder is not None or dry_run:
            raise ConfigError("--resume takes a run as it is; only --set and --restart may go with it")
        _resume(resume, list(settings), is_restart=restart)
    elif config is not None:
        _begin(config, list(settings), folder, is_dry=dry_run)


def _begin(path: Path, overrides: list[str], folder: Path | None, *, is_dry: bool) -> None:
    check_is_there(path, "the run's TOML file")
    from klimb.training.run_folder import check_can_be_made, check_is_free, free_folder
    from klimb.workbench.config.paths import check_paths

    run = _name_after(path, overrides)
    check_paths(run)
    if is_dry:
        from klimb.workbench.dry_run import run_dry

        run_dry(run, console=Console())
        return
    place = folder or free_folder(Path(run.run.folder) / run.run.name)
    check_is_free(place)
    check_can_be_made(place)

    def open_folder() -> "RunFolder":
        from klimb.workbench.provenance import new_run_folder

        # Another run may have taken the name while this one's model was loaded.
        named = place if folder is not None else Path(run.run.folder) / run.run.name
        return new_run_folder(named, run, is_numbered=folder is None)

    _run(run, open_folder, resume=False)


def _name_after(path: Path, overrides: list[str]) -> "RunConfig":
    """Return the configuration, named after its file unless it names itself."""
    from klimb.workbench.config import build_config, is_resolved, read_tables, with_overrides

    tables = with_overrides(read_tables(path), overrides, is_resolved=is_resolved(path))
    section = tables.setdefault("run", {})
    if isinstance(section, dict):
        section.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:100].lstrip(".") or "run")
    return build_config(tables, source=str(path))


def _resume(path: Path, overrides: list[str], *, is_restart: bool) -> None:
    from klimb.training.run_folder import RunFolder, check_holds_run
    from klimb.workbench.run_directory import as_typed_elsewhere, in_directory_of

    check_holds_run(path)
    folder = RunFolder(path)
    tables = _stored_tables(folder)
    here = Path.cwd()
    with in_directory_of(path, tables):
        is_elsewhere = Path.cwd() != here
        folder = RunFolder(here / path) if is_elsewhere else folder
        run = _with_settings(tables, as_typed_elsewhere(overrides) if is_elsewhere else overrides, folder)
        if is_restart:
            _restart(run, folder)
            return
        from klimb.workbench.provenance import mend_before_resume

        mend_before_resume(folder, run)
        _run(run, lambda: folder, resume=True)


def _stored_tables(folder: "RunFolder") -> "dict[str, Any]":
    """Return the configuration that the run was begun with.

    Raises:
        ConfigError: it is gone or damaged.
    """
    from klimb.workbench.config import read_tables

    try:
        return read_tables(folder.config)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. The run cannot go on without its configuration: put a copy of the file back, or begin a new run "
            "from the TOML file; everything else in the folder is as it was"
        ) from None


def _with_settings(tables: "dict[str, Any]", overrides: list[str], folder: "RunFolder") -> "RunConfig":
    from klimb.workbench.config import build_config, with_overrides
    from klimb.workbench.config.paths import check_paths

    run = build_config(with_overrides(tables, overrides, is_resolved=True), source=str(folder.config))
    check_paths(run)
    return run


def _restart(run: "RunConfig", folder: "RunFolder") -> None:
    from klimb.training.locks import run_folder_lock
    from klimb.training.run_folder import move_aside

    with run_folder_lock(folder.path):
        pass  # a run that goes on in there must not lose its folder

    def open_folder() -> "RunFolder":
        from klimb.ui.text import relative_to_working_directory
        from klimb.workbench.provenance import new_run_folder

        aside = move_aside(folder.path)
        if aside is not None:
            Console().print(f"kept the run that was there as {relative_to_working_directory(aside)}", highlight=False)
        return new_run_folder(folder.path, run)

    _run(run, open_folder, resume=False)


def _run(run: "RunConfig", open_folder: "Callable[[], RunFolder]", *, resume: bool) -> None:
    from klimb.training.signals import stops_at_once
    from klimb.ui.terminal.run import print_run
    from klimb.workbench.endings import told_in_one_line
    from klimb.workbench.run import run_training
    from klimb.workbench.session import make_session

    console = Console()
    with stops_at_once(), told_in_one_line():
        finished = run_training(make_session(run), open_folder, console=console, resume=resume)
    print_run(console, finished)
