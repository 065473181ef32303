"""The table of docs/recipes.md, made from the recipes: `python -m klimb.workbench.recipe_table docs/recipes.md`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klimb.losses import ObjectiveSettings
from klimb.training import RECIPES, Recipe
from klimb.workbench.config import recipe_sections

BEGIN = "<!-- recipes: made by `python -m klimb.workbench.recipe_table docs/recipes.md` -->"


END = "<!-- /recipes -->"


def recipe_tables() -> str:
    """Return a heading and a table for each family, a row for each recipe, as Markdown."""
    families = dict.fromkeys(recipe.family for recipe in RECIPES.values())
    return "\n\n".join(_family_table(family) for family in families)


def with_tables(page: str) -> str:
    """Return the page with what stands between its two markers made anew.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}, between which the tables stand")
    return f"{before}{begin}\n\n{recipe_tables()}\n\n{end}{after}"


def _family_table(family: str) -> str:
    rows = [_row(recipe) for recipe in RECIPES.values() if recipe.family == family]
    heading = family[0].upper() + family[1:]
    columns = "| recipe | loss per unit | settings | source | where klimb departs |\n|---|---|---|---|---|"
    return "\n".join([f"### {heading}", "", columns, *rows])


def _row(recipe: Recipe) -> str:
    cells = (f"`{recipe.name}`", recipe.formula, _settings(recipe), recipe.source, recipe.departs or "nowhere")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _settings(recipe: Recipe) -> str:
    """Return what a reader compares first: β, level, clip, advantages, reduction, reference."""
    objective = recipe.objective
    parts = [f"β {objective.beta:g}", getattr(objective, "level", "sequence")]
    if isinstance(objective, ObjectiveSettings):
        parts.append("no ratio" if objective.ratio == "none" else _clip(recipe_sections(recipe)["objective"]["clip"]))
    credit = recipe.advantages.kind if recipe.credit.kind == "response" else recipe.credit.kind
    return "; ".join([*parts, credit, str(objective.reduce), f"reference {recipe.reference.kind}"])


def _clip(table: Mapping[str, Any]) -> str:
    bounds = ", ".join(
        f"{value:g}" if isinstance(value, float) else value for key, value in table.items() if key != "kind"
    )
    return f"clip {table['kind']}" + (f" ({bounds})" if bounds else "")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
