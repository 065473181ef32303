"""Tokens a second of the decoding engine, with one request at a time and with many; and what a long prompt does.

    python -m benchmarks.serving_engine --clients 32 --tokens 48

Each client asks for one answer after the other, with a prompt and a seed of its own; nothing ends early. The numbers of
one run belong together: on a machine that others use, only their ratio says something. Beside them: the longest time
between two tokens of an answer while a prompt of `--long` tokens is read, and the time to that prompt's first token.
"""

import argparse
import threading
import time
from dataclasses import dataclass, field

from klimb.experience.samples import SamplingSettings
from klimb.policies import load_policy
from klimb.samplers import Completion
from klimb.samplers.service import DecodingEngine, DrawnToken, DrawRequest

PROMPT_TOKENS = 64


def main() -> None:
    """One at a time, then all at once, then a long prompt beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--long", type=int, default=1024)
    options = parser.parse_args()
    policy = load_policy(options.model, device="cpu")
    policy.end_ids = ()
    with DecodingEngine(policy, max_batch=options.clients + 1) as engine:
        print(engine.describe())
        answer_all(engine, 2, tokens=4, first_seed=10**6)  # the first call prepares products
        alone = [answer_all(engine, 1, tokens=options.tokens, first_seed=i) for i in range(3)]
        together = answer_all(engine, options.clients, tokens=options.tokens, first_seed=100)
        one, many = 3 * options.tokens / sum(alone), options.clients * options.tokens / together
        print(f"one at a time        {one:8.1f} tokens/s")
        print(f"{options.clients:3d} at a time        {many:8.1f} tokens/s, {many / one:.2f} times as many")
        print_long_prompt(engine, options.clients, options.tokens, options.long)


@dataclass
class Asked:
    """One request, and when its tokens came."""

    is_over: threading.Event = field(default_factory=threading.Event)
    times: list[float] = field(default_factory=lambda: [time.perf_counter()])

    def hear(self, _: DrawnToken) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def end(self, outcome: Completion | Exception) -> None:
        """Note the end."""
        if isinstance(outcome, Exception):
            raise outcome
        self.is_over.set()

    @property
    def gaps(self) -> list[float]:
        """Seconds before each token."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def ask(engine: DecodingEngine, *, seed: int, prompt_tokens: int, tokens: int) -> Asked:
    """Submit one request whose prompt no other has."""
    asked = Asked()
    prompt = tuple(1000 + (seed * 7919 + i * 31) % 40_000 for i in range(prompt_tokens))
    settings = SamplingSettings(max_new_tokens=tokens)
    engine.submit(DrawRequest(prompt_ids=prompt, settings=settings, seed=seed), on_token=asked.hear, on_end=asked.end)
    return asked


def answer_all(engine: DecodingEngine, count: int, *, tokens: int, first_seed: int) -> float:
    """Seconds until so many requests, submitted at once, have ended."""
    began = time.perf_counter()
    asked = [ask(engine, seed=first_seed + i, prompt_tokens=PROMPT_TOKENS, tokens=tokens) for i in range(count)]
    for each in asked:
        each.is_over.wait()
    return time.perf_counter() - began


def print_long_prompt(engine: DecodingEngine, count: int, tokens: int, length: int) -> None:
    """Print the gaps between tokens with and without a long prompt beside."""
    asked = [ask(engine, seed=500 + i, prompt_tokens=PROMPT_TOKENS, tokens=tokens) for i in range(count)]
    while min(len(each.times) for each in asked) < tokens // 3:
        time.sleep(0.01)
    since = [len(each.times) - 1 for each in asked]
    long = ask(engine, seed=999, prompt_tokens=length, tokens=2)
    for each in [*asked, long]:
        each.is_over.wait()
    before = max(max(each.gaps[1:count_before]) for each, count_before in zip(asked, since, strict=True))
    beside = max(max(each.gaps[count_before:]) for each, count_before in zip(asked, since, strict=True))
    print(f"longest wait for a token: {before:.2f} s, and {beside:.2f} s beside a prompt of {length} tokens")
    print(f"that prompt's first token came after {long.gaps[0]:.2f} s")


if __name__ == "__main__":
    main()
