"""`klimb recipes`: the algorithms there are, and one of them in full."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.losses import RECIPES, Recipe
from klimb.workbench.config import recipe_sections
from klimb.workbench.reports import report_facts


def list_recipes(console: Console) -> None:
    """A table of all recipes."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("recipe", style="bold cyan", no_wrap=True)
    table.add_column("what it is")
    table.add_column("β", justify="right", no_wrap=True)
    for recipe in RECIPES.values():
        table.add_row(recipe.name, recipe.summary, f"{recipe.beta:g}")
    console.print(table)
    console.print(Text("klimb recipes show NAME: formula, source, settings, where it departs", style="dim"))


def show_recipe(console: Console, recipe: Recipe) -> None:
    """Formula, source, settings as TOML, and where klimb departs from the source."""
    console.print(Text(recipe.name, style="bold cyan"))
    console.print(Text(recipe.summary))
    console.print()
    departs = recipe.departs or "nowhere"
    report_facts(console, [("loss", recipe.formula), ("source", recipe.source), ("departs", departs)])
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
