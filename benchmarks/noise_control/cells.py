"""What is run: recipe, temperature, top-p and source, which of them are the yardstick, and what is not judged, and why.

The yardsticks are the same recipe at temperature 1 and without truncation, where π = μ at the start: without its clip,
and with it. On fresh rollouts, a step a batch, the two are one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from klimb.training.recipes import RECIPES

Origin = Literal["fresh", "reused", "log"]
Role = Literal["cell", "no-clip", "own-clip"]

ORIGINS: tuple[Origin, ...] = get_args(Origin)
TEMPERATURES = (0.6, 0.8, 1.0, 1.25)
TOP_PS = (1.0, 0.9)
YARDSTICK_SEEDS = (1, 2, 3)
CELL_SEED = 1

NUM_STEPS = 20
"""Optimiser steps of every run."""

MINIBATCHES = 2
"""Of a reused batch, half of which is replayed: half as many collections."""

NUM_PROMPTS, NUM_SAMPLES, NUM_TOKENS = 8, 8, 6


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run.

    Attributes:
        role: `no-clip` and `own-clip` are the yardsticks.
        origin: drawn anew each step; half of it replayed and taken in minibatches; or from a log of the first policy.
    """

    recipe: str
    temperature: float
    top_p: float
    origin: Origin
    seed: int = CELL_SEED
    role: Role = "cell"


def all_cells() -> Iterator[Cell]:
    """Yield the yardsticks' runs first, then every recipe at every temperature and top-p from every source."""
    for recipe in dict.fromkeys(map(stand_in, RECIPES)):
        for origin in ORIGINS:
            for seed in YARDSTICK_SEEDS:
                for role in roles_of(recipe, origin):
                    yield Cell(recipe=recipe, temperature=1.0, top_p=1.0, origin=origin, seed=seed, role=role)
    for recipe in RECIPES:
        for origin in ORIGINS:
            for temperature in TEMPERATURES:
                for top_p in TOP_PS:
                    yield Cell(recipe=recipe, temperature=temperature, top_p=top_p, origin=origin)


def stand_in(recipe: str) -> str:
    """Return whose yardstick is the recipe's: without a clip the RPG recipes differ by a divergence times 10⁻⁴."""
    return "rpg-reinforce-urkl" if RECIPES[recipe].family == "RPG" else recipe


def roles_of(recipe: str, origin: Origin) -> tuple[Role, ...]:
    """Return the yardsticks that differ here: a clip acts only where a batch is more than one step old."""
    return ("no-clip", "own-clip") if has_clip(recipe) and origin != "fresh" else ("no-clip",)


def has_clip(recipe: str) -> bool:
    """Whether the recipe's loss has a clip that can be left out."""
    return getattr(getattr(RECIPES[recipe].objective, "clip", None), "kind", "none") != "none"


def family_of(recipe: str) -> str:
    """Return whose seeds tell the spread: recipes that turn rewards into a step alike."""
    row = RECIPES[recipe]
    if row.family != "for logs and feedback":
        return "for fresh rollouts"
    if row.objective.loss != "policy-gradient":
        return row.objective.loss
    return "cloning" if row.advantages.kind == "zero" else "bounded weights"


_CLONES_WHAT_WAS_CUT = "it raises what was drawn, and what was drawn is cut off at top-p"
_REGRESSES_ON_MU = "the optimum of its square is μ·exp(A/β), and μ is cut off at top-p"

NOT_JUDGED_AT_TOP_P: Mapping[str, str] = {
    "bc": _CLONES_WHAT_WAS_CUT,
    "bc-filtered": _CLONES_WHAT_WAS_CUT,
    "asymre": f"with δ < 0 its mean advantage is positive: {_CLONES_WHAT_WAS_CUT}",
    "kimi-pmd": _REGRESSES_ON_MU,
    "oapl": _REGRESSES_ON_MU,
}
"""Recipe -> why it goes to μ by design where μ is truncated. Temperature alone excuses nobody."""


def reason_not_judged(cell: Cell) -> str:
    """Return why the cell is shown and not judged; empty if it is judged."""
    return NOT_JUDGED_AT_TOP_P.get(cell.recipe, "") if cell.top_p < 1 else ""


def run_tables(cell: Cell, *, model: str, log: str) -> dict[str, Any]:
    """Return the run file of a cell."""
    is_reused = cell.origin == "reused"
    tables: dict[str, Any] = {
        "seed": cell.seed,
        "model": {"path": model, "dtype": "float32", "device": "cpu"},
        "task": {"kind": "arithmetic", "digits": 1, "held_out_fraction": 0.1},
        "sampling": {
            "temperature": cell.temperature,
            "top_p": cell.top_p,
            "num_prompts": NUM_PROMPTS,
            "num_samples": NUM_SAMPLES,
            "max_new_tokens": NUM_TOKENS,
        },
        "objective": {"recipe": cell.recipe},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 0, "weight_decay": 0.0},
        "training": {"num_steps": NUM_STEPS // (MINIBATCHES if is_reused else 1), "num_threads": 1},
        "checkpoints": {"every_steps": 10_000, "at_end": False},
        "evaluation": {"at_ends": False},
        "run": {"save_rollouts": is_reused, "report": False, "save_model": False, "loggers": []},
    }
    if is_reused:
        tables["sources"] = {"replay": 0.5}
        tables["training"]["num_minibatches"] = MINIBATCHES
    if cell.origin == "log":
        tables["sources"] = {"log": 1.0}
        tables["log"] = {"path": log}
    if cell.role == "no-clip" and has_clip(cell.recipe):
        tables["objective"]["clip"] = {"kind": "none"}
    return tables
