"""Tokens per second of LocalSampler beside transformers' `generate`, alternating, at the same work.

    python benchmarks/sampler_speed.py --batch 64 --tokens 64

Both draw `--tokens` tokens at temperature 1 for `--batch` rows in groups of 8, with no end token, so the work is equal.
`generate` runs on a copy of the model in the compute dtype, its fastest way; LocalSampler on the float32 weights that
are being trained, and it records log-probabilities besides. Absolute numbers on a shared machine drift by 30 %: read
the ratio, and the column that says how many cores other processes kept busy.
"""

import argparse
import copy
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from klimb.experience.samples import SamplingSettings
from klimb.policies import Policy, load_policy
from klimb.samplers import LocalSampler

GROUP = 8


def main() -> None:
    """Parse the arguments, run both in turn, print one line per repeat and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=64, help=f"rows; a multiple of {GROUP}")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.batch < GROUP or arguments.batch % GROUP:
        parser.error(f"--batch must be a multiple of {GROUP}, got {arguments.batch}")

    policy = load_policy(arguments.model, dtype=arguments.dtype, device=arguments.device)
    policy = dataclasses.replace(policy, end_ids=())
    contenders = {
        "LocalSampler": local_sampler(policy, arguments),
        "generate": transformers_generate(policy, arguments),
    }
    num_tokens = arguments.batch * arguments.tokens
    print(
        f"{arguments.batch} rows x {arguments.tokens} tokens, {policy.compute_dtype}, {torch.get_num_threads()} threads"
    )
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # warm-up
    for repeat in range(arguments.repeats):
        for name, run in contenders.items():
            seconds, foreign_cores = timed(run, policy.device)
            rates[name].append(num_tokens / seconds)
            print(f"repeat {repeat}  {name:<13}{rates[name][-1]:8.0f} tokens/s   other load {foreign_cores:.2f} cores")
    median = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    print("median    " + "   ".join(f"{name} {rate:.0f} tokens/s" for name, rate in median.items()))
    print(f"ratio of medians {median['LocalSampler'] / median['generate']:.2f}")


def local_sampler(policy: Policy, arguments: argparse.Namespace) -> Callable[[], object]:
    """One call of LocalSampler: all rows in one wave."""
    sampler = LocalSampler(policy, max_batch=arguments.batch)
    settings = SamplingSettings(max_new_tokens=arguments.tokens)
    prompts = random_prompts(policy, arguments).tolist()
    generator = torch.Generator().manual_seed(0)
    return lambda: sampler.sample(prompts, num_samples=GROUP, settings=settings, generator=generator)


def transformers_generate(policy: Policy, arguments: argparse.Namespace) -> Callable[[], object]:
    """One call of `generate` on a copy of the model in the compute dtype."""
    model = cast(Any, copy.deepcopy(policy.causal_lm)).to(policy.compute_dtype).eval()
    model.generation_config.eos_token_id = None
    # Its faster attention at these lengths: klimb loads models with `eager`, for training.
    model.set_attn_implementation("sdpa")
    prompts = random_prompts(policy, arguments).to(policy.device)
    return lambda: model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        num_return_sequences=GROUP,
        max_new_tokens=arguments.tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
    )


def random_prompts(policy: Policy, arguments: argparse.Namespace) -> torch.Tensor:
    """Random token ids: one prompt per group."""
    shape = (arguments.batch // GROUP, arguments.prompt_tokens)
    return torch.randint(policy.num_vocab, shape, generator=torch.Generator().manual_seed(1))


def timed(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall seconds of one call, and how many cores other processes kept busy meanwhile (nan where unknown)."""
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    return seconds, max(0.0, (busy_seconds() - busy - (time.process_time() - own)) / seconds)


def busy_seconds() -> float:
    """CPU seconds that all processes have used since the machine started."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
