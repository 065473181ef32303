"""What the logged numbers mean: the tables of docs/metrics.md, so that a page can explain each without a network."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path

from klimb.ui.escaping import escaped

_CELL_END = re.compile(r"(?<!\\)\|")


_CODE = re.compile(r"`([^`]+)`")


_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")


_EMPHASIS = re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])")


_NUM_COLUMNS = 5


_AS_ABOVE = "as above"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One row of docs/metrics.md, as Markdown.

    Attributes:
        pattern: the metric's name; `*` stands for anything.
        unit: of the metric.
        formula: how it is computed, or what it counts.
        healthy: where it is in runs that go well.
        outside: what it means elsewhere.
    """

    pattern: str
    unit: str
    formula: str
    healthy: str
    outside: str


@cache
def definitions() -> tuple[Definition, ...]:
    """All rows; none if this installation came without the document."""
    text = _document()
    return tuple(_rows(text.splitlines())) if text else ()


def definition_of(metric: str) -> Definition | None:
    """Find the row that explains this metric: its own, else a pattern's, else that of the name behind a source."""
    rows = definitions()
    behind = metric.partition("/")[2]
    candidates = [row for row in rows if row.pattern == metric]
    candidates += [row for row in rows if "*" in row.pattern and fnmatchcase(metric, row.pattern)]
    candidates += [row for row in rows if behind and row.pattern == behind]
    return candidates[0] if candidates else None


def explain(metrics: Iterable[str]) -> Mapping[Definition, Sequence[str]]:
    """Return the rows that explain these metrics, in the document's order, each with the metrics that it explains."""
    found: dict[Definition, list[str]] = {}
    for name in sorted(set(metrics)):
        row = definition_of(name)
        if row is not None:
            found.setdefault(row, []).append(name)
    return {row: found[row] for row in definitions() if row in found}


def markdown_html(text: str) -> str:
    """HTML of one cell: code, emphasis and the words of links; everything else as it stands."""
    plain = text.replace("\\|", "|").replace("\\*", "∗")
    return _EMPHASIS.sub(r"<em>\1</em>", _CODE.sub(r"<code>\1</code>", _LINK.sub(r"\1", escaped(plain))))


def _rows(lines: Iterable[str]) -> Iterable[Definition]:
    """Read the rows; `as above` is replaced by what it stands for, since on a page another row may be above."""
    above: list[str] = [""] * _NUM_COLUMNS
    for line in lines:
        cells = [cell.strip() for cell in _CELL_END.split(line)][1:-1]
        if len(cells) == _NUM_COLUMNS and (named := _CODE.fullmatch(cells[0])):
            cells = [
                cell.replace(_AS_ABOVE, old, 1) if cell.startswith(_AS_ABOVE) and old else cell
                for cell, old in zip(cells, above, strict=True)
            ]
            above = cells
            yield Definition(
                pattern=named.group(1), unit=cells[1], formula=cells[2], healthy=cells[3], outside=cells[4]
            )


def _document() -> str:
    """docs/metrics.md: a copy inside of the installed package, or the document itself beside the sources."""
    inside = files("klimb.ui.pages").joinpath("metrics.md")
    beside = Path(__file__).parents[4] / "docs" / "metrics.md"
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    return beside.read_text(encoding="utf-8") if beside.is_file() else ""
