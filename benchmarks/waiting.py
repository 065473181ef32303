"""How OpenMP's threads should wait: spinning or asleep, alone and beside a process that keeps one core busy.

    python -m benchmarks.waiting

Decoding has thousands of small operations, between which threads meet; the update has fewer and larger ones. Each way
to wait is a process of its own, as OpenMP reads it when it is loaded: GNU's own default (3 ms of spinning), sleeping at
once, and numbers of spins before sleeping. Seconds are medians by the wall clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

WAYS = {
    "default": {},
    "no spinning": {"OMP_WAIT_POLICY": "PASSIVE"},
    "300 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300"},
    "1,000 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
    "5,000 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"},
}
"""Name -> environment; `klimb` sets what 1,000 spins has."""

BUSY = "while True: pass"
NUM_ROWS, NUM_TOKENS, REPEATS = 64, 32, 3


def main() -> None:
    """Each way alone, then each beside a busy process; `--measure` is what such a process does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().measure:
        print(json.dumps(measured()))
        return
    print(f"{'':<14}{'alone: decode':>14}{'update, s':>11}{'beside: decode':>16}{'update, s':>11}", flush=True)
    alone = {name: seconds_of(way) for name, way in WAYS.items()}
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            for name, way in WAYS.items():
                numbers = [*alone[name], *seconds_of(way)]
                print(f"{name:<14}{numbers[0]:14.2f}{numbers[1]:11.2f}{numbers[2]:16.2f}{numbers[3]:11.2f}", flush=True)
        finally:
            busy.kill()


def seconds_of(way: dict[str, str]) -> list[float]:
    """Seconds of decoding and of an update in a process that waits in this way."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    }
    command = [sys.executable, "-m", "benchmarks.waiting", "--measure"]
    out = subprocess.run(command, env=environment | way, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def measured() -> list[float]:
    """Medians of drawing 64 rows of 32 tokens and of one forward and backward pass over them."""
    # Here, so that the parent loads no OpenMP of its own.
    import torch

    from klimb.experience import SamplingSettings
    from klimb.policies import keep_freed_memory, load_policy
    from klimb.samplers import LocalSampler

    keep_freed_memory()
    policy = load_policy("smollm2-135m", dtype="bfloat16", device="cpu")
    sampler, settings = LocalSampler(policy), SamplingSettings(max_new_tokens=NUM_TOKENS)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(policy.num_vocab, (8, 40), generator=generator).tolist()
    index = torch.arange(8).repeat_interleave(NUM_ROWS // 8)
    ids = torch.randint(policy.num_vocab, (NUM_ROWS, NUM_TOKENS), generator=generator)

    def decode() -> None:
        sampler.sample(prompts, num_samples=NUM_ROWS // 8, settings=settings, generator=generator)

    def update() -> None:
        policy.log_probs(prompts, index, ids, torch.ones_like(ids, dtype=torch.bool)).log_pi.exp().sum().backward()

    return [median_seconds(decode), median_seconds(update)]


def median_seconds(work: Callable[[], None]) -> float:
    """After one call to warm up."""
    work()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


if __name__ == "__main__":
    main()
