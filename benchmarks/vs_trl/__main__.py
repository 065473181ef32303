"""Steps of klimb and of TRL's GRPOTrainer side by side: seconds by phase, tokens per second, peak memory, ratios.

    python -m benchmarks.vs_trl --case medium                  # 8 prompts x 8 x (40 + 64) tokens
    python -m benchmarks.vs_trl --case long --tune --json long.json
    python -m benchmarks.vs_trl --case long --checkpointing always   # klimb with less memory
    python -m benchmarks.vs_trl --case short --epochs 4 --reference fixed --dtype float32
    python -m benchmarks.vs_trl --learning                     # mean reward a step at equal samples, one-digit addition

Two processes live for the whole benchmark and take turns, a step each, in alternating order; only one works at a time.
Both have the same model, prompts, number of drawn and trained tokens (no end tokens), group size, epochs, rewards,
loss (`--recipe grpo` is TRL's loss_type grpo), AdamW with float32 weights, and number of threads. klimb is run as
`klimb train` runs it, its measurement of the gap between sampler and trainer and its recording of rollouts included.

Phases: `sample` draws and decodes; `score` is rewards and forward passes without gradient (reference, old
log-probabilities); `update` is the rest. `CPU` adds up all threads of a process. Peak memory is that of a
process: weights, optimizer, libraries and all.

TRL's vLLM backend is not attempted: TRL 1.16 asks for vLLM 0.22 to 0.31 in the environment that it runs in, which this
project's has not.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from benchmarks.measuring import in_turns, machine
from benchmarks.vs_trl.settings import TrlSettings
from benchmarks.vs_trl.tables import as_json, check_equal_work, learning_lines, step_line, summary_lines
from benchmarks.vs_trl.tuning import start_trl, tuned
from benchmarks.vs_trl.turns import Side, StepRecord
from benchmarks.workload import CASES, LEARNING, Workload


def main() -> None:
    """Start both sides, lets them take turns, prints each step and the ratios."""
    arguments = parsed()
    workload, settings = make_workload(arguments), make_settings(arguments)
    print(f"{machine()}\n{workload}", flush=True)
    if arguments.tune:
        print("tuning TRL: median seconds a step", flush=True)
        settings = tuned(workload, settings)
    with (
        Side("klimb", "benchmarks.vs_trl.klimb_side", workload.to_json()) as klimb,
        start_trl(workload, settings) as trl,
    ):
        facts = {side.name: side.facts for side in (klimb, trl)}
        for name, fact in facts.items():
            print(f"{name} {fact['version']}: {fact['setting']}", flush=True)
        if klimb.facts["num_prompt_tokens"] != trl.facts["num_prompt_tokens"]:
            raise ValueError(f"the sides read different prompts: {facts}")
        records = measured(
            {"klimb": klimb, "TRL": trl}, num_steps=arguments.steps, num_warmup=0 if workload.learning else 1
        )
    if not workload.learning:
        check_equal_work(records)
    print("\n".join(learning_lines(records) if workload.learning else summary_lines(records)))
    if arguments.json:
        result = {"machine": machine(), "workload": dataclasses.asdict(workload), "facts": facts} | as_json(records)
        arguments.json.write_text(json.dumps(result, indent=1))


def measured(sides: dict[str, Side], *, num_steps: int, num_warmup: int) -> dict[str, list[StepRecord]]:
    """Return the records of every side after the warm-up, in the order of the rounds."""
    records: dict[str, list[StepRecord]] = {name: [] for name in sides}
    for number, name in in_turns(list(sides), num_steps + num_warmup):
        record = sides[name].step()
        if number >= num_warmup:
            records[name].append(record)
        label = number + 1 - num_warmup
        print(step_line(label, name, record) + ("  warm-up" if number < num_warmup else ""), flush=True)
    return records


def make_workload(arguments: argparse.Namespace) -> Workload:
    """Return what both sides are to do."""
    sizes = dict(LEARNING if arguments.learning else CASES[arguments.case])
    if arguments.prompts:
        sizes["num_prompts"] = arguments.prompts
    return Workload(
        model=arguments.model,
        dtype=arguments.dtype,
        group_size=arguments.group,
        num_epochs=arguments.epochs,
        reference=arguments.reference,
        recipe=arguments.recipe,
        learning=arguments.learning,
        micro_batch_tokens=arguments.micro_batch_tokens,
        checkpointing=arguments.checkpointing,
        threads=arguments.threads,
        seed=arguments.seed,
        **sizes,
    )


def make_settings(arguments: argparse.Namespace) -> TrlSettings:
    """Return what TRL starts from."""
    return TrlSettings(
        attention=arguments.trl_attention,
        micro_batch=arguments.trl_micro_batch,
        weights=arguments.trl_weights,
        keep_memory=not arguments.trl_default_allocator,
        cache=arguments.trl_cache,
    )


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="medium")
    parser.add_argument("--learning", action="store_true", help="compare mean rewards instead of seconds")
    parser.add_argument("--steps", type=int, default=None, help="measured steps a side: 6, or 24 with --learning")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--reference", choices=["none", "fixed"], default="none")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--recipe", default="grpo", help="klimb's; grpo has TRL's own loss")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=0, help="prompts a step instead of the case's")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of each side; torch's default if 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--micro-batch-tokens", type=int, default=0, help="klimb's; its default if 0")
    parser.add_argument("--checkpointing", choices=["auto", "never", "always"], default="auto", help="klimb's")
    parser.add_argument("--tune", action="store_true", help="find TRL's fastest settings first, starting from these")
    parser.add_argument("--trl-attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--trl-micro-batch", type=int, default=16)
    parser.add_argument("--trl-weights", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--trl-default-allocator", action="store_true")
    parser.add_argument("--trl-cache", choices=["dynamic", "static"], default="dynamic")
    parser.add_argument("--json", type=Path, help="write all steps there")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (24 if arguments.learning else 6)
    if min(arguments.steps, arguments.epochs, arguments.group) < 1:
        parser.error("--steps, --epochs and --group must be >= 1")
    return arguments


if __name__ == "__main__":
    main()
