"""What this machine can do, and how much of it each phase of a klimb step takes.

    python -m benchmarks.roofline                  # 8 x 8 x (40 + 64) tokens, bfloat16
    python -m benchmarks.roofline --case long --dtype float32 --reference fixed --steps 6

Measures the rate of matrix products (several shapes; the best one is the limit) and the memory's bandwidth, then steps
of klimb's own training loop. Operations are counted once (`benchmarks/flops.py`): a prompt that its group shares, what
the backward pass computes again and tiles of logits cost nothing extra in the count. `as rows` counts each response
with its own copy of the prompt, as an implementation without shared prompts would have to compute.

    sample    least time: prompts by products, then each token by the slower of products and reading weights and cache
    score     least time: one forward pass at the matrix rate; only with a fixed reference
    update    share of the matrix rate: operations / (seconds x rate)
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.flops import (
    ModelShape,
    StepShape,
    optimizer_floor_seconds,
    sampling_floor_seconds,
    scoring_flops,
    update_flops,
)
from benchmarks.klimb_steps import phases_of, prepare_policy, train_steps
from benchmarks.measuring import Stopwatch, machine
from benchmarks.workload import CASES, Phases, Workload
from klimb.policies import Policy

SHAPES = (
    (4096, 4096, 4096),
    (2048, 576, 576),
    (2048, 576, 1536),
    (2048, 1536, 576),
    (512, 576, 2048),
    (2048, 576, 49152),
    (64, 576, 1536),
)
"""(m, k, n): a large square, the layers of SmolLM2-135M in training, its head by tile and whole, and its decoding."""

DTYPES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BANDWIDTH_NUMBERS = 2**26
"""256 MiB in float32: far more than any cache holds."""


def best_seconds(run: Callable[[], object], *, least_seconds: float) -> float:
    """Return the shortest of the calls made within that time, and of three at least."""
    run()
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - start < least_seconds:
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def matrix_rate(shape: Sequence[int], dtype: torch.dtype, *, least_seconds: float) -> float:
    """Operations a second of a product [m, k] x [k, n] into memory that is there already."""
    m, k, n = shape
    left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    out = torch.empty(m, n, dtype=dtype)
    return 2 * m * k * n / best_seconds(lambda: torch.mm(left, right.t(), out=out), least_seconds=least_seconds)


def bandwidths(*, least_seconds: float) -> dict[str, float]:
    """Bytes a second: reading (a sum), copying, and a triad (two read, one written)."""
    first, second, out = (torch.ones(BANDWIDTH_NUMBERS) for _ in range(3))
    size = first.numel() * first.element_size()
    runs: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "read": (1, lambda: first.sum()),
        "copy": (2, lambda: out.copy_(first)),
        "triad": (3, lambda: torch.add(first, second, alpha=2.0, out=out)),
    }
    return {name: count * size / best_seconds(run, least_seconds=least_seconds) for name, (count, run) in runs.items()}


def measured_phases(policy: Policy, workload: Workload, *, num_steps: int) -> list[Phases]:
    """Return the phases of each step after the first, which warms up."""
    found: list[Phases] = []
    watch = Stopwatch()

    def on_step(metrics: Mapping[str, float]) -> None:
        nonlocal watch
        found.append(phases_of(metrics, seconds=watch.stop().seconds))
        watch = Stopwatch()

    train_steps(policy, workload, num_steps=num_steps + 1, on_step=on_step)
    return found[1:]


def shares(
    policy: Policy, workload: Workload, phases: Sequence[Phases], *, flops_per_second: float, bytes_per_second: float
) -> dict[str, dict[str, float]]:
    """For each phase: median seconds, the least there could be, and the share; for `update` also as separate rows."""
    model, step = ModelShape.of(policy.causal_lm.config), step_shape(workload)
    floors = {
        "sample": sampling_floor_seconds(
            model,
            step,
            flops_per_second=flops_per_second,
            bytes_per_second=bytes_per_second,
            bytes_per_number=DTYPES[workload.dtype].itemsize,
        ),
        "score": scoring_flops(model, step) / flops_per_second if workload.reference == "fixed" else 0.0,
        "update": update_flops(model, step) / flops_per_second,
        "update as rows": update_flops(model, step, share_prompts=False) / flops_per_second,
        "optimizer in it": optimizer_floor_seconds(
            sum(parameter.numel() for parameter in policy.trainable().values()),
            steps=workload.num_epochs,
            bytes_per_second=bytes_per_second,
        ),
    }
    seconds = {
        name: statistics.median(getattr(each, name) for each in phases) for name in ("sample", "score", "update")
    }
    table: dict[str, dict[str, float]] = {}
    for name, floor in floors.items():
        taken = seconds[name if name in seconds else "update"]
        table[name] = {"seconds": taken, "least_seconds": floor, "share": floor / taken}
    return table


def step_shape(workload: Workload) -> StepShape:
    """Return the workload's sizes, for counting."""
    return StepShape(
        num_prompts=workload.num_prompts,
        group_size=workload.group_size,
        prompt_tokens=workload.prompt_tokens,
        response_tokens=workload.response_tokens,
        epochs=workload.num_epochs,
    )


def measured_limits(dtype: str, *, least_seconds: float) -> tuple[float, dict[str, float]]:
    """Return the best matrix rate in the dtype and the bandwidths; prints the rates of all shapes in both dtypes."""
    best = 0.0
    print(f"{'m x k x n':<20}" + "".join(f"{name:>12}" for name in DTYPES) + "   10⁹ operations/s")
    for shape in SHAPES:
        rates = {name: matrix_rate(shape, kind, least_seconds=least_seconds) for name, kind in DTYPES.items()}
        best = max(best, rates[dtype])
        print(f"{' x '.join(map(str, shape)):<20}" + "".join(f"{rate / 1e9:12.0f}" for rate in rates.values()))
    found = bandwidths(least_seconds=least_seconds)
    print("memory: " + ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in found.items()) + " GB/s", flush=True)
    return best, found


def main() -> None:
    """Measures the machine, then a step, and prints each phase's share."""
    arguments = parsed()
    base = Workload(model=arguments.model, dtype=arguments.dtype, reference=arguments.reference)
    workload = dataclasses.replace(base, **CASES[arguments.case])
    print(f"{machine()}\n{workload}", flush=True)
    policy = prepare_policy(workload)
    rate, bytes_per_second = measured_limits(workload.dtype, least_seconds=arguments.least_seconds)
    watch = Stopwatch()
    phases = measured_phases(policy, workload, num_steps=arguments.steps)
    load = watch.stop().foreign_cores
    table = shares(policy, workload, phases, flops_per_second=rate, bytes_per_second=bytes_per_second["read"])
    print(f"{'phase':<17}{'seconds':>9}{'least':>9}{'share':>8}   of {rate / 1e9:.0f} x 10⁹ operations/s")
    for name, row in table.items():
        print(f"{name:<17}{row['seconds']:9.2f}{row['least_seconds']:9.2f}{row['share']:8.1%}")
    print(f"medians of {len(phases)} steps; other processes kept {load:.2f} cores busy")
    if arguments.json:
        result: dict[str, Any] = {"machine": machine(), "workload": str(workload), "matrix_rate": rate}
        arguments.json.write_text(json.dumps(result | {"bandwidths": bytes_per_second, "phases": table}, indent=1))


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="medium")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--reference", choices=["none", "fixed"], default="none")
    parser.add_argument("--model", default="smollm2-135m", help="of the Llama family")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one to warm up")
    parser.add_argument("--least-seconds", type=float, default=1.0, help="spent on each shape")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
