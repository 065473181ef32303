"""Collect, step, loop, optimizers, references, checkpoints, evaluation, cloning. Blind to the algorithm."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.training.callbacks import Callback, RunningRun
    from klimb.training.checkpoints import (
        CheckpointContent,
        CheckpointError,
        load_checkpoint,
        newest_checkpoint,
        newest_verified,
        save_checkpoint,
    )
    from klimb.training.clock import RunClock
    from klimb.training.cloning import CLONING_OBJECTIVE, Pair, clone
    from klimb.training.critic import Critic
    from klimb.training.evaluation import append_evaluation, evaluate
    from klimb.training.guard.base_metrics import BaseMetrics, Flags, MeasuresBase
    from klimb.training.guard.limits import find_breaches
    from klimb.training.guard.settings import GuardSettings
    from klimb.training.identity import MAY_DIFFER, check_same_run, run_identity
    from klimb.training.locks import RunFolderInUse, run_folder_lock
    from klimb.training.loop import OnStep, TrainResult, train
    from klimb.training.metrics import MetricsLog, read_metrics, without_wall_clock
    from klimb.training.minibatches import score_samples
    from klimb.training.optimizers import Optimizer
    from klimb.training.prompts import PromptStream
    from klimb.training.recipe import Recipe
    from klimb.training.recipes import RECIPES, recipe_named
    from klimb.training.reference_rules import Reference
    from klimb.training.rollouts import ResponseScorer, RolloutContext, Rollouts, RolloutWorker, collect_rollouts
    from klimb.training.run_folder import read_evaluations
    from klimb.training.settings import (
        AdvantageSettings,
        CheckpointSettings,
        CloningSettings,
        CreditSettings,
        CriticSettings,
        EarlyStoppingSettings,
        EvaluationSettings,
        IterativeReference,
        LoopSettings,
        OptimizerSettings,
        ReferenceSettings,
        ReferenceStanding,
        ReplaySettings,
        RolloutSettings,
        SourceSettings,
        TrainingSettings,
        reference_named,
    )
    from klimb.training.signals import StopRequest
    from klimb.training.sources.offline import GroupStore, OfflineSource
    from klimb.training.update import NonFiniteError, StepOutcome, optimizer_step, update

__all__ = [
    "CLONING_OBJECTIVE",
    "MAY_DIFFER",
    "RECIPES",
    "AdvantageSettings",
    "BaseMetrics",
    "Callback",
    "CheckpointContent",
    "CheckpointError",
    "CheckpointSettings",
    "CloningSettings",
    "CreditSettings",
    "Critic",
    "CriticSettings",
    "EarlyStoppingSettings",
    "EvaluationSettings",
    "Flags",
    "GroupStore",
    "GuardSettings",
    "IterativeReference",
    "LoopSettings",
    "MeasuresBase",
    "MetricsLog",
    "NonFiniteError",
    "OfflineSource",
    "OnStep",
    "Optimizer",
    "OptimizerSettings",
    "Pair",
    "PromptStream",
    "Recipe",
    "Reference",
    "ReferenceSettings",
    "ReferenceStanding",
    "ReplaySettings",
    "ResponseScorer",
    "RolloutContext",
    "RolloutSettings",
    "RolloutWorker",
    "Rollouts",
    "RunClock",
    "RunFolderInUse",
    "RunningRun",
    "SourceSettings",
    "StepOutcome",
    "StopRequest",
    "TrainResult",
    "TrainingSettings",
    "append_evaluation",
    "check_same_run",
    "clone",
    "collect_rollouts",
    "evaluate",
    "find_breaches",
    "load_checkpoint",
    "newest_checkpoint",
    "newest_verified",
    "optimizer_step",
    "read_evaluations",
    "read_metrics",
    "recipe_named",
    "reference_named",
    "run_folder_lock",
    "run_identity",
    "save_checkpoint",
    "score_samples",
    "train",
    "update",
    "without_wall_clock",
]

open_lazily(__name__)
