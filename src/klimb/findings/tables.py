"""The tables of documents that follow from rows: `python -m klimb.findings.tables PAGE …`.

A page has two lines for each table, `<!-- table: NAME -->` and `<!-- /table -->`; what stands between them is made.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from klimb.findings.audit.recipe_choice import RECIPES_FOR
from klimb.findings.audit.thresholds import Thresholds as AuditThresholds
from klimb.findings.guard.thresholds import Thresholds as GuardThresholds
from klimb.findings.metrics import TABLES, Metric
from klimb.findings.run.thresholds import Thresholds as RunThresholds
from klimb.findings.study.thresholds import Thresholds as StudyThresholds
from klimb.findings.thresholds import rows_of

_PLACE = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def metric_table(metrics: Iterable[Metric]) -> str:
    """Return a row for each metric, as Markdown."""
    rows = [(f"`{metric.name}`", metric.unit, metric.formula, metric.healthy, metric.outside) for metric in metrics]
    return markdown_table(("metric", "unit", "formula", "healthy", "outside"), rows)


def threshold_table(table: type[Any]) -> str:
    """Return a row for each threshold of a table of them, as Markdown."""
    rows = [(f"`{name}`", f"{row.value:g}", row.unit, row.source) for name, row in rows_of(table).items()]
    return markdown_table(("name", "value", "unit", "source"), rows)


def recipe_table(recipes: Mapping[str, Sequence[str]]) -> str:
    """Return a row for each kind of data with the recipes that fit it, as Markdown."""
    rows = [(data, ", ".join(f"`{name}`" for name in names)) for data, names in recipes.items()]
    return markdown_table(("verdict and data", "recipes, recommended first"), rows)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown; a bar inside of a cell is escaped."""
    lines = [_line(columns), "|" + "---|" * len(columns), *map(_line, rows)]
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """Return the page with every table between its two lines made anew.

    Raises:
        ValueError: it has no such lines, or asks for a table that there is not.
    """
    if not _PLACE.search(page):
        raise ValueError(
            "the page has no lines `<!-- table: NAME -->` and `<!-- /table -->`, between which tables stand"
        )
    return _PLACE.sub(lambda place: f"{place[1]}\n{_table(place[2])}\n\n{place[3]}", page)


def _table(name: str) -> str:
    makers = {f"metrics, {heading}": partial(metric_table, metrics) for heading, metrics in TABLES.items()}
    makers |= {
        "recipes of an audit": partial(recipe_table, RECIPES_FOR),
        "thresholds of an audit": partial(threshold_table, AuditThresholds),
        "thresholds of a run": partial(threshold_table, RunThresholds),
        "thresholds of a study": partial(threshold_table, StudyThresholds),
        "thresholds of a guard": partial(threshold_table, GuardThresholds),
    }
    if name not in makers:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(map(repr, makers))}")
    return makers[name]()


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in (cell.replace("|", "\\|") for cell in cells)) + "|"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
