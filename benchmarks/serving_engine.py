"""Tokens a second of the decoding engine, with one request at a time and with many; and what a long prompt does.

    python -m benchmarks.serving_engine --clients 32 --tokens 48

Each client asks for one answer after the other, with a prompt and a seed of its own; nothing ends early. The numbers of
one run belong together: on a machine that others use, only their ratio says something. Beside them: whether the answers
that were asked for alone are the same among the others; the longest time between two tokens of an answer while a prompt
of `--long` tokens is read, and the time to that prompt's first token. Nothing is reused of what was read before.
"""

import argparse
import statistics
import threading
import time
from dataclasses import dataclass, field

from klimb.experience.samples import SamplingSettings
from klimb.policies import load_policy
from klimb.samplers import Completion
from klimb.samplers.service import DecodingEngine, DrawnToken, DrawRequest, ServiceLimits

PROMPT_TOKENS, NUM_ALONE = 64, 4


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
    limits = ServiceLimits(max_parked_bytes=0)
    with DecodingEngine(policy, max_batch=options.clients + 1, limits=limits) as engine:
        print(engine.describe())
        answer_all(engine, 2, tokens=4, first_seed=10**6)  # the first call prepares products
        alone = [answer_all(engine, 1, tokens=options.tokens, first_seed=i) for i in range(NUM_ALONE)]
        seconds, answers = answer_all(engine, options.clients, tokens=options.tokens, first_seed=0)
        one = NUM_ALONE * options.tokens / sum(seconds for seconds, _ in alone)
        many = options.clients * options.tokens / seconds
        num_same = sum(lonely[0] == crowded for (_, lonely), crowded in zip(alone, answers, strict=False))
        print(f"one at a time        {one:8.1f} tokens/s")
        print(f"{options.clients:3d} at a time        {many:8.1f} tokens/s, {many / one:.2f} times as many")
        print(f"{num_same} of the {NUM_ALONE} answers that were drawn alone are the same among the others")
        print_long_prompt(engine, options.clients, options.tokens, options.long)


@dataclass
class Asked:
    """One request, and when its tokens came."""

    is_over: threading.Event = field(default_factory=threading.Event)
    ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=lambda: [time.perf_counter()])

    def hear(self, token: DrawnToken) -> None:
        """Note the token and the time."""
        self.ids.append(token.token_id)
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


def answer_all(engine: DecodingEngine, count: int, *, tokens: int, first_seed: int) -> tuple[float, list[list[int]]]:
    """Seconds until so many requests, submitted at once, have ended; and their tokens."""
    began = time.perf_counter()
    asked = [ask(engine, seed=first_seed + i, prompt_tokens=PROMPT_TOKENS, tokens=tokens) for i in range(count)]
    for each in asked:
        each.is_over.wait()
    return time.perf_counter() - began, [each.ids for each in asked]


def print_long_prompt(engine: DecodingEngine, count: int, tokens: int, length: int) -> None:
    """Print the gaps between tokens with and without a long prompt beside."""
    asked = [ask(engine, seed=500 + i, prompt_tokens=PROMPT_TOKENS, tokens=tokens) for i in range(count)]
    while min(len(each.times) for each in asked) < tokens // 3:
        time.sleep(0.01)
    since = [len(each.times) - 1 for each in asked]
    long = ask(engine, seed=999, prompt_tokens=length, tokens=2)
    for each in [*asked, long]:
        each.is_over.wait()
    before = [gap for each, count in zip(asked, since, strict=True) for gap in each.gaps[1:count]]
    is_beside = [(each, time_of) for each in asked for time_of in range(len(each.gaps))]
    began, ended = long.times[0], long.times[1]
    beside = [each.gaps[i] for each, i in is_beside if began < each.times[i] and each.times[i + 1] < ended]
    print(f"a token came every {statistics.median(before):.2f} s, after {max(before):.2f} s at most")
    print(f"beside a prompt of {length} tokens: {statistics.median(beside):.2f} s, {max(beside):.2f} s at most")
    print(f"that prompt's first token came after {long.gaps[0]:.2f} s")


if __name__ == "__main__":
    main()
