"""Log-probabilities in, loss, terms and metrics out. The loss knows no model and no data set."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
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
        Penalty,
        is_forward_kl,
        penalty_named,
        slope_at_reference,
    )
    from klimb.losses.recipe import Recipe
    from klimb.losses.recipes import RECIPES, recipe_named
    from klimb.losses.regression import SquaredResidual

__all__ = [
    "CLIPS",
    "RECIPES",
    "Clip",
    "Clipped",
    "Corrected",
    "DualClip",
    "Inputs",
    "K2InLoss",
    "K3InLoss",
    "KtoObjective",
    "Loss",
    "Mask",
    "NoClip",
    "Objective",
    "ObjectiveOutput",
    "Penalty",
    "Recipe",
    "SecondMoment",
    "SquaredResidual",
    "Taper",
    "TotalVariation",
    "Truncate",
    "clip_named",
    "effective_sample_share",
    "is_forward_kl",
    "penalty_named",
    "recipe_named",
    "slope_at_reference",
]

open_lazily(__name__)
