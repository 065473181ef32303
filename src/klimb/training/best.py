"""The best point of a run that is over: which it is, and the policy put there where that is to be the model."""

import logging

from klimb.findings.evaluations import BestPoint, Progress
from klimb.training.checkpoints import checkpoint_path, find_damage, load_checkpoint
from klimb.training.settings import CheckpointSettings
from klimb.training.state import RunState, copy_weights

logger = logging.getLogger(__name__)


def find_best(state: RunState, settings: CheckpointSettings) -> BestPoint | None:
    """Return the best point of a run that is over, and put the policy there if the settings say so.

    Where the best checkpoint is missing or damaged there is none, with the reason in the log.
    """
    watch, checkpoints = state.watches.best, state.folder / "checkpoints"
    if watch is None:
        return None
    if watch.best is None:
        logger.warning("checkpoints.best_metric = %r was never logged: there is no best checkpoint", watch.metric)
        return None
    path = checkpoint_path(checkpoints, watch.best_step)
    damage = find_damage(path)
    if damage:
        then = "; the model is that of the last step" if settings.model == "best" else ""
        logger.error("the best checkpoint, %s, is damaged (%s)%s", path, damage, then)
        return None
    content = load_checkpoint(path)
    if settings.model == "best":
        copy_weights(content.tensors["weights"], state.policy.trainable())
    numbers = content.numbers
    progress = Progress(
        step=int(numbers["step"]),
        num_tokens_generated=int(numbers["num_tokens_generated"]),
        elapsed_seconds=float(numbers["elapsed_seconds"]),
    )
    return BestPoint(watch.metric, watch.best, progress, is_model=settings.model == "best")
