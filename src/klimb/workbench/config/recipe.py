"""The recipe's settings, laid under those that a configuration gives itself."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from klimb.losses.recipe import Recipe
from klimb.losses.recipes import RECIPES
from klimb.workbench.config.learning import ObjectiveSection, TrainingSection, automatic_warmup

DEFAULT_RECIPE = "rpg-reinforce-urkl"


READ_BY: Mapping[str, tuple[str, ...]] = {
    "policy-gradient": ("divergence", "estimator", "level", "clip", "ratio"),
    "squared-residual": ("anchor", "value", "level"),
    "kto": ("desirable_weight", "undesirable_weight"),
}
"""Loss -> the keys of [objective] that it reads, besides recipe, loss, beta and reduce, which all of them read."""


def with_recipe_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same configuration with every setting of its recipe that it leaves open filled in.

    A section of another `kind` than the recipe's takes nothing from the recipe. An unknown recipe is left for the
    field's own check to report; until then the default recipe fills in, so that all errors come at once.
    """
    objective = given.get("objective", {})
    name = objective.get("recipe", DEFAULT_RECIPE) if isinstance(objective, Mapping) else DEFAULT_RECIPE
    recipe = RECIPES[name if isinstance(name, str) and name in RECIPES else DEFAULT_RECIPE]
    filled = dict(given)
    for section, defaults in recipe_sections(recipe).items():
        filled[section] = lay_over(defaults, given.get(section, {}))
    filled["correction"] = lay_over({"kind": "none"}, given.get("correction", {}))
    if "task" not in given and _draws_nothing(given.get("sources", {})):
        # A user's own logs are not to be judged by a task that nobody asked for.
        filled["evaluation"] = lay_over({"at_ends": False}, given.get("evaluation", {}))
    filled["task"] = lay_over({"kind": "arithmetic"}, given.get("task", {}))
    return _with_warmup(filled)


def _with_warmup(given: dict[str, Any]) -> dict[str, Any]:
    """Return the same with a number for `auto`, and that of the cloning following a number that was given.

    What is no table or no count is left for the fields' own checks to report.
    """
    optimizer, training = given.get("optimizer", {}), given.get("training", {})
    if not (isinstance(optimizer, Mapping) and isinstance(training, Mapping)):
        return given
    warmup = optimizer.get("warmup_steps", "auto")
    filled = dict(given)
    if isinstance(cloning := given.get("cloning"), Mapping):
        filled["cloning"] = {"warmup_steps": warmup, **cloning}
    counts = [
        training.get(key, TrainingSection.model_fields[key].default)
        for key in ("num_steps", "num_epochs", "num_minibatches")
    ]
    if warmup == "auto" and all(type(count) is int for count in counts):
        filled["optimizer"] = {**optimizer, "warmup_steps": automatic_warmup(math.prod(counts))}
    return filled


def _draws_nothing(sources: Any) -> bool:
    """Return True if the shares of other sources leave nothing for rollouts."""
    if not isinstance(sources, Mapping):
        return False
    others = [share for name in ("replay", "log", "feedback") if isinstance(share := sources.get(name, 0), int | float)]
    return sources.get("rollout", 0) == 0 and sum(others) >= 1


def recipe_sections(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return a recipe in the words of the configuration: section -> field -> value."""
    return {
        "objective": {
            "recipe": recipe.name,
            "divergence": recipe.divergence,
            "beta": float(recipe.beta),
            "estimator": recipe.estimator,
            "level": recipe.level,
            "reduce": recipe.reduce,
            "clip": table_of(recipe.clip),
            "loss": recipe.loss,
            "ratio": recipe.ratio,
            "anchor": recipe.anchor,
            "value": recipe.value,
            "desirable_weight": float(recipe.desirable_weight),
            "undesirable_weight": float(recipe.undesirable_weight),
        },
        "advantages": {
            "kind": recipe.advantages,
            "group_filter": recipe.group_filter,
            "offset": float(recipe.advantage_offset),
            "min_reward": "none" if recipe.min_reward is None else float(recipe.min_reward),
        },
        "credit": {
            "kind": recipe.credit,
            "kl_in_reward": float(recipe.kl_in_reward),
            "gae_lambda": float(recipe.gae_lambda),
            "discount": float(recipe.discount),
            "whiten": recipe.whiten,
        },
        "reference": {"kind": recipe.reference},
    }


def check_is_read(section: ObjectiveSection) -> None:
    """Return if no key was changed that the loss does not read.

    Raises:
        ValueError: one was; a setting that does nothing would be a result that says something else.
    """
    untouched = recipe_sections(RECIPES[section.recipe])["objective"]
    present = section.model_dump(mode="json")
    read = READ_BY[section.loss]
    for key in sorted({key for keys in READ_BY.values() for key in keys} - {*read}):
        if present[key] != untouched[key] and section.loss == untouched["loss"]:
            raise ValueError(
                f"objective.{key} = {present[key]!r} does nothing: the loss {section.loss} of recipe {section.recipe} "
                f"reads {', '.join(('beta', 'reduce', *read))}; leave it out, or take another recipe"
            )


def table_of(settings: Any) -> dict[str, Any]:
    """Return a settings class's values as a file would hold them."""
    return _adapter(type(settings)).dump_python(settings)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def lay_over(defaults: Mapping[str, Any], given: Any) -> Any:
    """`given` with the gaps filled from `defaults`; a bare text for a table with a `kind` names the kind."""
    if isinstance(given, str) and "kind" in defaults:
        given = {"kind": given}
    if not isinstance(given, Mapping):
        return given
    if given.get("kind", defaults.get("kind")) != defaults.get("kind"):
        return dict(given)
    merged = {**defaults, **given}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and key in given:
            merged[key] = lay_over(default, given[key])
    return merged
