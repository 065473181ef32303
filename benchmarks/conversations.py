"""What several turns cost: drawing them with the cache kept beside reading each history again, and training's memory.

    python -m benchmarks.conversations
    python -m benchmarks.conversations --rows 32 --turns 6 --repeats 5

Drawing: `--rows` conversations in groups of 4 with `--turns` turns of 24 tokens, between which 60 tokens come in, drawn
by klimb's own decoder, and in rounds whose prompts are the whole histories; in CPU seconds of this process, in turn.
Memory: one forward and backward pass over conversations, and over answers of one turn with as many tokens in prompts
and in responses, each in a process of its own; peak resident memory beyond what the model takes.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from concurrent.futures import Future

import torch

from klimb.experience import SamplingSettings
from klimb.policies import Policy, load_policy
from klimb.samplers import Completion, LocalSampler, converse_in_rounds

GROUP, PROMPT, CONTEXT, TURN = 4, 150, 60, 24
KIB_PER_MIB = 1024


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    compare_sampling(arguments)
    compare_memory(arguments)


def compare_sampling(arguments: argparse.Namespace) -> None:
    """Print drawn tokens a CPU second of both ways, and their ratio."""
    policy = load_policy(arguments.model)
    policy.end_ids = ()
    sampler = LocalSampler(policy)
    rates: dict[str, list[float]] = {"cache kept": [], "in rounds": []}
    for _ in range(arguments.repeats):
        for name in rates:
            started = time.process_time()
            num_tokens = _converse(sampler, policy, arguments, in_rounds=name == "in rounds")
            rates[name].append(num_tokens / (time.process_time() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:<12}{rate:8.1f} drawn tokens a CPU second")
    print(f"cache kept / in rounds: {medians['cache kept'] / medians['in rounds']:.2f}")


def _converse(sampler: LocalSampler, policy: Policy, arguments: argparse.Namespace, *, in_rounds: bool) -> int:
    prompts = [_ids(PROMPT, row // GROUP, policy) for row in range(arguments.rows)]

    def answer(number: int, completion: Completion) -> "Future[tuple[int, ...] | None]":
        future: Future[tuple[int, ...] | None] = Future()
        future.set_result(_ids(CONTEXT, number + completion.response_ids[-1], policy))
        return future

    settings = SamplingSettings(max_new_tokens=TURN)
    generator = torch.Generator().manual_seed(0)
    told = {"settings": settings, "generator": generator, "answer": answer, "max_turns": arguments.turns}
    held = converse_in_rounds(sampler, prompts, **told) if in_rounds else sampler.converse(prompts, **told)
    return sum(len(turn.response_ids) for _, dialogue in held for turn in dialogue.turns)


def _ids(count: int, seed: int, policy: Policy) -> tuple[int, ...]:
    return tuple((7 + 31 * seed + 13 * place) % policy.num_vocab for place in range(count))


def compare_memory(arguments: argparse.Namespace) -> None:
    """Print the peak memory of a pass over conversations, and over answers of one turn with as many tokens."""
    length = arguments.turns * TURN + (arguments.turns - 1) * CONTEXT
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name, with_turns in (("one turn", False), ("conversations", True)):
        with context.Pool(1) as pool:
            peaks[name] = pool.apply(
                _measure_pass, (arguments.model, arguments.rows, length, arguments.turns, with_turns)
            )
        print(f"{name:<14}{peaks[name]:8.0f} MiB beyond the model, {arguments.rows} rows of {PROMPT} + {length} tokens")
    print(f"conversations / one turn: {peaks['conversations'] / peaks['one turn']:.2f}")


def _measure_pass(model: str, num_rows: int, length: int, num_turns: int, with_turns: bool) -> float:
    """Return the peak resident memory in MiB of a forward and backward pass, beyond that before it."""
    policy = load_policy(model)
    prompts = [_ids(PROMPT, group, policy) for group in range(num_rows // GROUP)]
    index = torch.arange(num_rows) // GROUP
    ids = torch.tensor([_ids(length, row, policy) for row in range(num_rows)])
    mask = torch.ones(num_rows, length, dtype=torch.bool)
    if with_turns:
        for turn in range(num_turns - 1):
            start = (turn + 1) * TURN + turn * CONTEXT
            mask[:, start : start + CONTEXT] = False
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy.log_probs(prompts, index, ids, mask).log_pi.sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / KIB_PER_MIB


if __name__ == "__main__":
    main()
