"""All that a run can be told, as plain frozen values; each is also a table of a run file. Read without torch."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.training.settings.advantages import AdvantageSettings, CreditSettings, CriticSettings
    from klimb.training.settings.feedback import FeedbackSettings
    from klimb.training.settings.fit import check_evaluation_fits, check_loss_fits, choose_correction, why_centred
    from klimb.training.settings.loop import (
        CheckpointSettings,
        EvaluationSettings,
        LoopSettings,
        MicroBatchTokens,
        RolloutSettings,
        TrainingSettings,
    )
    from klimb.training.settings.optimizer import (
        ESS_METRICS,
        CloningSettings,
        EssScaling,
        OptimizerSettings,
        automatic_warmup,
    )
    from klimb.training.settings.reference import (
        REFERENCES,
        EmaReference,
        IterativeReference,
        OwnReference,
        ReferenceSettings,
        ReferenceStanding,
        reference_named,
    )
    from klimb.training.settings.sources import SOURCES, ReplaySettings, SourceSettings
    from klimb.training.settings.watching import EarlyStoppingSettings

__all__ = [
    "ESS_METRICS",
    "REFERENCES",
    "SOURCES",
    "AdvantageSettings",
    "CheckpointSettings",
    "CloningSettings",
    "CreditSettings",
    "CriticSettings",
    "EarlyStoppingSettings",
    "EmaReference",
    "EssScaling",
    "EvaluationSettings",
    "FeedbackSettings",
    "IterativeReference",
    "LoopSettings",
    "MicroBatchTokens",
    "OptimizerSettings",
    "OwnReference",
    "ReferenceSettings",
    "ReferenceStanding",
    "ReplaySettings",
    "RolloutSettings",
    "SourceSettings",
    "TrainingSettings",
    "automatic_warmup",
    "check_evaluation_fits",
    "check_loss_fits",
    "choose_correction",
    "reference_named",
    "why_centred",
]

open_lazily(__name__)
