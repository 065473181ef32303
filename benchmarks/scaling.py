"""How the cost of a step grows with the tokens drawn, and with the size of a group that shares a long prompt.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --rounds 3 --plot docs/performance/scaling.svg

Two series of steps of klimb's own training loop: responses of more and more tokens to short prompts, and groups of more
and more responses to long prompts. Each round visits all sizes, in reversed order every other time; a size's seconds
are the median over rounds of the second of two steps. The plot is written only when asked for.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.klimb_steps import prepare_policy, train_steps
from benchmarks.measuring import Stopwatch, in_turns, machine
from benchmarks.workload import Workload
from klimb.policies import Policy

PARTS = ("sample", "update", "whole")


def series(arguments: argparse.Namespace) -> dict[str, list[Workload]]:
    """Name of a series -> its sizes, from the smallest."""
    base = Workload(model=arguments.model, dtype=arguments.dtype)
    return {
        "tokens": [
            dataclasses.replace(base, num_prompts=arguments.prompts, prompt_tokens=40, response_tokens=tokens)
            for tokens in sorted(arguments.tokens)
        ],
        "group": [
            dataclasses.replace(
                base, num_prompts=1, prompt_tokens=arguments.long_prompt, response_tokens=32, group_size=size
            )
            for size in sorted(arguments.groups)
        ],
    }


def step_seconds(policy: Policy, workload: Workload) -> dict[str, float]:
    """Seconds of the second of two steps, by part."""
    found: list[Mapping[str, float]] = []
    train_steps(policy, workload, num_steps=2, on_step=found.append)
    last = found[-1]
    return {"sample": last["sample_seconds"], "update": last["update_seconds"], "whole": last["step_seconds"]}


def medians(policy: Policy, sizes: Sequence[Workload], *, rounds: int) -> list[dict[str, float]]:
    """Median seconds of each size, by part."""
    found: dict[str, list[dict[str, float]]] = {str(number): [] for number in range(len(sizes))}
    for _, name in in_turns(list(found), rounds):
        found[name].append(step_seconds(policy, sizes[int(name)]))
    return [{part: statistics.median(each[part] for each in steps) for part in PARTS} for steps in found.values()]


def fitted_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and R² of the least-squares line."""
    slope, intercept = statistics.linear_regression(x, y)
    return slope, intercept, statistics.correlation(x, y) ** 2 if len(x) > 2 else 1.0


def growth(x: Sequence[float], y: Sequence[float]) -> float:
    """How many times dearer the largest size is, over how many times larger: below 1 is sublinear.

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(x) < 2:
        raise ValueError(f"growth needs two sizes at least, got {len(x)}")
    return (y[-1] / y[0]) / (x[-1] / x[0])


def plot(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Both series side by side, as SVG without a date in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rcParams["svg.hashsalt"] = "klimb"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    _panel(axes[0], results["tokens"], "tokens drawn and trained on in a step")
    _panel(axes[1], results["group"], "responses to one long prompt")
    x, whole = results["group"]["x"], results["group"]["seconds"]["whole"]
    axes[1].plot(x, [whole[0] / x[0] * size for size in x], ":", color="gray", label="proportional")
    for axis in axes:
        axis.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axis: Axes, result: Mapping[str, Any], label: str) -> None:
    for part in PARTS:
        axis.plot(result["x"], result["seconds"][part], "o-", label=part, markersize=4)
    axis.set_xlabel(label)
    axis.set_ylabel("seconds a step")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)


def main() -> None:
    """Measures both series, prints them, and plots them where asked."""
    arguments = parsed()
    print(f"{machine()}\n{arguments.model}, {arguments.dtype}", flush=True)
    all_series = series(arguments)
    policy = prepare_policy(all_series["tokens"][0])
    results: dict[str, dict[str, Any]] = {}
    watch = Stopwatch()
    for name, sizes in all_series.items():
        rows = medians(policy, sizes, rounds=arguments.rounds)
        x = [size.num_responses * size.response_tokens if name == "tokens" else size.group_size for size in sizes]
        results[name] = {"x": x, "seconds": {part: [row[part] for row in rows] for part in PARTS}}
        print(f"\n{name:>8}" + "".join(f"{part:>9}" for part in PARTS) + "   seconds")
        for value, row in zip(x, rows, strict=True):
            print(f"{value:8d}" + "".join(f"{row[part]:9.2f}" for part in PARTS), flush=True)
        if len(x) > 1:
            slope, intercept, r_squared = fitted_line(x, results[name]["seconds"]["whole"])
            print(f"line: {intercept:.2f} s + {slope:.4f} s each, R² = {r_squared:.3f}")
            print(f"dearer over larger: {growth(x, results[name]['seconds']['whole']):.2f}")
    print(f"\nother processes kept {watch.stop().foreign_cores:.2f} cores busy")
    if arguments.plot:
        plot(arguments.plot, results)
        print(f"plot: {arguments.plot}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "series": results}, indent=1))


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--prompts", type=int, default=4, help="of the series over tokens; groups of 8")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64, 128, 192])
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--long-prompt", type=int, default=512, help="tokens of the prompt of the series over groups")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="write the plot there, as SVG")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
