"""Off-policy, KL-regularised reinforcement learning for language models."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.workbench.python_run import TrainedRun, train

__all__ = ["TrainedRun", "train"]

__version__ = "0.2.0"

open_lazily(__name__)
