"""`klimb reward-model`: a model that rates answers, trained on people's ratings and preferences."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from klimb.errors import ConfigError
from klimb.training.reward_model.settings import RewardModelSettings
from klimb.workbench.options import TextOrNone, check_is_there, check_model

NAME = "reward-model"

DEFAULTS = RewardModelSettings()


def reward_model(
    store: Path,
    /,
    *,
    model: str,
    into: Path,
    where: TextOrNone = "",
    settings: Annotated[RewardModelSettings, Parameter(name="*")] = DEFAULTS,
) -> None:
    """Train a reward model on a store's ratings and preferences, and say what it is worth on held-out ones.

    Args:
        store: A store's folder, a run's folder or one segment.
        model: Whose body it is: a Hugging Face folder, a .gguf file, `smollm2-135m`, or a run's folder.
        into: Folder of the reward model; `reward = "model:FOLDER"` then rewards with it.
        where: Only these samples, a DuckDB condition such as `source = 'feedback'`.
        settings: How it is trained.
    """
    check_is_there(store, "a store's folder, a run's folder or one segment")
    check_model(model)
    if into.exists():
        raise ConfigError(f"{into} already exists; name another folder")
    from klimb.workbench.reward_model import run_reward_model

    run_reward_model(store, model=model, into=into, where=where, settings=settings, console=Console())
