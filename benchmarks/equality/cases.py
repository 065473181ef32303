"""All cases, in the order in which they run."""

from functools import partial

from benchmarks.equality.case import Case
from benchmarks.equality.instrument_cases import INSTRUMENT_CASES
from benchmarks.equality.training_cases import TRAINING_CASES, measure_recipe

RECIPES = (
    *("rpg-reinforce-fkl", "rpg-reinforce-rkl", "rpg-reinforce-ufkl", "rpg-reinforce-urkl"),
    *("rpg-fkl", "rpg-rkl", "rpg-ufkl", "rpg-urkl"),
    *("ppo", "reinforce++", "reinforce++-baseline", "rloo", "grpo", "dr-grpo", "dapo", "gspo", "cispo"),
    *("dppo-tv", "m2po", "bc", "bc-filtered", "topr", "asymre", "kimi-pmd", "oapl", "dro", "kto"),
)
"""Those of the old state: a recipe that a change adds has nothing to be compared with."""

RECIPE_CASES = tuple(
    Case(name=f"recipe-{name}", about="two steps with the recipe as it is", measure=partial(measure_recipe, name))
    for name in RECIPES
)

CASES: tuple[Case, ...] = (*TRAINING_CASES, *RECIPE_CASES, *INSTRUMENT_CASES)
