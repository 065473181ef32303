"""The tables of documents that follow from rows: `python -m klimb.findings.tables docs/metrics.md`.

A page has two lines for each table, `<!-- table: NAME -->` and `<!-- /table -->`; what stands between them is made.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from klimb.findings.metrics import TABLES, Metric

_PLACE = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def metric_table(metrics: Iterable[Metric]) -> str:
    """Return a row for each metric, as Markdown."""
    rows = [(f"`{metric.name}`", metric.unit, metric.formula, metric.healthy, metric.outside) for metric in metrics]
    return markdown_table(("metric", "unit", "formula", "healthy", "outside"), rows)


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
    kind, _, heading = name.partition(", ")
    if kind == "metrics" and heading in TABLES:
        return metric_table(TABLES[heading])
    known = ", ".join(f"'metrics, {heading}'" for heading in TABLES)
    raise ValueError(f"there is no table {name!r}; there are {known}")


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in (cell.replace("|", "\\|") for cell in cells)) + "|"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
