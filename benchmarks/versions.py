"""Steps of this checkout of klimb beside those of another one: did a change make it faster?

    git worktree add ../before HEAD~1
    python -m benchmarks.versions ../before --case medium

Both live in a process of their own and take turns, a step each, in alternating order, as in `benchmarks.vs_trl`. The
other checkout must have `benchmarks/vs_trl`; it needs no environment of its own.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

from benchmarks.measuring import in_turns, machine, paired_ratios
from benchmarks.vs_trl.tables import LEAST_SECONDS, PHASES, seconds_of, step_line
from benchmarks.vs_trl.turns import Side, StepRecord
from benchmarks.workload import CASES, Workload

NUM_WARMUP = 2
"""The second step still meets memory that the process has not used before."""


def main() -> None:
    """Lets both versions take turns, prints each step and the ratios."""
    arguments = parsed()
    sizes = {**CASES[arguments.case], "num_epochs": arguments.epochs}
    workload = dataclasses.replace(Workload(dtype=arguments.dtype), **sizes)
    print(f"{machine()}\n{workload}", flush=True)
    module, records = "benchmarks.vs_trl.klimb_side", dict[str, list[StepRecord]](this=[], other=[])
    with (
        Side("this", module, workload.to_json()) as this,
        Side("other", module, workload.to_json(), folder=arguments.other.resolve()) as other,
    ):
        sides = {side.name: side for side in (this, other)}
        for number, name in in_turns(list(sides), arguments.steps + NUM_WARMUP):
            record = sides[name].step()
            if number >= NUM_WARMUP:
                records[name].append(record)
                print(step_line(number + 1 - NUM_WARMUP, name, record), flush=True)
    print("\n".join(summary_lines(records)))


def summary_lines(records: dict[str, list[StepRecord]]) -> list[str]:
    """Medians of both, and of the ratios of neighbouring steps."""
    lines = [f"{'':<10}{'this':>10}{'other':>10}   other / this, step by step: median (lowest–highest)"]
    for phase in ("whole", *PHASES, "CPU"):
        this, other = ([seconds_of(record, phase) for record in records[name]] for name in ("this", "other"))
        if min(*this, *other) >= LEAST_SECONDS:
            medians = f"{statistics.median(this):10.2f}{statistics.median(other):10.2f}"
            lines.append(f"{phase + ', s':<10}{medians}   {paired_ratios(other, this)}")
    peaks = "".join(f"{max(record.peak_gib for record in records[name]):10.2f}" for name in ("this", "other"))
    return [*lines, f"{'peak, GiB':<10}{peaks}"]


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--case", choices=CASES, default="medium")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6, help="of each, after the warm-up")
    arguments = parser.parse_args()
    if not (arguments.other / "benchmarks" / "vs_trl" / "klimb_side.py").is_file():
        parser.error(f"{arguments.other} is no checkout of klimb with benchmarks/vs_trl")
    return arguments


if __name__ == "__main__":
    main()
