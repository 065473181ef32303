"""klimb's log-prob head beside full logits, TRL's chunked head and Liger's: time ratios and peak memory.

    python -m benchmarks.losses                                 # 1k and 4k tokens, float32 and bfloat16
    python -m benchmarks.losses --tokens 4096 --dtype bfloat16 --entropy yes --repeats 7

Forward and backward from hidden states [tokens, 576] and a float32 output matrix [49152, 576] to the log-probability of
a target each, through a loss that is not linear in them; with the entropy as well where asked. In bfloat16 the products
are (autocast around float32 weights). The contenders take turns; ratios pair neighbours in time. Memory is the growth
of a fresh process's peak during one call, the gradients that are returned (weight and hidden) included.

    klimb    tiles of 512 tokens x 2048 vocabulary entries, log-probabilities and gradient from hidden states
    naive    full logits, log_softmax in float32
    trl      trl.kernels.ChunkedLogProbFunction as GRPOTrainer calls it
    liger    LigerFusedLinearScaledCrossEntropyFunction, where liger-kernel is installed and runs
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import in_turns, machine, paired_ratios, peak_gib, reset_peak, timed
from klimb.policies import token_log_probs

MIB_PER_GIB = 1024
ENTROPY_WEIGHT = 0.01
TRL_VOCAB_CHUNK = 32768
"""What TRL 1.16 gives its kernel."""

LIGER_IGNORES = -100


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of the problem."""

    tokens: int
    dtype: str
    with_entropy: bool
    vocab: int = 49152
    hidden: int = 576

    def __str__(self) -> str:
        """Return a line's label."""
        return f"{self.tokens} tokens, {self.dtype}, {'with' if self.with_entropy else 'without'} entropy"


@dataclass(frozen=True)
class Inputs:
    """Hidden states, the output matrix and the targets."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor


Head = Callable[[Inputs, bool], tuple[Tensor, Tensor | None]]
"""(inputs, with entropy) -> log-probabilities and entropies."""


def of_klimb(inputs: Inputs, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Without the [tokens, vocabulary] logits."""
    scored = token_log_probs(inputs.hidden, inputs.weight, inputs.targets, with_entropy=with_entropy)
    return scored.log_pi, scored.entropy


def of_naive(inputs: Inputs, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """All logits at once."""
    log_p = torch.nn.functional.linear(inputs.hidden, inputs.weight).float().log_softmax(-1)
    log_pi = log_p.gather(-1, inputs.targets[:, None])[:, 0]
    return log_pi, -(log_p.exp() * log_p).sum(-1) if with_entropy else None


def of_trl(inputs: Inputs, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """TRL's kernel, in torch on a CPU."""
    kernel = importlib.import_module("trl.kernels").ChunkedLogProbFunction
    outputs = ("entropy",) if with_entropy else ()
    settings = (1.0, TRL_VOCAB_CHUNK, None, 1.0, outputs)
    log_pi, entropy, *_ = kernel.apply(inputs.hidden, inputs.weight, None, inputs.targets, *settings)
    return log_pi, entropy


def of_liger(inputs: Inputs, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Liger's kernel; it takes its inputs in the dtype of the products."""
    kernel = importlib.import_module("liger_kernel.ops").LigerFusedLinearScaledCrossEntropyFunction
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.hidden.dtype
    hidden, weight = inputs.hidden.to(dtype), inputs.weight.to(dtype)
    found: Any = kernel.apply(hidden, weight, inputs.targets, 1.0, LIGER_IGNORES, 1, with_entropy)
    loss, entropy = found if with_entropy else (found, None)
    return -loss, entropy


HEADS: dict[str, Head] = {"klimb": of_klimb, "naive": of_naive, "trl": of_trl, "liger": of_liger}


def make_inputs(case: Case) -> Inputs:
    """Random, the same for the same case; logits of a spread as in language models."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(case.tokens, case.hidden, generator=generator)
    weight = torch.randn(case.vocab, case.hidden, generator=generator).mul_(2 / case.hidden**0.5)
    targets = torch.randint(case.vocab, (case.tokens,), generator=generator)
    return Inputs(hidden.requires_grad_(), weight.requires_grad_(), targets)


def run(head: Head, inputs: Inputs, case: Case) -> Tensor:
    """Forward and backward; returns the log-probabilities and leaves the gradients in `inputs`."""
    inputs.hidden.grad = inputs.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == "bfloat16"):
        log_pi, entropy = head(inputs, case.with_entropy)
    loss = -log_pi.float().exp().mean() + 0.1 * log_pi.float().square().mean()
    if entropy is not None:
        loss = loss - ENTROPY_WEIGHT * entropy.float().square().mean()
    loss.backward()
    return log_pi.detach().float()


def available() -> list[str]:
    """Return the heads that can be imported and run on a small problem; says why others cannot."""
    names: list[str] = []
    small = Case(tokens=8, dtype="float32", with_entropy=True, vocab=64, hidden=16)
    for name, head in HEADS.items():
        try:
            run(head, make_inputs(small), small)
            names.append(name)
        except (ImportError, AttributeError, RuntimeError, NotImplementedError) as error:
            print(f"{name} is left out: {type(error).__name__}: {error}")
    return names


def peak_growth(name: str, case: Case) -> float:
    """MiB by which one call raises the peak of a fresh process."""
    settings = json.dumps({"tokens": case.tokens, "dtype": case.dtype, "with_entropy": case.with_entropy})
    command = [sys.executable, "-m", "benchmarks.losses", "--measure-memory", name, settings]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_memory(name: str, settings: str) -> None:
    """In this process; a small call first, so that what libraries allocate once doesn't count."""
    case = Case(**json.loads(settings))
    small = Case(tokens=8, dtype=case.dtype, with_entropy=case.with_entropy, vocab=64, hidden=16)
    run(HEADS[name], make_inputs(small), small)
    inputs = make_inputs(case)
    before = reset_peak()
    run(HEADS[name], inputs, case)
    print((peak_gib() - before) * MIB_PER_GIB)


def compare(case: Case, names: list[str], repeats: int) -> list[dict[str, Any]]:
    """One row a head: median milliseconds, ratio to klimb's neighbouring run, memory, largest difference."""
    inputs = make_inputs(case)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    values = {name: run(HEADS[name], inputs, case) for name in names}
    for _, name in in_turns(names, repeats):
        timing = timed(lambda name=name: run(HEADS[name], inputs, case))
        seconds[name].append(timing.seconds)
        cpu[name].append(timing.cpu_seconds)
    rows: list[dict[str, Any]] = []
    for name in names:
        rows.append(
            {
                "case": str(case),
                "head": name,
                "milliseconds": sorted(seconds[name])[repeats // 2] * 1000,
                "ratio": str(paired_ratios(seconds[name], seconds["klimb"])),
                "cpu_ratio": str(paired_ratios(cpu[name], cpu["klimb"])),
                "peak_mib": peak_growth(name, case),
                "differs_by": float((values[name] - values["klimb"]).abs().max()),
            }
        )
    return rows


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """All combinations that were asked for."""
    for tokens in arguments.tokens:
        for dtype in arguments.dtype:
            for entropy in arguments.entropy:
                yield Case(tokens=tokens, dtype=dtype, with_entropy=entropy == "yes")


def main() -> None:
    """Compare all heads in every case and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--entropy", nargs="+", default=["no", "yes"], choices=["no", "yes"])
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write all rows there")
    parser.add_argument("--measure-memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        measure_memory(*arguments.measure_memory)
        return
    print(machine())
    names = available()
    rows: list[dict[str, Any]] = []
    for case in cases(arguments):
        print(f"\n{case}\n{'head':<8}{'ms':>8}{'peak MiB':>10}  time over klimb's{'':<17}CPU time over klimb's")
        for row in compare(case, names, arguments.repeats):
            rows.append(row)
            line = f"{row['head']:<8}{row['milliseconds']:8.0f}{row['peak_mib']:10.0f}  {row['ratio']:<34}"
            print(f"{line}{row['cpu_ratio']:<34}log-probs differ by {row['differs_by']:.1e}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
