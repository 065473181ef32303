"""The numbers of runs that grow: read from where the last reading ended, kept as columns, drawn as charts."""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from klimb.findings.evaluations import evaluation_of, row_of
from klimb.training.json_lines import NOTHING, START, Line, NewLines, Place, read_on
from klimb.ui.chart import Chart, Curve, smoothed, thinned
from klimb.ui.pages.frame import Drawing, picture_html
from klimb.ui.svg import chart_data
from klimb.web.files import number, open_beneath

AXES = {"step": "step", "num_tokens_generated": "tokens generated", "elapsed_seconds": "seconds"}
"""What a chart may be drawn over, and its name."""


EVALUATION = "evaluation_"


MOST_RUNS = 200
"""Runs whose columns are kept."""


SMOOTHED_FROM = 30
"""Curves of fewer points, such as evaluations, are never smoothed."""


Cell = float | None
"""NaN for a number that was not finite, None for one that is not in the row."""


@dataclass
class Part:
    """The columns of one file: a cell a row."""

    columns: dict[str, list[Cell]] = field(default_factory=dict)
    num_rows: int = 0
    place: Place = START

    def append(self, found: NewLines, rows: Sequence[Line], names: Iterable[str]) -> None:
        """Add the new rows. A resumed run does some steps again: the later row counts."""
        if found.is_from_start:
            self.columns, self.num_rows = {}, 0
        self.place = found.place
        if not rows:
            return
        self._cut_back(_cell(rows[0], "step"))
        for name in names:
            column = self.columns.setdefault(name, [])
            column += [None] * (self.num_rows - len(column)) + [_cell(row, name) for row in rows]
        self.num_rows += len(rows)

    def _cut_back(self, first: Cell) -> None:
        steps = self.columns.get("step", [])
        while _is_known(first) and self.num_rows > 0:
            last = steps[self.num_rows - 1]
            if not _is_known(last) or last < first:
                break
            self.num_rows -= 1
        for column in self.columns.values():
            del column[self.num_rows :]


@dataclass
class RunColumns:
    """What is known of one run: `wanted` metrics as columns, and the names of all that it has."""

    wanted: frozenset[str] = frozenset()
    names: set[str] = field(default_factory=set)
    steps: Part = field(default_factory=Part)
    evaluations: Part = field(default_factory=Part)

    def curve(self, metric: str, axis: str) -> tuple[list[float], list[float]]:
        """Return x and y of a metric; NaN where the number was not finite."""
        values = self.evaluations.columns.get(metric, [])
        is_evaluation = metric.startswith(EVALUATION) and any(_is_known(value) for value in values)
        part = self.evaluations if is_evaluation else self.steps
        along, values = part.columns.get(axis, []), part.columns.get(metric, [])
        pairs = [(x, y) for x, y in zip(along, values, strict=False) if _is_known(x) and y is not None]
        return [x for x, _ in pairs], [y for _, y in pairs]


@dataclass
class CurveReader:
    """Reads runs beneath a folder, and remembers the last ones it read.

    Attributes:
        root: the folder.
        lock: held by whoever reads and draws, since a further reading changes what the last one returned.
    """

    root: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    _runs: OrderedDict[str, RunColumns] = field(default_factory=OrderedDict)

    def read(self, run: str, parts: Sequence[str], metrics: Sequence[str]) -> RunColumns:
        """Return the run as it is now. A metric not asked for before means reading from the start."""
        known = self._runs.pop(run, RunColumns())
        wanted = frozenset(metrics) | AXES.keys()
        if not wanted <= known.wanted:
            known = RunColumns(wanted=wanted | known.wanted, names=known.names)
        self._read_on(parts, known)
        self._runs[run] = known
        while len(self._runs) > MOST_RUNS:
            self._runs.popitem(last=False)
        return known

    def _read_on(self, parts: Sequence[str], known: RunColumns) -> None:
        of_evaluations = [name for name in known.wanted if name.startswith(EVALUATION) or name in AXES]
        files: tuple[tuple[str, Part, Iterable[str], Callable[[Line], Line]], ...] = (
            ("metrics.jsonl", known.steps, known.wanted, dict),
            ("evaluations.jsonl", known.evaluations, of_evaluations, lambda line: row_of(evaluation_of(line))),
        )
        for name, part, wanted, as_row in files:
            has_more = True
            while has_more:
                found = self._new_lines((*parts, name), part.place)
                rows = _rows(found.lines, as_row)
                part.append(found, rows, wanted)
                known.names |= {name for row in rows for name, value in row.items() if _is_metric(value)}
                has_more = found.has_more

    def _new_lines(self, parts: Sequence[str], place: Place) -> NewLines:
        """Return none for a file that is not there yet, or not any more."""
        try:
            descriptor = open_beneath(self.root, parts)
        except OSError:
            return NOTHING
        with os.fdopen(descriptor, "rb", buffering=0):
            return read_on(descriptor, place)


def _rows(lines: Iterable[Line], as_row: Callable[[Line], Line]) -> list[Line]:
    """Leave out lines that no run writes."""
    rows: list[Line] = []
    for line in lines:
        with suppress(KeyError, TypeError):
            rows.append(as_row(line))
    return rows


def _cell(row: Line, name: str) -> Cell:
    if name not in row or not _is_metric(row[name]):
        return None
    value = number(row[name])
    return math.nan if value is None else value


def _is_metric(value: object) -> bool:
    """Return True for numbers, and for null: metrics.jsonl has it for a number that is not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_known(cell: Cell) -> TypeGuard[float]:
    return cell is not None and not math.isnan(cell)


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """Return the runs' names without the folders that all of them are in."""
    parts = [run.split("/") for run in runs]
    common = 0
    while parts and all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return {run: "/".join(each[common:]) for run, each in zip(runs, parts, strict=True)}


def board_charts(
    metrics: Sequence[str],
    runs: Mapping[str, tuple[RunColumns, int]],
    *,
    axis: str,
    is_logarithmic: bool,
    weight: float,
) -> dict[str, dict[str, Any]]:
    """Return each metric as a picture with its numbers, and the values for the script under the pointer."""
    found: dict[str, dict[str, Any]] = {}
    for metric in dict.fromkeys(metrics):
        chart = board_chart(metric, runs, axis=axis, is_logarithmic=is_logarithmic, weight=weight)
        drawing = Drawing(f"chart-{len(found)}", chart)
        found[metric] = {"html": picture_html(drawing), "values": chart_data(chart)}
    return found


def board_chart(
    metric: str, runs: Mapping[str, tuple[RunColumns, int]], *, axis: str, is_logarithmic: bool, weight: float
) -> Chart:
    """Return one metric of several runs.

    Args:
        metric: what is drawn.
        runs: label -> what is known of the run, and the number of its colour.
        axis: a key of `AXES`.
        is_logarithmic: the vertical axis shows powers of ten.
        weight: of the past in an exponential average; the window drawn is the one with that average's variance.
    """
    curves = [
        _curve(label, colour, *run.curve(metric, axis), window=round((1 + weight) / (1 - weight)))
        for label, (run, colour) in runs.items()
    ]
    return Chart(title=metric, unit="", axis=AXES[axis], curves=tuple(curves), is_logarithmic=is_logarithmic)


def _curve(label: str, colour: int, x: Sequence[float], y: Sequence[float], *, window: int) -> Curve:
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    places, values = [a for a, _ in pairs], [b for _, b in pairs]
    kept = thinned(values)
    raw_x, raw_y = [places[index] for index in kept], [values[index] for index in kept]
    if window < 2 or len(values) <= SMOOTHED_FROM:
        return Curve(label=label, x=raw_x, y=raw_y, colour=colour, dash=colour // 8)
    smooth = smoothed(values, window=window)
    shown = thinned(smooth)
    return Curve(
        label=label,
        x=[places[index] for index in shown],
        y=[smooth[index] for index in shown],
        raw_x=raw_x,
        raw_y=raw_y,
        colour=colour,
        dash=colour // 8,
    )
