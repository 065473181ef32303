"""Tokens per second of LocalSampler beside `generate` and `generate_batch` of transformers, alternating, at equal work.

    python -m benchmarks.sampler_speed --batch 64 --tokens 64
    python -m benchmarks.sampler_speed --batch 64 --tokens 128 --rows 256 --end-every 32
    python -m benchmarks.sampler_speed --vllm other-environment/bin/python

All draw at temperature 1 for `--rows` rows in groups of 8, at most `--batch` at once. Without `--end-every` there is no
end token, and every row has `--tokens`. With `--end-every K` every K-th token of the vocabulary ends a row: lengths are
then about geometric, from the same distribution for all, and only tokens up to a row's end count.

`generate` and `generate_batch` run on a copy of the model in the compute dtype, their fastest way; LocalSampler on the
float32 weights that are being trained, and it records log-probabilities besides. Absolute numbers on a shared machine
drift by 30 %: read the ratios. With `--clock cpu` the seconds are those of this process's own threads, which other
processes disturb less; use it with one thread. The last column says how many cores other processes kept busy.

`--vllm` names the python of an environment with `vllm`; it is run there after the others, in a process of its own, on
all cores. vLLM asks for libtcmalloc and libiomp5 in LD_PRELOAD: name them with `--vllm-preload a.so:b.so`.
"""

import argparse
import copy
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from benchmarks.measuring import busy_seconds
from klimb.experience.samples import SamplingSettings
from klimb.policies import Policy, load_policy
from klimb.samplers import LocalSampler

GROUP = 8
CONTENDERS = ("own", "transformers", "generate", "generate_batch")
VLLM_SCRIPT = Path(__file__).with_name("sampler_speed_vllm.py")

Run = Callable[[], int]
"""One call; returns the number of tokens that count."""


def main() -> None:
    """Parse the arguments, run all in turn, print one line per repeat, the medians and their ratios."""
    arguments = parsed_arguments()
    policy = load_policy(arguments.model, dtype=arguments.dtype, device=arguments.device)
    every = arguments.end_every
    policy = dataclasses.replace(policy, end_ids=tuple(range(0, policy.num_vocab, every)) if every else ())
    runs = {name: contender(name, policy, arguments) for name in arguments.contenders}
    print(
        f"{arguments.rows} rows, {arguments.batch} at once, up to {arguments.tokens} tokens after "
        f"{arguments.prompt_tokens}, {policy.compute_dtype}, {torch.get_num_threads()} threads"
    )
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm-up
    for repeat in range(arguments.repeats):
        for name, run in runs.items():
            num_tokens, seconds, foreign_cores = timed(run, policy.device, arguments.clock)
            rates[name].append(num_tokens / seconds)
            print(
                f"repeat {repeat}  {name:<15}{rates[name][-1]:8.0f} tokens/s  {num_tokens:6d} tokens   "
                f"other load {foreign_cores:.2f} cores",
                flush=True,
            )
    if arguments.vllm:
        rates["vllm"] = vllm_rates(policy, arguments)
    report(rates)


def parsed_arguments() -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=64, help="rows at once")
    parser.add_argument("--rows", type=int, help=f"in all, a multiple of {GROUP}; as many as at once if not given")
    parser.add_argument("--tokens", type=int, default=64, help="of a row at most")
    parser.add_argument("--end-every", type=int, default=0, metavar="K")
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["own", "transformers", "generate"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--vllm-preload", default="", metavar="LIBRARIES", help="LD_PRELOAD of vLLM's process")
    arguments = parser.parse_args()
    arguments.rows = arguments.rows or arguments.batch
    if arguments.rows < GROUP or arguments.rows % GROUP:
        parser.error(f"rows must be a multiple of {GROUP}, got {arguments.rows}")
    if arguments.batch % GROUP:
        parser.error(f"--batch must be a multiple of {GROUP}, got {arguments.batch}")
    return arguments


def contender(name: str, policy: Policy, arguments: argparse.Namespace) -> Run:
    """One call of the contender on all rows."""
    if name == "generate":
        return transformers_generate(policy, arguments)
    if name == "generate_batch":
        return transformers_generate_batch(policy, arguments)
    return local_sampler(policy, arguments, "auto" if name == "own" else "transformers")


def local_sampler(policy: Policy, arguments: argparse.Namespace, decoder: Literal["auto", "transformers"]) -> Run:
    """LocalSampler with this decoder."""
    sampler = LocalSampler(policy, max_batch=arguments.batch, decoder=decoder)
    if decoder == "auto":
        print(f"own: {sampler.describe()}")
    settings = SamplingSettings(max_new_tokens=arguments.tokens)
    prompts = random_prompts(policy, arguments).tolist()
    generator = torch.Generator().manual_seed(0)

    def run() -> int:
        groups = sampler.sample(prompts, num_samples=GROUP, settings=settings, generator=generator)
        return sum(len(completion.response_ids) for group in groups for completion in group)

    return run


def transformers_generate(policy: Policy, arguments: argparse.Namespace) -> Run:
    """`generate`, one batch after the other."""
    model, settings = peer_model(policy, arguments)
    batches = random_prompts(policy, arguments).to(policy.device).split(arguments.batch // GROUP)

    def run() -> int:
        num_tokens = 0
        for prompts in batches:
            # Zeros are padding behind an end token; a drawn 0 is an end token itself where there are any.
            drawn = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=settings)
            num_tokens += counted(drawn[:, prompts.shape[1] :].tolist(), policy.end_ids)
        return num_tokens

    return run


def transformers_generate_batch(policy: Policy, arguments: argparse.Namespace) -> Run:
    """`generate_batch`, transformers' continuous batching."""
    model, settings = peer_model(policy, arguments)
    prompts = random_prompts(policy, arguments).tolist()
    from transformers import ContinuousBatchingConfig

    batching = ContinuousBatchingConfig(max_batch_tokens=max(512, arguments.batch))

    def run() -> int:
        outputs = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=batching)
        return counted([output.generated_tokens for output in outputs.values()], policy.end_ids)

    return run


def peer_model(policy: Policy, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return a copy of the model in the compute dtype, and transformers' settings for the same draws."""
    model = cast(Any, copy.deepcopy(policy.causal_lm)).to(policy.compute_dtype).eval()
    # Its faster attention at these lengths: klimb loads models with `eager`, for training.
    model.set_attn_implementation("sdpa")
    settings = copy.deepcopy(model.generation_config)
    chosen = {"max_new_tokens": arguments.tokens, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    settings.update(
        **chosen, num_return_sequences=GROUP, pad_token_id=0, eos_token_id=list(policy.end_ids) or None, max_length=None
    )
    model.generation_config = settings
    return model, settings


def counted(rows: Sequence[Sequence[int]], end_ids: Sequence[int]) -> int:
    """Tokens up to the first end token of each row, that one included."""
    ends = set(end_ids)
    return sum(next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in rows)


def random_prompts(policy: Policy, arguments: argparse.Namespace) -> torch.Tensor:
    """Random token ids: one prompt per group."""
    shape = (arguments.rows // GROUP, arguments.prompt_tokens)
    return torch.randint(policy.num_vocab, shape, generator=torch.Generator().manual_seed(1))


def vllm_rates(policy: Policy, arguments: argparse.Namespace) -> list[float]:
    """Tokens per second of each repeat, measured in the other environment by the wall clock."""
    with tempfile.TemporaryDirectory() as folder:
        policy.save(folder)
        result = Path(folder) / "rates.json"
        task = {
            "model": folder,
            "prompts": random_prompts(policy, arguments).tolist(),
            "group": GROUP,
            "max_batch": arguments.batch,
            "max_tokens": arguments.tokens,
            "end_ids": policy.end_ids,
            "dtype": arguments.dtype,
            "repeats": arguments.repeats,
            "result": str(result),
        }
        command = [arguments.vllm, str(VLLM_SCRIPT)]
        environment = {**os.environ, "LD_PRELOAD": arguments.vllm_preload}
        subprocess.run(
            command, input=json.dumps(task), text=True, stdout=subprocess.DEVNULL, env=environment, check=True
        )
        return json.loads(result.read_text())


def report(rates: dict[str, list[float]]) -> None:
    """Medians, and the first contender's relative to the others'."""
    median = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    print("median    " + "   ".join(f"{name} {rate:.0f} tokens/s" for name, rate in median.items()))
    first, *others = median
    print("ratio     " + "   ".join(f"{first}/{name} {median[first] / median[name]:.2f}" for name in others))


def timed(run: Run, device: torch.device, clock: str) -> tuple[int, float, float]:
    """Tokens and seconds of one call, and how many cores other processes kept busy meanwhile (nan where unknown)."""
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    num_tokens = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds, own_seconds = time.perf_counter() - start, time.process_time() - own
    foreign_cores = max(0.0, (busy_seconds() - busy - own_seconds) / seconds)
    return num_tokens, own_seconds if clock == "cpu" else seconds, foreign_cores


if __name__ == "__main__":
    main()
