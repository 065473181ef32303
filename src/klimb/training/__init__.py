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
from klimb.training.collect import Collection, CollectSettings, collect
from klimb.training.crediting import CreditSettings
from klimb.training.critic import Critic, CriticSettings
from klimb.training.drawing import Actors, Round, ScoresResponses
from klimb.training.evaluation import Evaluation, ProblemResult, bootstrap_interval, evaluate, pass_at_k
from klimb.training.evaluations_log import (
    EvaluationRecord,
    ProblemRecord,
    Progress,
    append_evaluation,
    evaluation_record,
    read_evaluations,
)
from klimb.training.guarding import (
    BaseMetrics,
    Breach,
    Flags,
    GuardLimits,
    GuardSettings,
    MeasuresBase,
    find_breaches,
)
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
    "BaseMetrics",
    "Breach",
    "CheckpointContent",
    "CheckpointError",
    "CheckpointSettings",
    "CloningSettings",
    "CollectSettings",
    "Collection",
    "CreditSettings",
    "Critic",
    "CriticSettings",
    "Evaluation",
    "EvaluationRecord",
    "EvaluationSettings",
    "Flags",
    "GroupStore",
    "GuardLimits",
    "GuardSettings",
    "Interrupted",
    "LoggedGroups",
    "LoopSettings",
    "MeasuresBase",
    "MetricsLog",
    "NonFiniteError",
    "OnStep",
    "Optimizer",
    "OptimizerSettings",
    "Pair",
    "ProblemRecord",
    "ProblemResult",
    "Progress",
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
    "append_evaluation",
    "bootstrap_interval",
    "check_same_run",
    "clone",
    "collect",
    "evaluate",
    "evaluation_record",
    "find_breaches",
    "load_checkpoint",
    "newest_checkpoint",
    "newest_verified",
    "optimizer_step",
    "pass_at_k",
    "read_evaluations",
    "read_metrics",
    "run_folder_lock",
    "save_checkpoint",
    "score_samples",
    "train",
    "update",
    "without_wall_clock",
]
