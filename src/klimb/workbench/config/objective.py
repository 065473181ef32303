"""`[objective]`: the settings of a loss, laid over those of the recipe that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from klimb.declarations import Checked, OneOf, configurable
from klimb.losses.settings import KtoSettings, ObjectiveSettings, PairwiseSettings, SquaredResidualSettings
from klimb.training.recipes import recipe_named


def _check_recipe(name: str) -> str:
    return recipe_named(name).name


RecipeName = Annotated[str, Checked(_check_recipe)]


@configurable
@dataclass(frozen=True, kw_only=True)
class FromRecipe:
    """What every loss can say besides: where the settings come from that it leaves open."""

    recipe: RecipeName
    """Named set of settings; every key given beside it overrides it. `klimb recipes` lists them."""


@configurable
@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(ObjectiveSettings, FromRecipe):
    """J = E[R] - beta * divergence, and the surrogate whose gradient is that of J."""


@configurable
@dataclass(frozen=True, kw_only=True)
class SquaredResidualConfig(SquaredResidualSettings, FromRecipe):
    """The squared difference between beta * log(pi/anchor) and the advantage that it has at the optimum."""


@configurable
@dataclass(frozen=True, kw_only=True)
class KtoConfig(KtoSettings, FromRecipe):
    """The prospect-theoretic loss of thumbs up and down, one response each."""


@configurable
@dataclass(frozen=True, kw_only=True)
class PairwiseConfig(PairwiseSettings, FromRecipe):
    """Two answers to one prompt, the better against the worse: every pair of a group whose rewards differ."""


LossConfig = ObjectiveConfig | SquaredResidualConfig | KtoConfig | PairwiseConfig


LOSS_CONFIGS: Mapping[str, type[LossConfig]] = {
    "policy-gradient": ObjectiveConfig,
    "squared-residual": SquaredResidualConfig,
    "kto": KtoConfig,
    "pairwise": PairwiseConfig,
}


def divergence_of(loss: LossConfig) -> str:
    """Return the name of the divergence; empty for a loss that has none."""
    return str(loss.divergence) if isinstance(loss, ObjectiveConfig | PairwiseConfig) else ""


AnyLoss = Annotated[LossConfig, OneOf(LOSS_CONFIGS, key="loss")]
