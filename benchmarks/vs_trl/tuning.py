"""Which of TRL's settings is fastest here: one after another, each tried beside the best so far."""

import dataclasses
import statistics
from collections.abc import Iterator

from benchmarks.measuring import in_turns
from benchmarks.vs_trl.settings import TrlSettings
from benchmarks.vs_trl.turns import Side, SideError
from benchmarks.workload import Workload

MICRO_BATCHES = (8, 16, 32, 64)


def start_trl(workload: Workload, settings: TrlSettings, *, name: str = "TRL") -> Side:
    """TRL in a process of its own, loaded and waiting."""
    return Side(name, "benchmarks.vs_trl.trl_side", workload.to_json(), settings.to_json())


def tuned(workload: Workload, settings: TrlSettings, *, num_steps: int = 2) -> TrlSettings:
    """The fastest settings found, by `num_steps` steps each after one to warm up.

    Attention first, then the micro-batch, the allocator and the cache. The weights' dtype is not tuned: it changes what
    is computed.
    """
    best = settings
    for candidate in _candidates(workload, settings):
        # A later candidate changes one setting of what is best by then.
        challenger = dataclasses.replace(best, **candidate)
        try:
            best = faster(workload, best, challenger, num_steps=num_steps)
        except SideError as error:
            print(f"  left out: {challenger}\n{error}", flush=True)
    return best


def _candidates(workload: Workload, settings: TrlSettings) -> Iterator[dict[str, object]]:
    yield {"attention": "eager" if settings.attention == "sdpa" else "sdpa"}
    for size in MICRO_BATCHES:
        if size != settings.micro_batch and workload.num_responses % size == 0:
            yield {"micro_batch": size}
    yield {"keep_memory": not settings.keep_memory}
    yield {"cache": "static" if settings.cache == "dynamic" else "dynamic"}


def faster(workload: Workload, first: TrlSettings, second: TrlSettings, *, num_steps: int) -> TrlSettings:
    """The one whose median step is shorter when the two take turns."""
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
