"""The two tables of docs/statistics.md: a row for each ± and a row for each alarm, over all of their cases."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from benchmarks.coverage.cells import Alarms, Cell, Coverage
from benchmarks.page import table_of

Kind = TypeVar("Kind", Coverage, Alarms)


LOW, HIGH = 0.93, 0.98
"""Where a nominal 95 % should be."""


ERRORS = 2.0
"""A case counts as outside if it is so by this many standard errors of its counted share."""


UNKNOWN = "–"


COVERAGE_HEADS = (
    *(
        "number",
        "cases",
        "held: lowest, median, highest",
        "below 93 %",
        "above 98 %",
        "has an interval: lowest, median",
    ),
    *("width over the best: median, highest", "before: lowest, median"),
)


ALARM_HEADS = ("alarm or verdict", "truth", "cases", "said: lowest, median, highest", "before: median, highest")


def coverage_table(cells: Sequence[Cell]) -> str:
    """Return Markdown: a row for each number, over all of its cases."""
    rows: list[tuple[str, ...]] = []
    for number, found in _by_number(cell for cell in cells if isinstance(cell, Coverage)):
        known = [cell for cell in found if not math.isnan(cell.held)]
        held = [cell.held for cell in known]
        ratios = [cell.width / cell.best_width for cell in known if cell.best_width > 0]
        before = [cell.before for cell in found if not math.isnan(cell.before)]
        rows.append(
            (
                number,
                str(len(found)),
                _shares(held, "low", "middle", "high"),
                str(sum(cell.held + ERRORS * _error(LOW, cell) < LOW for cell in known)),
                str(sum(cell.held - ERRORS * _error(HIGH, cell) > HIGH for cell in known)),
                _shares([cell.known for cell in found], "low", "middle"),
                _ratios(ratios),
                _shares(before, "low", "middle"),
            )
        )
    return table_of(COVERAGE_HEADS, rows)


def alarm_table(cells: Sequence[Cell]) -> str:
    """Return Markdown: a row for each alarm and truth, over all of its cases."""
    rows: list[tuple[str, ...]] = []
    for number, found in _by_number(cell for cell in cells if isinstance(cell, Alarms)):
        for truth in dict.fromkeys(cell.truth for cell in found):
            of_truth = [cell for cell in found if cell.truth == truth]
            before = [cell.before for cell in of_truth if not math.isnan(cell.before)]
            rates = [cell.rate for cell in of_truth if not math.isnan(cell.rate)]
            said = (_shares(rates, "low", "middle", "high"), _shares(before, "middle", "high"))
            rows.append((number, truth, str(len(of_truth)), *said))
    return table_of(ALARM_HEADS, rows)


def _by_number(cells: Iterable[Kind]) -> list[tuple[str, list[Kind]]]:
    found: dict[str, list[Kind]] = {}
    for cell in cells:
        found.setdefault(cell.number, []).append(cell)
    return list(found.items())


def _error(share: float, cell: Coverage) -> float:
    """Return the standard error of a counted share that is truly `share`."""
    return math.sqrt(share * (1 - share) / max(1.0, cell.known * cell.num_sets))


def _shares(values: Sequence[float], *which: str) -> str:
    if not values:
        return UNKNOWN
    ends = {"low": min(values), "middle": float(np.median(values)), "high": max(values)}
    return ", ".join(f"{100 * ends[name]:.1f}" for name in which) + " %"


def _ratios(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f}, {max(values):.2f}" if values else UNKNOWN
