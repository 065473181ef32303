"""Log-probabilities in, loss, terms and metrics out. The loss knows no model and no data set."""

from klimb.losses.clips import CLIPS, Clip, Clipped, DualClip, Mask, NoClip, Truncate, clip_named
from klimb.losses.metrics import effective_sample_share
from klimb.losses.objective import Objective, ObjectiveOutput
from klimb.losses.penalties import K3InLoss, Penalty, penalty_named
from klimb.losses.recipes import RECIPES, Recipe, recipe_named

__all__ = [
    "CLIPS",
    "RECIPES",
    "Clip",
    "Clipped",
    "DualClip",
    "K3InLoss",
    "Mask",
    "NoClip",
    "Objective",
    "ObjectiveOutput",
    "Penalty",
    "Recipe",
    "Truncate",
    "clip_named",
    "effective_sample_share",
    "penalty_named",
    "recipe_named",
]
