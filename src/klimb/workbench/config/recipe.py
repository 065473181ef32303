"""The recipe's settings, laid under those that a configuration gives itself."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from klimb.declarations import OneOf
from klimb.losses.clips import CLIPS
from klimb.losses.settings import CORRECTION_CHOICES, LOSSES, OwnClip
from klimb.tasks.catalogue import TASKS, OwnTask
from klimb.tasks.file import NO_REWARD
from klimb.tasks.python_rewards import TASKS_OWN
from klimb.training.recipe import Recipe
from klimb.training.recipes import RECIPES
from klimb.training.settings import REFERENCES, OwnReference, TrainingSettings, automatic_warmup
from klimb.training.settings.advantages import IDLE_CREDIT

DEFAULT_RECIPE = "rpg-reinforce-urkl"


UNIONS: Mapping[str, OneOf] = {
    "task": OneOf(TASKS, own=OwnTask),
    "objective.clip": OneOf({kind: type(clip) for kind, clip in CLIPS.items()}, own=OwnClip),
    "correction": OneOf(CORRECTION_CHOICES),
    "reference": OneOf(REFERENCES, own=OwnReference),
}
"""Tables whose keys depend on their kind. Elsewhere there are the same keys whatever the kind."""


OTHER_BOUNDS = ("objective.clip",)
"""Of these a key of the same name is another bound with each kind: `low` of a mask is not that of a dual clip."""


KINDED = (*UNIONS, "optimizer", "advantages", "credit")
"""Tables that may be given as the word of their kind alone."""


Tables = dict[str, Any]


def with_recipe_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same configuration with every setting of its recipe that it leaves open filled in.

    What does not fit another `kind`, or another loss, than the recipe's is not taken from it. An unknown recipe is left
    for the field's own check to report; until then the default recipe fills in, so that all errors come at once.
    """
    filled = _with_tables_for_words(given)
    objective = given.get("objective", {})
    name = objective.get("recipe", DEFAULT_RECIPE) if isinstance(objective, Mapping) else DEFAULT_RECIPE
    recipe = RECIPES[name if isinstance(name, str) and name in RECIPES else DEFAULT_RECIPE]
    for section, defaults in filled_sections(recipe).items():
        filled[section] = _fill_gaps(defaults, filled.get(section, {}), path=section)
    if "task" not in given and _draws_nothing(given.get("sources", {})):
        # A user's own logs are not to be judged by a task that nobody asked for.
        filled["evaluation"] = _fill_gaps({"at_ends": False}, given.get("evaluation", {}), path="evaluation")
    return _with_warmup(_without_own_reward(filled))


def _without_own_reward(given: dict[str, Any]) -> dict[str, Any]:
    """Return the same; a file whose reward nobody asks for has none, and needs no answer for one."""
    task, rewards = given.get("task"), given.get("rewards")
    if not (isinstance(task, Mapping) and task.get("kind") == "file" and isinstance(rewards, Mapping) and rewards):
        return given
    named = [each.get("reward") for each in rewards.values() if isinstance(each, Mapping)]
    return given if TASKS_OWN in named else {**given, "task": {"reward": NO_REWARD, **task}}


def _with_tables_for_words(given: Mapping[str, Any]) -> Tables:
    """Return the same with a table in the place of each word that names the kind of one."""
    tables = dict(given)
    for path in KINDED:
        section, _, leaf = path.rpartition(".")
        if section and isinstance(tables.get(section), Mapping):
            tables[section] = table = dict(tables[section])
        else:
            table = tables
        if isinstance(word := table.get(leaf), str):
            table[leaf] = {"kind": word}
    return tables


def _with_warmup(given: dict[str, Any]) -> dict[str, Any]:
    """Return the same with numbers for `auto`, and that of the cloning following a number that was given.

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
    if all(type(count) is int and count >= 1 for count in counts):
        filled["optimizer"] = {**optimizer, **_automatic_steps(optimizer, math.prod(counts))}
    return filled


def _automatic_steps(optimizer: Mapping[str, Any], num_optimizer_steps: int) -> Tables:
    """Return numbers for the `auto` of warm-up and schedule, in a run of so many optimiser steps."""
    found: Tables = {}
    if optimizer.get("warmup_steps", "auto") == "auto":
        found["warmup_steps"] = automatic_warmup(num_optimizer_steps)
    decays = optimizer.get("schedule", "constant") in ("linear", "cosine")
    if decays and optimizer.get("schedule_steps", "auto") == "auto":
        found["schedule_steps"] = num_optimizer_steps
    return found


def _draws_nothing(sources: Any) -> bool:
    """Return True if the shares of other sources leave nothing for rollouts."""
    if not isinstance(sources, Mapping):
        return False
    others = [share for name in ("replay", "log", "feedback") if isinstance(share := sources.get(name, 0), int | float)]
    return sources.get("rollout", 0) == 0 and sum(others) >= 1


def sections_without_recipe() -> dict[str, Tables]:
    """Return the kinds of the sections that no recipe names: section -> its table."""
    return {"correction": {"kind": "auto"}, "task": {"kind": "arithmetic"}}


def recipe_sections(recipe: Recipe) -> dict[str, Tables]:
    """Return a recipe in the words of the configuration: section -> field -> value."""
    return {
        "objective": {"recipe": recipe.name, **table_of(recipe.objective)},
        "advantages": table_of(recipe.advantages),
        "credit": table_of(recipe.credit),
        "reference": table_of(recipe.reference),
    }


def filled_sections(recipe: Recipe) -> dict[str, Tables]:
    """Return what holds of the sections of which a run file says nothing: the recipe's, and those of no recipe."""
    return {**sections_without_recipe(), **recipe_sections(recipe)}


def table_of(settings: Any, **options: Any) -> Tables:
    """Return a settings class's values as a file would hold them; options as pydantic's `exclude_defaults`."""
    return _adapter(type(settings)).dump_python(settings, mode="json", **options)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _fill_gaps(defaults: Mapping[str, Any], given: Any, *, path: str) -> Any:
    """Return `given` with its gaps filled by what of the defaults fits it."""
    if not isinstance(given, Mapping):
        return given
    merged = {**_fitting(defaults, given, path), **given}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and key in given:
            merged[key] = _fill_gaps(default, given[key], path=f"{path}.{key}")
    return merged


def _fitting(defaults: Mapping[str, Any], given: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return those of a recipe's settings that act with the kind, or the loss, that is given."""
    kind = given.get("kind", defaults.get("kind"))
    if path in UNIONS:
        return defaults if kind == defaults.get("kind") else {}
    if path == "credit":
        idle = IDLE_CREDIT.get(kind, ()) if isinstance(kind, str) else ()
        return {key: value for key, value in defaults.items() if key not in idle}
    if path == "objective":
        loss = given.get("loss", defaults["loss"])
        is_another = loss != defaults["loss"] and isinstance(loss, str) and loss in LOSSES
        return {"recipe": defaults["recipe"]} if is_another else defaults
    return defaults
