"""The numbers a reader wants first: of one run as tiles, of several as a table.

Where the time of a run went, as bars and a table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, change_between
from klimb.findings.run.record import RunRecord
from klimb.findings.statistics.interval import Interval
from klimb.findings.statistics.means import WELCH
from klimb.ui.chart import Bars, Chart
from klimb.ui.grouping import Group
from klimb.ui.svg import classes
from klimb.ui.text import duration

ENDS = 5
"""The first and the last so many steps are averaged where a curve's ends are told: one step alone is noise."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number with its name and a line of context."""

    name: str
    number: str
    more: str = ""
    css: str = ""


def tiles_of(record: RunRecord) -> list[Tile]:
    """Held-out result and its change, reward, divergence, entropy, length, cost: those that are known."""
    made = [
        *_held_out(record),
        _ends(record, "reward_mean", "Reward in training", "{:.3g}"),
        _ends(record, "kl_pi_ref", "KL(π‖ref), nats per token", "{:.2g}"),
        _ends(record, "entropy", "Entropy, nats per token", "{:.2g}"),
        _ends(record, "length_mean", "Tokens a response", "{:.3g}"),
        _cost(record),
    ]
    return [tile for tile in made if tile is not None]


OVERVIEW_HEADS = (
    "seed",
    "steps",
    "before",
    "last",
    "change, paired",
    "best on the way",
    "KL(π‖ref)",
    "entropy",
    "time",
)


def overview(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return one row a run, groups together: colour, names and the cells under `OVERVIEW_HEADS`."""
    return [_overview_row(group, run, number) for number, group in enumerate(groups) for run in group.runs]


def number_text(value: float | None, *, is_accuracy: bool) -> str:
    """`61.9 %` for an accuracy, `0.532` for a reward, `–` for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if is_accuracy else f"{value:.3g}".replace("-", "−")


def change_text(change: Interval, *, is_accuracy: bool) -> str:
    """`+36.9 points [+22.6, +51.2]`: a change and its 95 % interval; `no interval` where there is none."""
    form = "{:+.1f}" if is_accuracy else "{:+.3g}"
    mean, low, high = (
        form.format(100 * part if is_accuracy else part) for part in (change.value, change.low, change.high)
    )
    ends = f"[{low}, {high}]" if change.is_known else "(no interval)"
    return f"{mean}{' points' if is_accuracy else ''} {ends}".replace("-", "−")


def change_css(change: Interval | None) -> str:
    """Return the colour of a change that is more than chance; none for any other."""
    if change is None or not (change.is_positive or change.is_negative):
        return ""
    return "good" if change.is_positive else "bad"


def over_units(change: Interval) -> str:
    """`paired over 21 problems`, or why there is no interval."""
    if not change.is_known:
        return f"no interval: {change.reason}"
    return (
        f"over {change.counted_units}, not paired" if change.method == WELCH else f"paired over {change.counted_units}"
    )


def _held_out(record: RunRecord) -> list[Tile]:
    before, last = record.before, record.last
    newest = last or before
    if newest is None:
        return []
    name = "Held-out accuracy" if newest.is_accuracy else "Held-out reward"
    if before is None or last is None:
        return [Tile(name=name, number=_mean(newest), more=_interval(newest))]
    change = change_between(before, last)
    css = change_css(change)
    shown = f": {change_text(change, is_accuracy=last.is_accuracy)}, {over_units(change)}" if change else ""
    when = "" if last.when == "after" else f"after step {last.step}, "
    tiles = [Tile(name=name, number=_mean(last), more=f"{when}from {_mean(before)}{shown}", css=css)]
    best = max(
        (made for made in record.evaluations if math.isfinite(made.mean)), key=lambda made: made.mean, default=last
    )
    if best.mean > last.mean and best.when == "during":
        tiles.append(
            Tile(name="Best on the way", number=_mean(best), more=f"step {best.step}; picked by these very problems")
        )
    return tiles


def _overview_row(group: Group, run: RunRecord, number: int) -> dict[str, Any]:
    before, last = run.before, run.last
    finite = [made for made in run.evaluations if math.isfinite(made.mean)]
    best = max(finite, key=lambda made: made.mean, default=None)
    change = change_between(before, last) if before and last else None
    is_accuracy = all(made.is_accuracy for made in run.evaluations)
    seconds = run.summary.get("seconds", {}).get("total")
    cells = (
        str(run.seed) if run.seed is not None else "–",
        f"{run.num_steps:,}" if run.is_finished else f"{run.num_steps:,}, not finished",
        number_text(before.mean if before else None, is_accuracy=is_accuracy),
        number_text(last.mean if last else None, is_accuracy=is_accuracy),
        change_text(change, is_accuracy=is_accuracy) if change else "–",
        f"{number_text(best.mean, is_accuracy=is_accuracy)} at {best.step}" if best else "–",
        _end(run, "kl_pi_ref"),
        _end(run, "entropy"),
        duration(seconds) if seconds else "–",
    )
    name = run.name if run.name != group.label else ""
    return {"colour": classes(number), "label": group.label, "name": name, "cells": cells}


def _ends(record: RunRecord, metric: str, name: str, form: str) -> Tile | None:
    _, values = record.curve(metric)
    if not values:
        return None
    count = min(ENDS, max(1, len(values) // 2))
    first, last = sum(values[:count]) / count, sum(values[-count:]) / count
    which = "step" if count == 1 else f"{count} steps"
    start, end = (form.format(value).replace("-", "−") for value in (first, last))
    return Tile(name=name, number=end, more=f"from {start}; mean of the last and first {which}")


def _end(record: RunRecord, metric: str) -> str:
    _, values = record.curve(metric)
    part = values[-min(ENDS, max(1, len(values) // 2)) :]
    return f"{sum(part) / len(part):.2g}".replace("-", "−") if part else "–"


def _cost(record: RunRecord) -> Tile | None:
    if not record.rows:
        return None
    _, sampled = record.curve("num_tokens_sampled")
    total = record.summary.get("seconds", {}).get("total") or sum(record.curve("step_seconds")[1])
    return Tile(
        name="Cost", number=duration(total), more=f"{record.num_steps:,} steps, {sum(sampled):,.0f} tokens drawn"
    )


def _mean(record: EvaluationRecord) -> str:
    return number_text(record.mean, is_accuracy=record.is_accuracy)


def _interval(record: EvaluationRecord) -> str:
    made = record.interval
    if not made.is_known:
        return f"no interval: {made.reason}"
    low, high = (number_text(value, is_accuracy=record.is_accuracy) for value in (made.low, made.high))
    return f"95 % interval {low} to {high} over {made.counted_units}"


PARTS = (
    ("sample_seconds", "drawing answers"),
    ("score_seconds", "rewards"),
    ("reference_seconds", "reference and sampler's gap"),
    ("update_seconds", "updates"),
)
"""What a step's own seconds are made of."""


@dataclass(frozen=True)
class Share:
    """Seconds of one kind of work."""

    label: str
    seconds: float


def time_shares(record: RunRecord) -> list[Share]:
    """Return what took how long: parts of the steps, evaluations, guard, and the rest up to the run's whole time."""
    shares = [Share(label, _sum(record, metric)) for metric, label in PARTS]
    steps = _sum(record, "step_seconds")
    shares.append(Share("rest of the steps", max(0.0, steps - sum(share.seconds for share in shares))))
    shares.append(Share("evaluations during training", _sum(record, "evaluation_seconds")))
    shares.append(Share("base metrics", _sum(record, "guard_seconds") + _sum(record, "guard/seconds")))
    of_summary = record.summary.get("seconds", {})
    shares.append(Share("evaluations before and after", float(of_summary.get("evaluation", 0.0))))
    known = sum(share.seconds for share in shares)
    shares.append(Share("loading, saving, the rest", max(0.0, float(of_summary.get("total", 0.0)) - known)))
    return [share for share in shares if share.seconds > 0]


def time_chart(shares: Sequence[Share]) -> Chart | None:
    """Return seconds as bars; none if nothing was timed."""
    if not shares:
        return None
    bars = Bars(labels=[share.label for share in shares], values=[share.seconds for share in shares])
    return Chart(title="Shares of the time", unit="seconds", axis="", bars=bars)


def time_rows(shares: Sequence[Share]) -> list[tuple[str, str, str]]:
    """Return name, time and share of the whole."""
    total = sum(share.seconds for share in shares)
    return [
        (
            share.label,
            duration(share.seconds) if share.seconds >= 1 else f"{share.seconds:.2g} s",
            f"{100 * share.seconds / total:.1f} %",
        )
        for share in shares
    ]


def _sum(record: RunRecord, metric: str) -> float:
    return sum(record.curve(metric)[1])
