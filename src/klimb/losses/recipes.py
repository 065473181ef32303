"""Algorithms as data. Adding one means adding a row here, not a branch anywhere."""

import difflib
from collections.abc import Mapping

from klimb.losses.clips import DualClip
from klimb.losses.offline_recipes import OFFLINE_RECIPES
from klimb.losses.online_recipes import ONLINE_RECIPES
from klimb.losses.recipe import Recipe
from klimb.losses.surrogates import Estimator

_PAPER = "arXiv 2505.17508 (RPG)"

_DIVERGENCES = {
    "fkl": ("forward KL(ref‖π)", "E.1, F.1"),
    "rkl": ("reverse KL(π‖ref)", "E.3, F.4"),
    "ufkl": ("unnormalised forward KL", "3.2, F.3"),
    "urkl": ("unnormalised reverse KL", "3.6, F.5"),
}
_SLOPES = {"fkl": "−v", "rkl": "w·(x + 1)", "ufkl": "w − v", "urkl": "w·x"}
_PERSPECTIVES = {"fkl": "−v·x", "rkl": "w·x", "ufkl": "w − v − v·x", "urkl": "w·x − w + v"}


def _rpg(key: str, estimator: Estimator) -> Recipe:
    title, propositions = _DIVERGENCES[key]
    is_reinforce = estimator == "reinforce"
    differentiable_departs = (
        "Algorithm 1 differentiates through w and through the regularised advantage, so that the divergence enters "
        "the gradient a second time (docs/exactness.md); here w·A is clipped and the divergence is added unclipped."
    )
    return Recipe(
        name=f"rpg-reinforce-{key}" if is_reinforce else f"rpg-{key}",
        family="RPG",
        summary=f"RPG, {estimator}, {title}, {'RPG-style' if is_reinforce else 'PPO'} dual clip",
        source=f"{_PAPER}, propositions {propositions}, algorithm {2 if is_reinforce else 1}",
        formula=(
            f"−sg(w̄·A − β·({_SLOPES[key]}))·log π"
            if is_reinforce
            else f"dual-clip(w·A) + β·({_PERSPECTIVES[key]}), dual-clip as in PPO"
        ),
        divergence=key,
        beta=1e-4,
        estimator=estimator,
        level="token",
        clip=DualClip(low=0.2, high=0.28, ceiling=3.0),
        advantages="group-mean",
        reduce="token-mean",
        reference="iterative",
        group_filter=True,
        departs="" if is_reinforce else differentiable_departs,
    )


_ROWS: tuple[Recipe, ...] = (
    *(_rpg(key, "reinforce") for key in _DIVERGENCES),
    *(_rpg(key, "differentiable") for key in _DIVERGENCES),
    *ONLINE_RECIPES,
    *OFFLINE_RECIPES,
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ROWS}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: no such recipe; the message lists those there are and the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name.lower(), RECIPES, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"unknown recipe {name!r}{hint} There are: {', '.join(RECIPES)}")
