"""Forward and backward pass of scoring: klimb's packed pass beside the transformers pass, alternating, at equal work.

    python benchmarks/update_speed.py --case medium --dtype bfloat16
    python benchmarks/update_speed.py --case medium --ragged     # answers of 1 to 64 tokens
    python benchmarks/update_speed.py --case medium --memory     # peak memory, each pass in a process of its own

Both passes run the prompt of a group once and end in the same head. The packed pass has one set of matrix products and
no padding; the transformers pass (`attention="eager"`) has one for prompts and one for responses, each padded to the
longest.

The ratio is that of the CPU times of neighbouring runs, which other processes disturb least. The share of the matrix
rate counts each model FLOP once (6 for each weight and token, prompts once for a group; nothing for attention or for
what is computed again) and divides by the rate of a large matrix product, measured in the same process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from klimb.policies import Policy, keep_freed_memory, load_policy

CASES = {"short": (40, 16), "medium": (40, 64), "long-prompt": (512, 64)}
"""Tokens of a prompt and of a response."""

PASSES = {"packed": True, "transformers": False}
MATRIX = 2048


@dataclass(frozen=True)
class Work:
    """The arguments of `log_probs`, and what they cost."""

    prompts: list[list[int]]
    index: Tensor
    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, policy: Policy, arguments: argparse.Namespace) -> "Work":
        """Random tokens in groups."""
        prompt_tokens, response_tokens = CASES[arguments.case]
        generator = torch.Generator().manual_seed(0)
        shape = (arguments.prompts * arguments.group, response_tokens)
        lengths = torch.full((shape[0],), response_tokens)
        if arguments.ragged:
            lengths = torch.randint(1, response_tokens + 1, lengths.shape, generator=generator)
        return cls(
            torch.randint(policy.num_vocab, (arguments.prompts, prompt_tokens), generator=generator).tolist(),
            torch.arange(arguments.prompts).repeat_interleave(arguments.group),
            torch.randint(policy.num_vocab, shape, generator=generator),
            torch.arange(response_tokens) < lengths[:, None],
        )

    def num_flops(self, policy: Policy) -> float:
        """Of the linear layers and the head, forward and backward, each once."""
        total = sum(parameter.numel() for parameter in policy.model.parameters())
        head = cast(nn.Linear, policy.causal_lm.get_output_embeddings()).weight.numel()
        num_scored = int(self.mask.sum())
        num_inputs = sum(map(len, self.prompts)) + num_scored - len(self.ids)
        is_tied = policy.causal_lm.config.get_text_config().tie_word_embeddings
        return 6.0 * ((total - head * (1 if is_tied else 2)) * num_inputs + head * num_scored)


def run(policy: Policy, work: Work, name: str) -> tuple[float, float]:
    """CPU and wall seconds of one forward and backward pass."""
    policy.packs_rows = PASSES[name]
    for parameter in policy.trainable().values():
        parameter.grad = None
    cpu, wall = time.process_time(), time.perf_counter()
    scored = policy.log_probs(work.prompts, work.index, work.ids, work.mask, with_entropy=True)
    scored.log_pi.exp().sum().backward()
    return time.process_time() - cpu, time.perf_counter() - wall


def matrix_rate(dtype: torch.dtype) -> float:
    """FLOP for each CPU second of a large product; the best of a few."""
    left = torch.randn(MATRIX, MATRIX).to(dtype)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        torch.mm(left, left)
        best = max(best, 2.0 * MATRIX**3 / (time.process_time() - start))
    return best


def compare(arguments: argparse.Namespace) -> None:
    """Alternate, print each pair and the medians."""
    policy = load_policy(arguments.model, dtype=arguments.dtype, device="cpu")
    work = Work.of(policy, arguments)
    if not policy.packs_rows:
        sys.exit(f"{policy.describe()}: there is no packed pass for this architecture")
    print(f"{policy.describe()}; {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for name in PASSES:
        run(policy, work, name)
    seconds: dict[str, list[float]] = {name: [] for name in PASSES}
    for repeat in range(arguments.repeats):
        line = f"repeat {repeat}"
        for name in PASSES:
            cpu, wall = run(policy, work, name)
            seconds[name].append(cpu)
            line += f"   {name} {cpu:.2f} s CPU, {wall:.2f} s wall"
        print(line, flush=True)
    ratios = [old / new for new, old in zip(seconds["packed"], seconds["transformers"], strict=True)]
    rate = matrix_rate(policy.compute_dtype)
    print(f"transformers / packed: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    for name, values in seconds.items():
        share = work.num_flops(policy) / statistics.median(values) / rate
        print(f"{name}: {share:.0%} of the matrix rate ({rate / 1e9:.0f} GFLOP/s)")


def peak(arguments: argparse.Namespace) -> None:
    """Run one pass twice and prints the process's peak memory in MiB."""
    policy = load_policy(arguments.model, dtype=arguments.dtype, device="cpu")
    policy.activation_checkpointing = arguments.checkpointing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        run(policy, Work.of(policy, arguments), arguments.only)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"loaded": before / 2**10, "peak": after / 2**10}))


def compare_memory() -> None:
    """Each pass in its own process, with this process's arguments."""
    for name in PASSES:
        command = [sys.executable, __file__, *(each for each in sys.argv[1:] if each != "--memory"), "--only", name]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sizes = json.loads(out.splitlines()[-1])
        print(f"{name}: peak {sizes['peak']:.0f} MiB, {sizes['loaded']:.0f} MiB of it after loading", flush=True)


def main() -> None:
    """Parse the arguments and run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--case", choices=CASES, default="medium")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--ragged", action="store_true", help="responses of 1 to the case's number of tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--checkpointing", choices=["auto", "never", "always"], default="auto")
    parser.add_argument("--only", choices=PASSES, help="one pass, for its memory")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.memory:
        compare_memory()
    elif arguments.only:
        peak(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
