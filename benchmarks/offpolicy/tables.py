"""What came out of the study, as Markdown: means over seeds with 95 % t-intervals, and paired differences."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

FLOOR = "bc-filtered"
"""What every offline recipe must beat."""

Line = Mapping[str, Any]


def print_tables(path: Path) -> None:
    """One table a part, for as many runs as there are."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for part in dict.fromkeys(line["part"] for line in lines):
        arms: dict[str, dict[int, Line]] = {}
        for line in lines:
            if line["part"] == part:
                arms.setdefault(line["arm"], {})[line["seed"]] = line
        print(f"\n{part}\n")
        print("| arm | seeds | accuracy after | against the first arm | tokens drawn | ESS | clipped | seconds |")
        print("|---|---|---|---|---|---|---|---|")
        first = FLOOR if FLOOR in arms else next(iter(arms))
        for arm, runs in arms.items():
            print(_row(arm, runs, {} if arm == first else arms[first]))
        if part == "replay":
            _print_token_costs(arms)


def _row(arm: str, runs: Mapping[int, Line], floor: Mapping[int, Line]) -> str:
    differences = [runs[seed]["mean"] - floor[seed]["mean"] for seed in runs if seed in floor]
    cells = [
        arm,
        str(len(runs)),
        _with_interval([run["mean"] for run in runs.values()]),
        _with_interval(differences, sign="+") if differences else "",
        f"{statistics.fmean(run['num_tokens_sampled'] for run in runs.values()):,.0f}",
        _mean_of(runs, "ess_token"),
        _mean_of(runs, "clip_fraction"),
        f"{statistics.fmean(run['seconds'] for run in runs.values()):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _mean_of(runs: Mapping[int, Line], name: str) -> str:
    values = [run[name] for run in runs.values() if run[name] is not None]
    return f"{statistics.fmean(values):.3f}" if values else ""


def _with_interval(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and half width in points: t with n − 1 degrees of freedom."""
    mean = 100 * statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:{sign}.1f}"
    half = 100 * t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:{sign}.1f} ± {half:.1f}"


def _print_token_costs(arms: Mapping[str, Mapping[int, Line]]) -> None:
    print("\n| arm | tokens drawn -> accuracy, mean over seeds |\n|---|---|")
    for arm, runs in arms.items():
        by_time = zip(*(run["evaluations"] for run in runs.values()), strict=True)
        points = [
            f"{statistics.fmean(drawn for drawn, _ in at):,.0f} -> {100 * statistics.fmean(mean for _, mean in at):.1f}"
            for at in (list(each) for each in by_time)
        ]
        print(f"| {arm} | {', '.join(points)} |")
