"""From runs and the table of panels to charts: a line for each run, or a band for runs that differ by their seed."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from klimb.workbench.report.charts import Chart, Curve
from klimb.workbench.report.grouping import Group
from klimb.workbench.report.panels import LEFT_OUT, SECTIONS, Panel
from klimb.workbench.report.record import RunRecord
from klimb.workbench.report.thinning import smoothed, spread, thinned

SMOOTHED_FROM = 60
"""Curves of at least this many points are smoothed, with the raw values behind."""
SMOOTHING_SHARE = 20
"""The moving average runs over one part in this many."""
POINT_BUDGET = 60_000
"""Points of all curves of a page together; what keeps a page below 3 MB."""
FEWEST_POINTS = 40
MOST_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class Path:
    """Values over an axis: the mean of a group's runs, and the lowest and highest of them if there are several."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def panel_chart(panel: Panel, groups: Sequence[Group], *, most_points: int, over: str = "step") -> Chart | None:
    """The panel's chart, or None if no run has any of its metrics."""
    named = [pair for pattern, label in panel.metrics for pair in _matching(pattern, label, groups)]
    names = [
        (name, label) for name, label in named if any(run.curve(name)[0] for group in groups for run in group.runs)
    ]
    curves: list[Curve] = []
    for number, group in enumerate(groups):
        for index, (name, label) in enumerate(names):
            path = group_path([run.curve(name, over=over) for run in group.runs])
            if path.x:
                curves.append(_curve(path, _style(groups, number, names, index, label), most_points))
    is_all_zero = all(value == 0 for curve in curves for value in curve.y)
    if len(names) < panel.fewest or (panel.is_hidden_at_zero and is_all_zero):
        return None
    return Chart(
        title=panel.title,
        unit=panel.unit,
        axis=over,
        curves=tuple(curves),
        floor=panel.floor,
        ceiling=panel.ceiling,
        is_logarithmic=panel.is_logarithmic,
        note=panel.note,
        metrics=tuple(name for name, _ in names),
    )


def remaining_panels(groups: Sequence[Group]) -> list[Panel]:
    """One panel for each logged number that no other panel shows."""
    shown = [pattern for section in SECTIONS for panel in section.panels for pattern, _ in panel.metrics]
    return [
        Panel(title=name, unit="", metrics=((name, name),))
        for name in _all_metrics(groups)
        if not any(fnmatchcase(name, pattern) for pattern in (*shown, *LEFT_OUT))
    ]


def group_path(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Path:
    """The mean over runs at each x that all of them have, with the lowest and the highest; one run is itself.

    Runs without a single point are left out. The band ends where the shortest run ends: a mean over fewer runs from
    there on would jump.
    """
    filled = [dict(zip(xs, ys, strict=True)) for xs, ys in curves if xs]
    if not filled:
        return Path(x=[], y=[], low=[], high=[])
    shared = sorted(set.intersection(*(set(values) for values in filled)))
    columns = [[values[x] for values in filled] for x in shared]
    is_band = len(filled) > 1
    return Path(
        x=shared,
        y=[statistics.fmean(column) for column in columns],
        low=[min(column) for column in columns] if is_band else [],
        high=[max(column) for column in columns] if is_band else [],
    )


def points_a_curve(groups: Sequence[Group], num_panels: int) -> int:
    """How many points each curve may have so that the whole page stays small."""
    num_curves = max(1, 2 * num_panels * len(groups))
    return max(FEWEST_POINTS, min(MOST_POINTS, POINT_BUDGET // num_curves))


@dataclass(frozen=True)
class _Style:
    label: str
    colour: int
    dash: int


def _style(groups: Sequence[Group], number: int, names: Sequence[object], index: int, label: str) -> _Style:
    """One group: a colour for each metric. Several: a colour for each group, and a dash for each metric."""
    if len(groups) == 1:
        return _Style(label, index, index)
    group = groups[number].label
    return _Style(f"{group} · {label}" if len(names) > 1 else group, number, index if len(names) > 1 else number // 8)


def _curve(path: Path, style: _Style, most: int) -> Curve:
    if path.low or len(path.y) < SMOOTHED_FROM:
        kept = thinned(path.y, most=most)
        low, high = ([part[index] for index in kept] if part else [] for part in (path.low, path.high))
        x, y = [path.x[index] for index in kept], [path.y[index] for index in kept]
        return Curve(label=style.label, x=x, y=y, low=low, high=high, colour=style.colour, dash=style.dash)
    smooth = smoothed(path.y, window=len(path.y) // SMOOTHING_SHARE + 1)
    shown, raw = spread(len(smooth), most=most), thinned(path.y, most=most)
    return Curve(
        label=style.label,
        x=[path.x[index] for index in shown],
        y=[smooth[index] for index in shown],
        raw_x=[path.x[index] for index in raw],
        raw_y=[path.y[index] for index in raw],
        colour=style.colour,
        dash=style.dash,
    )


def _matching(pattern: str, label: str, groups: Sequence[Group]) -> Iterable[tuple[str, str]]:
    """Names and labels of the metrics that fit."""
    if "*" not in pattern:
        return [(pattern, label)]
    before, _, after = pattern.partition("*")
    names = [name for name in _all_metrics(groups) if fnmatchcase(name, pattern)]
    return [(name, label.replace("*", name[len(before) : len(name) - len(after)])) for name in names]


def _all_metrics(groups: Sequence[Group]) -> list[str]:
    runs: Iterable[RunRecord] = (run for group in groups for run in group.runs)
    return list(dict.fromkeys(name for run in runs for name in run.metrics))
