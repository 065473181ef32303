"""Algorithms as data. Adding one means adding a row here, not a branch anywhere."""

import difflib
from collections.abc import Mapping

from klimb.losses.clips import DualClip
from klimb.losses.offline_recipes import OFFLINE_RECIPES
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


_GRPO = Recipe(
    name="grpo",
    summary="GRPO: PPO clip on group z-scores, unweighted k3 penalty to a fixed reference",
    source="arXiv 2402.03300, equations 3 and 4",
    formula="−min(w·A, clip(w, 1−ε, 1+ε)·A) + β·(ref/π − 1 − log(ref/π))",
    divergence="k3-in-loss",
    beta=0.04,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.2, ceiling=float("inf")),
    advantages="group-z-score",
    reduce="sequence-mean-token-mean",
    reference="fixed",
    group_filter=False,
    departs="none: the penalty is kept as published, although its gradient is forward KL's (docs/exactness.md)",
)

_DAPO = Recipe(
    name="dapo",
    summary="DAPO: clip-higher, token mean, dynamic sampling, no reference",
    source="arXiv 2503.14476, equation 8",
    formula="−min(w·A, clip(w, 1−ε_low, 1+ε_high)·A)",
    divergence="urkl",
    beta=0.0,
    estimator="differentiable",
    level="token",
    clip=DualClip(low=0.2, high=0.28, ceiling=float("inf")),
    advantages="group-z-score",
    reduce="token-mean",
    reference="none",
    group_filter=True,
    departs="overlong shaping belongs to the reward and is set with the task",
)

_ROWS: tuple[Recipe, ...] = (
    *(_rpg(key, "reinforce") for key in _DIVERGENCES),
    *(_rpg(key, "differentiable") for key in _DIVERGENCES),
    _GRPO,
    _DAPO,
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
    nearest = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"unknown recipe {name!r}{hint} There are: {', '.join(RECIPES)}")
