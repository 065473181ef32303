"""Charts of the evaluations on held-out problems: over steps, over generated tokens, over time."""

import math
import statistics
from collections.abc import Callable, Sequence

from klimb.training import EvaluationRecord
from klimb.workbench.report.charts import Chart, Curve
from klimb.workbench.report.drawing import group_path
from klimb.workbench.report.grouping import Group
from klimb.workbench.report.record import RunRecord

AXES = (("step", "step"), ("num_tokens_generated", "generated tokens"), ("elapsed_seconds", "seconds of training"))
MOST_CURVES_OF_PASS = 4


def held_out_charts(groups: Sequence[Group]) -> list[Chart]:
    """Mean@k over the steps; for several groups over tokens and seconds too; pass@k; greedy."""
    axes = AXES if len(groups) > 1 else AXES[:1]
    charts = [_mean_chart(groups, key, axis) for key, axis in axes]
    charts.append(_pass_chart(groups))
    return [chart for chart in charts if chart is not None]


def unit_of(record: EvaluationRecord) -> str:
    """`accuracy` or `reward`."""
    return "accuracy" if record.is_accuracy else "reward"


def _mean_chart(groups: Sequence[Group], key: str, axis: str) -> Chart | None:
    curves = [curve for number, group in enumerate(groups) for curve in _mean_curves(groups, number, group, key)]
    if not curves:
        return None
    is_accuracy = _is_accuracy(groups)
    is_single = len(groups) == 1 and len(groups[0].runs) == 1
    band = "95 % interval over problems" if is_single else "lowest to highest of the seeds"
    has_band = any(curve.low for curve in curves)
    title = "Accuracy on held-out problems" if is_accuracy else "Reward on held-out problems"
    return Chart(
        title=title if axis == "step" else f"{title}, by {axis}",
        unit="share correct" if is_accuracy else "mean reward",
        axis=axis,
        curves=tuple(curves),
        floor=0.0 if is_accuracy else None,
        ceiling=1.0 if is_accuracy else None,
        note=f"Band: {band}." if has_band else "",
        metrics=("evaluation_mean", "evaluation_low", "evaluation_high"),
    )


def _mean_curves(groups: Sequence[Group], number: int, group: Group, key: str) -> list[Curve]:
    """The group's mean, and for a single run its greedy accuracy too."""
    if len(group.runs) > 1:
        return _seeds_curve(group, key, number)
    records = [placed for run in group.runs for placed in _by_axis(run, key)]
    if not records:
        return []
    sampled = Curve(
        label=group.label if len(groups) > 1 else "sampled",
        x=[x for x, _ in records],
        y=[record.mean for _, record in records],
        low=[record.low for _, record in records],
        high=[record.high for _, record in records],
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
    """Evaluations with a finite mean under their place on the axis, ascending; of two in one place the later one."""
    placed = {
        float(getattr(made, key)): made for made in run.evaluations if math.isfinite(made.mean + made.low + made.high)
    }
    # Runs that do not know their tokens or time have zeros: nothing can be drawn over those.
    return sorted(placed.items()) if key == "step" or any(placed) else []


def _points(run: RunRecord, value: Callable[[EvaluationRecord], float | None]) -> tuple[list[float], list[float]]:
    found = {float(made.step): value(made) for made in run.evaluations}
    pairs = [(x, y) for x, y in sorted(found.items()) if y is not None and math.isfinite(y)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _is_accuracy(groups: Sequence[Group]) -> bool:
    return all(made.is_accuracy for group in groups for run in group.runs for made in run.evaluations)
