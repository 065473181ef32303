"""The charts of a report: a line for each run, or a band for runs that differ by their seed.

Panels of logged metrics, and evaluations over steps, over generated tokens and over time. The page and the exported
figures share them.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from klimb.findings.evaluations import EvaluationRecord
from klimb.findings.run.record import RunRecord
from klimb.ui.chart import Chart, Curve, smoothed, spread, thinned
from klimb.ui.grouping import Group, group_runs
from klimb.ui.panels import LEARNING, LEFT_OUT, SECTIONS, Panel

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
    """Return the panel's chart, or None if no run has any of its metrics."""
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
    """Return the mean over runs at each x that all of them have, with the lowest and the highest; one run is itself.

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


AXES = (("step", "step"), ("num_tokens_generated", "generated tokens"), ("elapsed_seconds", "seconds of training"))


MOST_CURVES_OF_PASS = 4


def held_out_charts(groups: Sequence[Group]) -> list[Chart]:
    """Mean@k over the steps; for several groups over tokens and seconds too; pass@k; greedy."""
    axes = AXES if len(groups) > 1 else AXES[:1]
    charts = [_mean_chart(groups, key, axis) for key, axis in axes]
    charts.append(_pass_chart(groups))
    return [chart for chart in charts if chart is not None]


def _mean_chart(groups: Sequence[Group], key: str, axis: str) -> Chart | None:
    curves = [curve for number, group in enumerate(groups) for curve in _mean_curves(groups, number, group, key)]
    if not curves:
        return None
    is_accuracy = _is_accuracy(groups)
    has_band = any(curve.low for curve in curves)
    title = "Accuracy on held-out problems" if is_accuracy else "Reward on held-out problems"
    return Chart(
        title=title if axis == "step" else f"{title}, by {axis}",
        unit="share correct" if is_accuracy else "mean reward",
        axis=axis,
        curves=tuple(curves),
        floor=0.0 if is_accuracy else None,
        ceiling=1.0 if is_accuracy else None,
        note=f"Band: {_band_text(groups)}." if has_band else "",
        metrics=("evaluation_mean", "evaluation_low", "evaluation_high"),
    )


def _band_text(groups: Sequence[Group]) -> str:
    """Say what the bands of `_mean_curves` are: a single run has an interval of its own, several have their spread."""
    are_single = {len(group.runs) == 1 for group in groups}
    parts = {True: "95 % interval over problems", False: "lowest to highest of the seeds"}
    return parts[are_single.pop()] if len(are_single) == 1 else f"{parts[False]}; of a single run, {parts[True]}"


def _mean_curves(groups: Sequence[Group], number: int, group: Group, key: str) -> list[Curve]:
    """Return the group's mean, and for a single run its greedy accuracy too."""
    if len(group.runs) > 1:
        return _seeds_curve(group, key, number)
    records = [placed for run in group.runs for placed in _by_axis(run, key)]
    if not records:
        return []
    is_banded = all(record.interval.is_known for _, record in records)
    sampled = Curve(
        label=group.label if len(groups) > 1 else "sampled",
        x=[x for x, _ in records],
        y=[record.mean for _, record in records],
        low=[record.interval.low for _, record in records] if is_banded else [],
        high=[record.interval.high for _, record in records] if is_banded else [],
        colour=number,
    )
    greedy = [(x, record.greedy) for x, record in records if record.greedy is not None and math.isfinite(record.greedy)]
    if len(groups) > 1 or not greedy:
        return [sampled]
    return [sampled, Curve(label="greedy", x=[x for x, _ in greedy], y=[y for _, y in greedy], colour=1, dash=1)]


def _seeds_curve(group: Group, key: str, number: int) -> list[Curve]:
    """Seeds draw answers of other lengths, so over tokens and seconds the k-th evaluations stand together."""
    runs = [_by_axis(run, key) for run in group.runs]
    if key == "step":
        path = group_path([([x for x, _ in run], [record.mean for _, record in run]) for run in runs])
        x, y, low, high = path.x, path.y, path.low, path.high
    else:
        columns = [list(column) for column in zip(*(run for run in runs if run), strict=False)]
        x = [statistics.fmean(place for place, _ in column) for column in columns]
        y = [statistics.fmean(record.mean for _, record in column) for column in columns]
        low = [min(record.mean for _, record in column) for column in columns]
        high = [max(record.mean for _, record in column) for column in columns]
    return [Curve(label=group.label, x=x, y=y, low=low, high=high, colour=number)] if x else []


def _pass_chart(groups: Sequence[Group]) -> Chart | None:
    """pass@1, 2, 4, … over the steps; for several groups the largest k alone."""
    powers = sorted(
        {int(k) for group in groups for run in group.runs for made in run.evaluations for k in made.pass_at}
    )
    if not powers or powers[-1] < 2:
        return None
    shown = powers[-MOST_CURVES_OF_PASS:] if len(groups) == 1 else powers[-1:]
    curves: list[Curve] = []
    for number, group in enumerate(groups):
        for index, k in enumerate(shown):
            path = group_path([_points(run, lambda made, k=k: made.pass_at.get(str(k))) for run in group.runs])
            label = f"pass@{k}" if len(groups) == 1 else f"{group.label} · pass@{k}"
            colour = index if len(groups) == 1 else number
            if path.x:
                curves.append(Curve(label=label, x=path.x, y=path.y, low=path.low, high=path.high, colour=colour))
    if not curves:
        return None
    return Chart(
        title="One of k is right, pass@k",
        unit="share of problems",
        curves=tuple(curves),
        floor=0.0,
        ceiling=1.0,
        note="Falls while the mean rises: the policy narrows.",
        metrics=tuple(f"evaluation_pass_at_{k}" for k in shown),
    )


def _by_axis(run: RunRecord, key: str) -> list[tuple[float, EvaluationRecord]]:
    """Sort evaluations with a finite mean by their place on the axis; of two in one place the later one stays."""
    placed = {float(getattr(made, key)): made for made in run.evaluations if math.isfinite(made.mean)}
    # Runs that do not know their tokens or time have zeros: nothing can be drawn over those.
    return sorted(placed.items()) if key == "step" or any(placed) else []


def _points(run: RunRecord, value: Callable[[EvaluationRecord], float | None]) -> tuple[list[float], list[float]]:
    found = {float(made.step): value(made) for made in run.evaluations}
    pairs = [(x, y) for x, y in sorted(found.items()) if y is not None and math.isfinite(y)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _is_accuracy(groups: Sequence[Group]) -> bool:
    return all(made.is_accuracy for group in groups for run in group.runs for made in run.evaluations)


OTHER = "other"
"""The section of the numbers that no panel names."""


def charts_of(groups: Sequence[Group]) -> dict[str, list[Chart]]:
    """Section key -> its charts; those without anything to show are left out."""
    rest = remaining_panels(groups)
    panels = {section.key: list(section.panels) for section in SECTIONS} | {OTHER: rest}
    most = points_a_curve(groups, sum(map(len, panels.values())))
    drawn = {
        key: [chart for panel in listed if (chart := panel_chart(panel, groups, most_points=most)) is not None]
        for key, listed in panels.items()
    }
    return drawn | {LEARNING.key: [*held_out_charts(groups), *drawn[LEARNING.key]]}


OVERVIEW = (
    "Reward on training batches",
    "Accuracy on held-out problems",
    "Divergence from the reference",
    "Entropy",
    "Length of a response",
    "Effective sample size",
    "Clipped, by branch",
    "Gradient norm before it is cut",
)
"""Titles of the charts that tell a run at a glance."""


def overview_charts(record: RunRecord) -> list[Chart]:
    """Return the charts of `OVERVIEW`, in its order; one that the run did not measure is empty."""
    held_out = {"Reward on held-out problems": "Accuracy on held-out problems"}
    found = {
        held_out.get(chart.title, chart.title): chart
        for charts in charts_of(group_runs([record])).values()
        for chart in charts
    }
    return [found.get(title, Chart(title=title, unit="")) for title in OVERVIEW]
