"""Log-probabilities in, loss, terms and metrics out. The loss knows no model and no data set."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.losses.build import build_loss
    from klimb.losses.clips import (
        CLIPS,
        Clip,
        Clipped,
        DualClip,
        Mask,
        NoClip,
        SecondMoment,
        Taper,
        TotalVariation,
        Truncate,
        clip_named,
    )
    from klimb.losses.corrections import Corrected
    from klimb.losses.inputs import Inputs, Loss, ObjectiveOutput
    from klimb.losses.kto import KtoObjective
    from klimb.losses.measures import effective_sample_share
    from klimb.losses.objective import (
        K2InLoss,
        K3InLoss,
        Objective,
        penalty_named,
        slope_at_reference,
    )
    from klimb.losses.pairs import PairwiseLoss
    from klimb.losses.regression import SquaredResidual
    from klimb.losses.settings import (
        AutomaticCorrection,
        DecoupledCorrection,
        KtoSettings,
        LossSettings,
        MaskedCorrection,
        NoCorrection,
        NormalisedCorrection,
        ObjectiveSettings,
        PairwiseSettings,
        Penalty,
        SquaredResidualSettings,
        TruncatedCorrection,
    )

__all__ = [
    "CLIPS",
    "AutomaticCorrection",
    "Clip",
    "Clipped",
    "Corrected",
    "DecoupledCorrection",
    "DualClip",
    "Inputs",
    "K2InLoss",
    "K3InLoss",
    "KtoObjective",
    "KtoSettings",
    "Loss",
    "LossSettings",
    "Mask",
    "MaskedCorrection",
    "NoClip",
    "NoCorrection",
    "NormalisedCorrection",
    "Objective",
    "ObjectiveOutput",
    "ObjectiveSettings",
    "PairwiseLoss",
    "PairwiseSettings",
    "Penalty",
    "SecondMoment",
    "SquaredResidual",
    "SquaredResidualSettings",
    "Taper",
    "TotalVariation",
    "Truncate",
    "TruncatedCorrection",
    "build_loss",
    "clip_named",
    "effective_sample_share",
    "penalty_named",
    "slope_at_reference",
]

open_lazily(__name__)
