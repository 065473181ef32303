"""Which of TRL's settings is fastest here: one after another, each tried beside the best so far."""

import dataclasses
import statistics
from fractions import Fraction
from typing import Any

from benchmarks.measuring import in_turns
from benchmarks.vs_trl.settings import TrlSettings
from benchmarks.vs_trl.turns import Side, SideError
from benchmarks.workload import Workload


def start_trl(workload: Workload, settings: TrlSettings, *, name: str = "TRL") -> Side:
    """TRL in a process of its own, loaded and waiting."""
    return Side(name, "benchmarks.vs_trl.trl_side", workload.to_json(), settings.to_json())


def tuned(workload: Workload, settings: TrlSettings, *, num_steps: int = 2) -> TrlSettings:
    """Return the fastest settings found, by `num_steps` steps each after one to warm up.

    Attention first, then the micro-batch, halved or doubled as long as that helps, the allocator and the cache. The
    weights' dtype is not tuned: it changes what is computed.
    """

    def better(best: TrlSettings, **change: Any) -> TrlSettings:
        challenger = dataclasses.replace(best, **change)
        try:
            return faster(workload, best, challenger, num_steps=num_steps)
        except SideError as error:
            print(f"  left out: {challenger}\n{error}", flush=True)
            return best

    best = better(settings, attention="eager" if settings.attention == "sdpa" else "sdpa")
    for factor in (Fraction(1, 2), Fraction(2)):
        before = best
        while _divides(size := best.micro_batch * factor, workload.num_responses):
            challenged, best = best, better(best, micro_batch=int(size))
            if best is challenged:
                break
        if best is not before:
            break
    best = better(best, keep_memory=not best.keep_memory)
    return better(best, cache="static" if best.cache == "dynamic" else "dynamic")


def _divides(size: Fraction, count: int) -> bool:
    return size.denominator == 1 and count % int(size) == 0


def faster(workload: Workload, first: TrlSettings, second: TrlSettings, *, num_steps: int) -> TrlSettings:
    """Return the one whose median step is shorter when the two take turns."""
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    with start_trl(workload, first) as one, start_trl(workload, second) as other:
        sides = {"first": one, "second": other}
        for side in sides.values():
            side.step()
        for _, name in in_turns(list(sides), num_steps):
            seconds[name].append(sides[name].step().seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"  {medians['first']:7.2f} s {first}\n  {medians['second']:7.2f} s {second}", flush=True)
    return first if medians["first"] <= medians["second"] else second
