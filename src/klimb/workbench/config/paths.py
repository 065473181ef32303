"""Whether what a run file points at is there: told before anything is loaded."""

from collections.abc import Collection
from pathlib import Path

from klimb.errors import ConfigError
from klimb.experience.reading.sources import find_source
from klimb.own_parts import is_own, source_hash
from klimb.policies.model_names import check_model_exists
from klimb.policies.settings import is_template_text
from klimb.tasks.reward_model import MODEL_PREFIX, check_folder
from klimb.tasks.rewards import RewardSettings
from klimb.training.run_folder import flat_settings
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.config.run import RunConfig

FILES = ("task.path", "task.held_out_path", "task.few_shot_path", "cloning.path")
"""Keys that name a file of rows, a folder of such files, or a glob."""


STORES = ("log.path", "feedback.path")
"""Keys that name a store, a run's folder or a segment."""


def check_paths(config: RunConfig, *, sections: Collection[str] = ()) -> None:
    """Return if the model, the files, the stores and the modules of own parts that the run names are there.

    Args:
        config: of the run.
        sections: look at these alone; at all of them where none is named.

    Raises:
        ConfigError: one is not, or is a folder where a file is expected; with its key.
        ValueError: there is no such model, or no reward model in its folder.
    """
    check_model_exists(config.model.path)
    tables = resolved_tables(config)
    named = flat_settings({name: tables[name] for name in sections or tables if name in tables})
    for key in FILES:
        if key in named:
            _check_rows_are_there(key, str(named[key]))
    template = config.model.chat_template
    if template is not None and not is_template_text(template) and not Path(template).is_file():
        raise ConfigError(
            f"model.chat_template = {template!r}: expected a Jinja file or a template, and {_found_instead(template)}"
        )
    for key in STORES:
        if key in named and not is_own(str(named[key])) and not Path(str(named[key])).exists():
            found = _found_instead(str(named[key]))
            raise ConfigError(f"{key} = {named[key]!r}: expected a store or a run's folder, and {found}")
    callbacks = () if sections and "run" not in sections else config.run.callbacks
    environment = config.environment if not sections or "environment" in sections else None
    tools = () if environment is None else environment.tools
    listed = (*(("run.callbacks", each) for each in callbacks), *(("environment.tools", each) for each in tools))
    for key, value in (*named.items(), *listed):
        if isinstance(value, str) and is_own(value):
            _check_module(key, value)
        elif key.startswith("rewards.") and str(value).startswith(MODEL_PREFIX):
            check_folder(Path(str(value).removeprefix(MODEL_PREFIX)), key=key)
    for name, settings in config.rewards.items() if not sections or "rewards" in sections else ():
        _check_rubric(name, settings)


def _check_rubric(name: str, settings: RewardSettings) -> None:
    if settings.judge is None:
        return
    try:
        settings.judge.read_rubric()
    except ValueError as error:
        raise ConfigError(f"rewards.{name}.{error}") from None


def _check_rows_are_there(key: str, path: str) -> None:
    try:
        find_source(path)
    except (FileNotFoundError, ValueError) as error:
        is_there = Path(path).exists()
        found = str(error) if is_there else f"expected a file, and {_found_instead(path)}"
        raise ConfigError(f"{key} = {path!r}: {found}") from None


def _found_instead(path: str) -> str:
    if Path(path).is_dir():
        return "it is a folder"
    return f"there is nothing of that name in {Path(path).absolute().parent}"


def _check_module(key: str, location: str) -> None:
    try:
        source_hash(location)
    except ConfigError as error:
        raise ConfigError(f"{key} = {error}") from None
