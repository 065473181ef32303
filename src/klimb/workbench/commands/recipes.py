"""`klimb recipes`: the algorithms there are, and one of them in full."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from klimb.training import Recipe

recipes = App(name="recipes", help="The algorithms there are; `klimb recipes show NAME` for one in full.")


@recipes.default
def recipes_list() -> None:
    """List all recipes."""
    list_recipes(Console())


@recipes.command(name="show")
def recipes_show(name: str, /) -> None:
    """Show a recipe's formula, source, settings and where it departs from its source.

    Args:
        name: As `klimb recipes` lists it.
    """
    from klimb.training import recipe_named

    show_recipe(Console(), recipe_named(name))


def list_recipes(console: Console) -> None:
    """One line a recipe, under the headings of their families."""
    from klimb.training import RECIPES

    width = max(map(len, RECIPES)) + 2
    for family in dict.fromkeys(recipe.family for recipe in RECIPES.values()):
        console.print(Text(family, style="bold"))
        _list_family(console, [recipe for recipe in RECIPES.values() if recipe.family == family], width=width)
        console.print()
    console.print(Text("klimb recipes show NAME: formula, source, settings, where it departs", style="dim"))


def _list_family(console: Console, recipes: "Sequence[Recipe]", *, width: int) -> None:
    """One line each; in a narrow terminal what doesn't fit continues beside the name."""
    if not console.is_terminal:
        for recipe in recipes:
            console.print(Text(f"  {recipe.name:<{width}} {recipe.summary}"), soft_wrap=True)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, width=width)
    table.add_column()
    for recipe in recipes:
        table.add_row(f"  {recipe.name}", recipe.summary)
    console.print(table)


def show_recipe(console: Console, recipe: "Recipe") -> None:
    """Print formula, source, settings as TOML, and where klimb departs from the source."""
    from klimb.ui.terminal.run import print_facts
    from klimb.workbench.config import recipe_sections

    console.print(Text(recipe.name, style="bold cyan"))
    console.print(Text(recipe.summary))
    console.print()
    departs = recipe.departs or "nowhere"
    print_facts(
        console, [("family", recipe.family), ("loss", recipe.formula), ("source", recipe.source), ("departs", departs)]
    )
    console.print()
    console.print(Text("its settings, to copy and change:", style="dim"))
    console.print(Text(as_toml(recipe_sections(recipe))))


def as_toml(sections: dict[str, dict[str, object]], prefix: str = "") -> str:
    """Tables of plain values as TOML."""
    blocks: list[str] = []
    for name, table in sections.items():
        path = f"{prefix}{name}"
        lines = [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
        blocks.append("\n".join([f"[{path}]", *lines]))
        inner = {key: value for key, value in table.items() if isinstance(value, dict)}
        if inner:
            blocks.append(as_toml(inner, prefix=f"{path}."))
    return "\n\n".join(blocks)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else f'"{value}"'
