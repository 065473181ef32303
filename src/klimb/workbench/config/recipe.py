"""The recipe's settings, laid under those that a configuration gives itself."""

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from klimb.losses.settings import LOSSES
from klimb.training.recipe import Recipe
from klimb.training.recipes import RECIPES
from klimb.training.settings import TrainingSettings, automatic_warmup

DEFAULT_RECIPE = "rpg-reinforce-urkl"


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
    filled["correction"] = lay_over({"kind": "auto"}, given.get("correction", {}))
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
    if isinstance(cloning := given.get("cloning"), Mapping) and type(warmup) is int and warmup >= 0:
        filled["cloning"] = {"warmup_steps": warmup, **cloning}
    counts = [
        training.get(key, getattr(TrainingSettings, key)) for key in ("num_steps", "num_epochs", "num_minibatches")
    ]
    if warmup == "auto" and all(type(count) is int and count >= 1 for count in counts):
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
        "objective": {"recipe": recipe.name, **table_of(recipe.objective)},
        "advantages": table_of(recipe.advantages),
        "credit": table_of(recipe.credit),
        "reference": table_of(recipe.reference),
    }


def table_of(settings: Any, **options: Any) -> dict[str, Any]:
    """Return a settings class's values as a file would hold them; options as pydantic's `exclude_defaults`."""
    return _adapter(type(settings)).dump_python(settings, mode="json", **options)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def lay_over(defaults: Mapping[str, Any], given: Any) -> Any:
    """`given` with the gaps filled from `defaults`; a bare text for a table with a `kind` names the kind."""
    if isinstance(given, str) and "kind" in defaults:
        given = {"kind": given}
    if not isinstance(given, Mapping):
        return given
    if "kind" in defaults and given.get("kind", defaults["kind"]) != defaults["kind"]:
        return dict(given)
    merged = {**_shared_with_another_loss(defaults, given), **given}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and key in given:
            merged[key] = lay_over(default, given[key])
    return merged


def _shared_with_another_loss(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of a recipe's objective a loss that is not the recipe's has too."""
    loss = given.get("loss", defaults.get("loss"))
    if loss == defaults.get("loss") or not isinstance(loss, str) or loss not in LOSSES:
        return defaults
    shared = {entry.name for entry in fields(LOSSES[loss])} | {"recipe"}
    return {key: value for key, value in defaults.items() if key in shared and key != "loss"}
