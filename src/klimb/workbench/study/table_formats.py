"""A table as Markdown, CSV or LaTeX; every text in it is escaped for its format."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from klimb.workbench.study.wording import MINUS, UNKNOWN
from klimb.workbench.text import printable

Cell = str | float | int
"""What a table holds: texts, and for CSV numbers in full."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
LONG = 500


@dataclass(frozen=True)
class StudyTable:
    """A table for people (`rows`) and for programs (`full_rows`, `full_columns`), of the same things.

    `num_texts` columns on the left are texts; the others are numbers and are set to the right.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    full_columns: tuple[str, ...]
    full_rows: tuple[tuple[Cell, ...], ...]
    num_texts: int = 1
    note: str = ""


def as_markdown(table: StudyTable) -> str:
    """The table with its title above and its note below."""
    marks = [":--" if at < table.num_texts else "--:" for at in range(len(table.columns))]
    lines = [_markdown_row(table.columns), _markdown_row(marks, is_text=False), *map(_markdown_row, table.rows)]
    note = f"\n{_markdown(table.note)}\n" if table.note else ""
    return f"**{_markdown(table.title)}**\n\n" + "\n".join(lines) + "\n" + note


def as_csv(table: StudyTable) -> str:
    """All digits; a number that is not known is an empty cell. A text that a spreadsheet would run begins with '."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerows([table.full_columns, *([_csv_cell(cell) for cell in row] for row in table.full_rows)])
    return target.getvalue()


def as_latex(table: StudyTable) -> str:
    """A `table` environment for the package booktabs."""
    marks = "l" * table.num_texts + "r" * (len(table.columns) - table.num_texts)
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (table.columns, *table.rows)]
    caption = latex_text(f"{table.title}. {table.note}".strip())
    body = "\n".join(["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule"])
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{caption}}}\n\\begin{{tabular}}{{{marks}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def latex_text(text: str) -> str:
    r"""The text as LaTeX that prints it.

    >>> latex_text("a_b & 5 %")
    'a\\_b \\& 5 \\%'
    """
    return "".join(_LATEX.get(character, character) for character in printable(text, limit=LONG))


def slug(name: str) -> str:
    """A file name's part: letters, digits and dots of the name, anything else a hyphen."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "unnamed"


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # At the start of a row they would belong to the line break before.
    "[": "{[}",
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
    UNKNOWN: "--",
}


def _markdown_row(cells: Sequence[str], *, is_text: bool = True) -> str:
    return "| " + " | ".join(_markdown(cell) if is_text else cell for cell in cells) + " |"


def _markdown(text: str) -> str:
    """One line in which no character marks anything up: not a table's bar, not HTML, not emphasis or a link."""
    shown = printable(text, limit=LONG).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Brackets stay readable: `[1, 2]` is a link only before a bracket, a parenthesis or a colon.
    return re.sub(r"\](?=[\[(:])", r"\\]", re.sub(r"([\\`*_|~])", r"\\\1", shown))


def _csv_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        shown = printable(cell, limit=LONG)
        return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown
    return "" if not math.isfinite(cell) else repr(cell)
