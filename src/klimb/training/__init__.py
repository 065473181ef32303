"""Collect, step, loop, optimizers, references, checkpoints, evaluation, cloning. Blind to the algorithm."""

from klimb.training.checkpoints import (
    CheckpointContent,
    CheckpointError,
    load_checkpoint,
    newest_checkpoint,
    newest_verified,
    save_checkpoint,
)
from klimb.training.cloning import CLONING_OBJECTIVE, CloningSettings, Pair, clone
from klimb.training.collect import Actors, Collection, CollectSettings, Round, ScoresResponses, collect
from klimb.training.evaluation import Evaluation, ProblemResult, bootstrap_interval, evaluate, pass_at_k
from klimb.training.identity import MAY_DIFFER, check_same_run
from klimb.training.locks import RunFolderInUse, run_folder_lock
from klimb.training.logged import GroupStore, LoggedGroups
from klimb.training.loop import OnStep, TrainResult, train
from klimb.training.metrics_log import MetricsLog, read_metrics, without_wall_clock
from klimb.training.optimizers import Optimizer, OptimizerSettings
from klimb.training.prompts import PromptStream
from klimb.training.references import Reference, ReferenceSettings
from klimb.training.scoring import score_samples
from klimb.training.settings import CheckpointSettings, EvaluationSettings, LoopSettings
from klimb.training.signals import Interrupted, StopRequest
from klimb.training.sources import ReplaySettings, SourceSettings
from klimb.training.step import StepOutcome, StepSettings, optimizer_step
from klimb.training.update import NonFiniteError, UpdateSettings, update

__all__ = [
    "CLONING_OBJECTIVE",
    "MAY_DIFFER",
    "Actors",
    "CheckpointContent",
    "CheckpointError",
    "CheckpointSettings",
    "CloningSettings",
    "CollectSettings",
    "Collection",
    "Evaluation",
    "EvaluationSettings",
    "GroupStore",
    "Interrupted",
    "LoggedGroups",
    "LoopSettings",
    "MetricsLog",
    "NonFiniteError",
    "OnStep",
    "Optimizer",
    "OptimizerSettings",
    "Pair",
    "ProblemResult",
    "PromptStream",
    "Reference",
    "ReferenceSettings",
    "ReplaySettings",
    "Round",
    "RunFolderInUse",
    "ScoresResponses",
    "SourceSettings",
    "StepOutcome",
    "StepSettings",
    "StopRequest",
    "TrainResult",
    "UpdateSettings",
    "bootstrap_interval",
    "check_same_run",
    "clone",
    "collect",
    "evaluate",
    "load_checkpoint",
    "newest_checkpoint",
    "newest_verified",
    "optimizer_step",
    "pass_at_k",
    "read_metrics",
    "run_folder_lock",
    "save_checkpoint",
    "score_samples",
    "train",
    "update",
    "without_wall_clock",
]
