"""Where the model is that a command line names."""

from pathlib import Path

from klimb.errors import ConfigError
from klimb.policies.model_names import check_model_exists
from klimb.training.run_folder import RunFolder, is_run


def model_path(name: str) -> str:
    """Return what `load_policy` takes: the name itself, or the trained model inside a run's folder.

    Raises:
        ConfigError: the run has no model yet.
        ValueError: there is no model of this name.
    """
    if not name:
        return name
    if not is_run(Path(name)):
        check_model_exists(name)
        return name
    if not RunFolder(Path(name)).model.exists():
        raise ConfigError(f"the run {name} has no model yet, it did not end: klimb train --resume {name} goes on")
    return str(RunFolder(Path(name)).model)
